# SPDX-License-Identifier: MIT
"""What is measured, in which groups, and what the figures should be."""

FRAME_PEERS = ['mempool', 'rte_malloc', 'jemalloc', 'mimalloc', 'tcmalloc', 'glibc', 'mmap']
# Through the slots of the CPUs, or a slot of each thread's own.
MODES = {'memplug-raw': 'raw', 'memplug-raw-slot': 'raw, own slot', 'memplug-owned': 'owned',
         'memplug-owned-slot': 'owned, own slot'}
OURS = list(MODES)
# Many frames by bulk calls of 64, through a slot of each thread's own; who has such calls too.
BULK_MODES = {'memplug-raw-bulk': 'raw, bulk calls', 'memplug-owned-bulk': 'owned, bulk calls'}
BULK_PEERS = {'mempool': 'mempool-bulk'}
BULK_COMMANDS = ['bulk 0 1', 'bulkrand 0 1', 'bulk 0 2', 'bulkx 0 2', 'rand90']
ALL_MODES = MODES | BULK_MODES

# Debian's package behind each peer: what to install if it is missing.
PACKAGES = {
    'mempool': 'libdpdk-dev', 'mempool-bulk': 'libdpdk-dev', 'rte_malloc': 'libdpdk-dev',
    'dpdk': 'libdpdk-dev',
    'jemalloc': 'libjemalloc-dev', 'mimalloc': 'libmimalloc-dev',
    'tcmalloc': 'libgoogle-perftools-dev',
}


class Group:
    """Workers that live together, and what each is asked for in one round."""

    def __init__(self, name, warm_ups, workers, renew=(), again=False):
        self.name, self.warm_ups, self.workers = name, warm_ups, workers
        self.renew, self.again = renew, again


def frames(region, commands, names, extra=()):
    workers = {f'frames-{name}': ([str(region)], commands + (list(extra) if name in OURS else []))
               for name in names}
    bulk = [command for command in commands if command in BULK_COMMANDS]
    for name in [*BULK_MODES, *BULK_PEERS.values()] if bulk else []:
        workers[f'frames-{name}'] = ([str(region)], bulk)
    return workers


PLUG = ['plug block 128', 'plug block 8192', 'plug host 128', 'bytes block 8192',
        'bytes host 8192']
MOVE = ['move touched', 'move fresh']
PLUG_GIB, POOL_GIB, MAPS = [1, 8, 64, 512, 4096], [1, 16, 128, 1024], [1, 1000, 50000]
CPUS = [1, 2, 4, 8, 16, 32, 64]
EVEN = ['quiet', 'storm', 'quiet own', 'storm own', 'slot']

# Frames: once before each round too, since some peers give memory back while others run. And a
# mempool's ring is touched for the first time in its first three rounds.
GROUPS = [
    Group('one thread', 2, frames(524288, ['bulk 0 1', 'bulkrand 0 1', 'repeat 0 1'],
                                  OURS + FRAME_PEERS, ['extra']), again=True),
    Group('order 9', 1, frames(524288, ['bulk 9 1', 'repeat 9 1'], OURS + FRAME_PEERS),
          again=True),
    Group('two threads', 2, frames(524288, ['bulk 0 2', 'bulkx 0 2', 'repeat 0 2'],
                                   OURS + FRAME_PEERS), again=True),
    Group('nearly full', 1, frames(262144, ['rand90'], OURS + FRAME_PEERS)),
    Group('fragmentation', 0, frames(262144, ['frag'], ['memplug-raw', 'memplug-owned'] +
                                     FRAME_PEERS)),
    Group('plug', 1, {
        'plug-memplug core': (['core'], PLUG),
        'plug-memplug linux': (['linux'], PLUG),
        'plug-dpdk': ([], ['plug 2048 128', 'plug 4 128', 'plug 2048 1024']),
        'plug-mimalloc': ([], ['plug 128', 'plug 8192']),
        'plug-bare': ([], ['plug 128']),
    }, renew=('plug-mimalloc',)),
    Group('move', 1, {
        'move-memplug': ([], ['move 0', 'move 9']),
        'live-memplug small trusted': (['small', 'trusted'], MOVE),
        'live-memplug small proved': (['small', 'proved'], MOVE),
        'live-memplug thp proved': (['thp', 'proved'], MOVE),
        'live-memplug hugetlb trusted': (['hugetlb', 'trusted'], MOVE),
        'live-memplug hugetlb proved': (['hugetlb', 'proved'], MOVE),
    }),
    Group('fork', 1, {'fork-memplug': ([], ['fork'])}),
    Group('growth', 0, {
        **{f'grow-memplug plug {gib}': ([str(gib)], [f'plug {gib}']) for gib in PLUG_GIB},
        **{f'grow-memplug pool {gib}': ([str(gib)], [f'pool {gib}']) for gib in POOL_GIB},
        'grow-memplug maps': (['1'], [f'maps {number}' for number in MAPS]),
        **{f'cpus-memplug {number}': ([str(number)], ['pair', 'drain']) for number in CPUS},
    }, renew=[f'grow-memplug pool {gib}' for gib in POOL_GIB]),
    Group('evenness', 1, {'grow-memplug even': (['1', 'blocks'], EVEN),
                          'locks-memplug': ([], ['run', 'look'])}),
]

