# SPDX-License-Identifier: MIT
"""The result as text: the bars, then every workload beside every peer."""


MODES = ['raw', 'raw, own slot', 'raw, bulk calls', 'owned', 'owned, own slot',
         'owned, bulk calls']


def number(value):
    if value is None:
        return '-'
    if value >= 1e6:
        return f'{value / 1e6:.2f}M'
    if value >= 10000:
        return f'{value / 1e3:.1f}k'
    return f'{value:.0f}' if value >= 100 else f'{value:.2f}' if value < 10 else f'{value:.1f}'


def share(value):
    return '-' if value is None else f'{value:.5f}' if value < 0.01 else f'{value:.3f}'


def aligned(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(line, widths))]
        yield '  '.join(cells).rstrip()


def bar_lines(rows):
    yield ['bar, workload', 'mode', 'ours', 'unit', 'peer', 'its', 'ratio', 'spread', 'target',
           'held']
    for row in rows:
        if row['bar'] is None or row['target'] is None:
            continue
        spread = '-' if row['spread'] is None else \
            f'{share(row["spread"][0])} .. {share(row["spread"][1])}'
        held = row['note'] or ('yes' if row['held'] else 'NO')
        yield [f'{row["bar"]:2} {row["workload"]}', row['mode'], number(row['ours']), row['unit'],
               row['peer'], number(row['peer_value']), share(row['ratio']), spread,
               row['target'], held]


def matrix_lines(rows, unit, peers):
    names = [name for name in MODES if any(row['mode'] == name and row['unit'] == unit and
                                           row['peer'] in peers for row in rows)] + peers
    yield [f'workload, {unit}'] + names
    values, notes = {}, {}
    for row in rows:
        if row['unit'] != unit or row['mode'] not in MODES or row['peer'] not in peers:
            continue
        line = values.setdefault(row['workload'], {})
        line[row['mode']] = row['ours']
        line[row['peer']] = row['peer_value']
        if row['peer_value'] is None and row['note']:
            notes[row['peer'], row['note']] = row['workload']
    for workload, line in values.items():
        yield [workload] + [number(line.get(name)) for name in names]


def note_lines(rows):
    seen = {}
    for row in rows:
        if row['note']:
            seen.setdefault((row['peer'], row['note']), []).append(row['workload'])
    for (peer, note), workloads in seen.items():
        yield f'  {peer}: {note} ({len(set(workloads))} workloads, first: {workloads[0]})'


def plain_lines(rows):
    yield ['workload', 'mode', 'ours', 'unit', 'peer', 'its', 'ratio']
    for row in rows:
        matrix = row['mode'] in MODES and row['peer'] != '-'
        if row['target'] is None and not matrix:
            yield [row['workload'], row['mode'], number(row['ours']), row['unit'], row['peer'],
                   number(row['peer_value']), share(row['ratio'])]


def text(head, rows):
    peers = list(dict.fromkeys(row['peer'] for row in rows if row['mode'] in MODES
                               and row['unit'] == 'ns' and row['peer'] not in ('-',)
                               and not row['peer'].startswith('best')))
    parts = [f'{name}: {value}' for name, value in head.items()] + ['']
    parts += list(aligned(list(bar_lines(rows)))) + ['']
    for unit in ('ns', 'pieces'):
        lines = list(matrix_lines(rows, unit, peers))
        if len(lines) > 1:
            parts += list(aligned(lines)) + ['']
    lines = list(plain_lines(rows))
    if len(lines) > 1:
        parts += list(aligned(lines)) + ['']
    notes = list(note_lines(rows))
    if notes:
        parts += ['Not there:'] + notes
    return '\n'.join(parts) + '\n'