# Frame workloads: name, command, figures that are added up.
WORKLOADS = [
    ('bulk order 0, alloc + free', 'bulk 0 1', ['alloc', 'free']),
    ('bulk order 0, alloc', 'bulk 0 1', ['alloc']),
    ('bulk order 0, free', 'bulk 0 1', ['free']),
    ('random-order free', 'bulkrand 0 1', ['free']),
    ('repeated pair, order 0', 'repeat 0 1', ['pair']),
    ('90 % full, batches of 1024, alloc + free', 'rand90', ['b1024-alloc', 'b1024-free']),
    ('90 % full, pair', 'rand90', ['pair']),
    ('2 threads, bulk order 0, alloc + free', 'bulk 0 2', ['alloc', 'free']),
    ('2 threads, remote frees, alloc + free', 'bulkx 0 2', ['alloc', 'free']),
    ('2 threads, repeated pair, order 0', 'repeat 0 2', ['pair']),
    ('order 9 bulk, alloc + free', 'bulk 9 1', ['alloc', 'free']),
    ('order 9 pair', 'repeat 9 1', ['pair']),
]

# (workload, ours, peer) -> bar, comparison, target. "best": the faster one of mempool and tcmalloc.
TARGETS = {
    ('bulk order 0, alloc + free', 'raw', 'mempool'): (1, '<=', 0.70),
    ('bulk order 0, alloc + free', 'owned', 'tcmalloc'): (1, '<=', 0.15),
    ('repeated pair, order 0', 'raw', 'best'): (2, '<=', 0.50),
    ('repeated pair, order 0', 'owned', 'best'): (2, '<=', 1.0),
    ('random-order free', 'owned', 'tcmalloc'): (3, '<=', 0.20),
    ('90 % full, batches of 1024, alloc + free', 'owned', 'tcmalloc'): (3, '<=', 0.35),
    ('2 threads, remote frees, alloc + free', 'owned', 'tcmalloc'): (4, '<=', 0.12),
    ('order 9 bulk, alloc + free', 'owned', 'tcmalloc'): (5, '<=', 0.35),
    ('order 9 pair', 'owned', 'tcmalloc'): (5, '<=', 0.18),
}

IDEAL9 = 256  # pieces of 2 MiB that half of 262,144 frames leave empty at best


class Row:
    """One line of the result: our figure, a peer's, and how they compare. A figure is (worker,
    command, names, factor), or a constant."""

    def __init__(self, bar, workload, mode, unit, ours, peer, value, target=None):
        self.bar, self.workload, self.mode, self.unit = bar, workload, mode, unit
        self.ours, self.peer, self.value, self.target = ours, peer, value, target


def frame_row(workload, command, names, ours, peer):
    mode, bulk = ALL_MODES[ours], ours in BULK_MODES
    bar, *target = TARGETS.get((workload, mode.split(',')[0], peer), (None,))
    of = ['mempool', 'tcmalloc'] if peer == 'best' else [peer]
    text = 'best of mempool, tcmalloc' if peer == 'best' else peer
    if bulk and peer in BULK_PEERS:
        of, text = [BULK_PEERS[peer]], f'{peer}, bulk calls'
    return Row(bar, workload, mode, 'ns', (f'frames-{ours}', command, names, 1), text,
               [(f'frames-{name}', command, names, 1) for name in of], tuple(target) or None)


def frame_rows():
    for workload, command, names in WORKLOADS:
        bulk = command in BULK_COMMANDS and 'pair' not in names
        for ours in OURS + (list(BULK_MODES) if bulk else []):
            for peer in FRAME_PEERS:
                yield frame_row(workload, command, names, ours, peer)
            if (workload, ALL_MODES[ours].split(',')[0], 'best') in TARGETS:
                yield frame_row(workload, command, names, ours, 'best')


def frag_rows():
    for ours in ('memplug-raw', 'memplug-owned'):
        mode = MODES[ours]
        for percent in (90, 80, 70, 60, 50):
            for peer in FRAME_PEERS:
                target = ('<=', 1.0) if (mode, peer) == ('owned', 'jemalloc') and \
                    percent <= 60 else None
                yield Row(6 if target else None, f'fragmentation, {percent} % full: 2 MiB pieces '
                          'in use', mode, 'pieces', (f'frames-{ours}', 'frag',
                                                     [f'occ{percent}'], 1), peer,
                          [(f'frames-{peer}', 'frag', [f'occ{percent}'], 1)], target)
        yield Row(6 if mode == 'owned' else None, 'fragmentation, 50 % full: order 9 to be had',
                  mode, 'frames', (f'frames-{ours}', 'frag', ['alloc9-50'], 1), 'ideal', IDEAL9,
                  ('>=', 0.96) if mode == 'owned' else None)


def plug_rows():
    dpdk, mimalloc = 'DPDK heap, 2 MiB granule, touched', 'mimalloc, unremovable arena'
    add2m = [('plug-dpdk', 'plug 2048 128', ['in'], 1)]
    for bar, mode, peer, value, target in [
            (7, 'core', dpdk, add2m, ('<=', 1 / 5000)),
            (7, 'core', mimalloc, [('plug-mimalloc', 'plug 128', ['in'], 1)], ('<=', 0.07)),
            (7, 'linux', dpdk, add2m, ('<=', 1 / 50)),
            (None, 'core', 'DPDK heap, 4 KiB granule, touched',
             [('plug-dpdk', 'plug 4 128', ['in'], 1)], None)]:
        yield Row(bar, 'add and online, 128 MiB', mode, 'ns',
                  (f'plug-memplug {mode}', 'plug block 128', ['in'], 1), peer, value, target)
    for command, text in [('in', 'memfd_create, ftruncate, mmap'),
                          ('in-without-create', 'ftruncate, mmap')]:
        yield Row(8, "fresh memfd, add and online, 128 MiB, memmap of the host's", 'linux', 'ns',
                  ('plug-memplug linux', 'plug host 128', ['in'], 1), text,
                  [('plug-bare', 'plug 128', [command], 1)],
                  ('<=', 1.3) if command == 'in' else None)
    # DPDK's time is linear in the bytes: it zeroes them.
    eight = [('plug-dpdk', 'plug 2048 1024', ['in'], 8)]
    for mode, peer, value, target in [
            ('core', mimalloc, [('plug-mimalloc', 'plug 8192', ['in'], 1)], ('<=', 2.5)),
            ('linux', dpdk + ', 8 x 1 GiB', eight, ('<=', 1 / 200))]:
        yield Row(9, 'add and online, 8 GiB as 64 blocks', mode, 'ns',
                  (f'plug-memplug {mode}', 'plug block 8192', ['in'], 1), peer, value, target)
    for mode, target in [('core', ('<=', 1 / 100)), ('linux', ('<=', 0.25))]:
        yield Row(10, 'offline and remove a free block', mode, 'ns',
                  (f'plug-memplug {mode}', 'plug block 128', ['out'], 1), dpdk,
                  [('plug-dpdk', 'plug 2048 128', ['out'], 1)], target)


def move_rows():
    for order, size, limit in [(0, '4 KiB', 1.15), (9, '2 MiB', 1.05)]:
        move = ('move-memplug', f'move {order}')
        yield Row(11, f'offline of a half-used block, {size}', 'core', 'ns',
                  (*move, ['offline'], 1), 'memcpy of the same bytes',
                  [(*move, ['memcpy'], 1)], ('<=', limit))
    for kind, pins, share in [('hugetlb', 'trusted', 0.50), ('small', 'trusted', 0.30),
                              ('thp', 'proved', 0.25), ('small', 'proved', 0.15),
                              ('hugetlb', 'proved', None)]:
        for target in ('touched', 'fresh'):
            move = (f'live-memplug {kind} {pins}', f'move {target}')
            bar = share is not None and target == 'touched'
            yield Row(11 if bar else None, f'offline of a live mapping, {kind} pages, pins '
                      f'{pins}, {target} target', 'linux', 'ns', (*move, ['offline'], 1),
                      'memcpy of the same bytes', [(*move, ['memcpy'], 1)],
                      ('<=', 1 / share) if bar else None)
    for kind in ('small', 'thp'):
        yield Row(11, f'pause of a unit, p99, {kind} pages, pins proved', 'linux', 'ns',
                  (f'live-memplug {kind} proved', 'move fresh', ['pause-p99'], 1), '2 ms', 2e6,
                  ('<=', 1.0))


def fork_rows():
    for figure, text in [('fork', 'fork with 256 MiB'), ('exec', 'the same, exec and wait'),
                         ('write-p50', 'first write in 64 KiB beside a child, p50'),
                         ('write-p99', 'first write in 64 KiB beside a child, p99'),
                         ('write', 'first write to a page, one after the other'),
                         ('discard', 'discard of a page beside a child')]:
        for way in ('lazy', 'copied'):
            yield Row(None, f'{text}, {way}', 'linux', 'ns',
                      ('fork-memplug', 'fork', [f'{figure}-{way}'], 1), 'a private mapping',
                      [('fork-memplug', 'fork', [f'{figure}-native'], 1)])


def other_rows():
    for how, limit, less in [('block', 256, 0), ('host', 13 * 1024, 2 << 20)]:
        text = 'self-hosted' if how == 'block' else "memmap of the host's, without the memmap"
        yield Row(12, f'memory of before used for 128 MiB, {text}', 'linux', 'bytes',
                  ('plug-memplug linux', f'bytes {how} 8192', ['preexisting'], 1, less), 'limit',
                  limit, ('<=', 1.0))
    for ours in OURS:
        for name, text in [('double', 'freed twice'), ('order', 'of another order'),
                           ('foreign', 'no frame of the pool')]:
            yield Row(None, f'a wrong free is refused: {text}', MODES[ours], 'ns',
                      (f'frames-{ours}', 'extra', [name], 1), '-', None)


def growth_rows():
    for gib in PLUG_GIB:
        for name, text in [('in', 'add and online'), ('out', 'offline and remove')]:
            yield Row(None, f'{text} {gib} GiB, for each 128 MiB', 'linux', 'ns',
                      (f'grow-memplug plug {gib}', f'plug {gib}', [name], 1), '-', None)
    for number in MAPS:
        yield Row(None, f'add and online 1 GiB beside {number} mappings, for each 128 MiB', 'linux',
                  'ns', ('grow-memplug maps', f'maps {number}', ['in'], 1), '-', None)
    for gib in POOL_GIB:
        yield Row(None, f'alloc and free high in {gib} GiB', 'growth', 'ns',
                  (f'grow-memplug pool {gib}', f'pool {gib}', ['pair'], 1), '-', None)
    for number in CPUS:
        for command, name, text in [('pair', 'pair', 'alloc and free'),
                                    ('drain', 'both', 'offline and online of a free block')]:
            yield Row(None, f'{text} on {number} simulated CPUs', 'core', 'ns',
                      (f'cpus-memplug {number}', command, [name], 1), '-', None)


def even_rows():
    for own, text in [('', "the CPU's slot"), (' own', 'own slot')]:
        for name in ('p50', 'p99', 'p99.9', 'p99.99'):
            yield Row(None, f'free and alloc, {name}, beside onlines and offlines, {text}', 'linux',
                      'ns', ('grow-memplug even', f'storm{own}', [name], 1), 'the same, alone',
                      [('grow-memplug even', f'quiet{own}', [name], 1)])
    for command, when in [('run', 'memory comes and goes'), ('look', 'it is looked at')]:
        for name, text in [('zone-p99', "a zone's lock is held, p99"),
                           ('zone-p99.9', "a zone's lock is held, p99.9"),
                           ('zone-max', "a zone's lock is held, longest"),
                           ('slot-max', "a CPU's slot is held, longest")]:
            yield Row(None, f'{text}, while {when}', 'linux', 'ns',
                      ('locks-memplug', command, [name], 1), '-', None)
    for name, text in [('cpu-lock', 'a lock of the CPU'), ('own-exchange', 'own, exchange'),
                       ('own-fenced', 'own, fenced'), ('rseq', 'restartable sequence')]:
        yield Row(None, f'to be inside a slot: {text}', 'linux', 'ns',
                  ('grow-memplug even', 'slot', [name], 1), '-', None)


def all_rows():
    yield from frame_rows()
    yield from frag_rows()
    yield from plug_rows()
    yield from move_rows()
    yield from fork_rows()
    yield from other_rows()
    yield from growth_rows()
    yield from even_rows()
