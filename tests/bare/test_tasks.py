#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tasks on other CPUs read and write pages that are moved under them, and lose nothing."""
import re
import time

from cases import check, equal, run
from machine import BLOCK, MIB, Machine

PAGES = BLOCK // 4096
MOM = 'memory_hotplug.memmap_on_memory='
STATE = 'devices/system/memory/memory%d/state'
HUGE = 'kernel/mm/hugepages/hugepages-%dkB/%s_hugepages'


def machine_with(blocks, smp, mem='1G', mom='1'):
    """DIMMs of a block each, from block 32 on, all offline."""
    machine = Machine(mem=mem, smp=smp, append=MOM + mom)
    for i in range(blocks):
        check(machine.add_dimm(f'd{i}', BLOCK)[2], 'nobody serves DIMM', i)
    return machine


def write(machine, block, word, error=0):
    step, result, text = machine.write(STATE % block, word)
    equal((step, min(result, 0)), ('write', -error), f'{word} {block}: {text}')
    return text


def tasks(machine):
    """What the tasks say of themselves: name, numbers."""
    found = {}
    for line in machine.say('tasks').splitlines():
        name, *words = line.split()
        if words[0] == 'units':
            found[name] = {key: int(value) for key, value in zip(words[::2], words[1::2])}
    return found


def wrong(machine):
    """Words that tasks found to be others than those that they wrote."""
    return sum(task['wrong'] for task in tasks(machine).values())


def moved(machine):
    stat = dict(line.split() for line in machine.get('memplug/stat').splitlines())
    return int(stat['nr_moved_pages'])


def faults(machine):
    return sum(int(n) for n in re.findall(r' faults (\d+)', machine.say('machine')))


def start(machine, name, kind, mib, cpu, how='plain'):
    machine.say(f'hog {name} {kind} {mib}')
    machine.say(f'run {name} {cpu} {how}')


def stop_all(machine):
    for name in tasks(machine):
        machine.say('stop ' + name)


def back_and_forth(machine, rounds, a=32, b=33):
    """What is used in one block goes to the other, and back."""
    for _ in range(rounds):
        write(machine, b, 'online_movable')
        write(machine, a, 'offline')
        a, b = b, a


def test_nothing_is_lost():
    """Pages, large pages, and pages that their owner gives back while they move."""
    with machine_with(2, 3) as machine:
        write(machine, 32, 'online_movable')
        start(machine, 'plain', 'anon', 24, 1)
        machine.say('hog large thp 8')
        start(machine, 'churn', 'anon', 2, 2, 'churn')
        before = moved(machine)
        back_and_forth(machine, 4)
        machine.say('stop churn')
        machine.say('run large 2 plain')
        back_and_forth(machine, 4)
        rounds = {name: task['round'] for name, task in tasks(machine).items()}
        stop_all(machine)
        check(moved(machine) - before >= 8 * 24 * 256, 'moved', moved(machine) - before)
        check(faults(machine) > 0, 'nobody met the fence')
        check(min(rounds.values()) >= 1, 'somebody did not run', rounds)
        check(tasks(machine)['churn']['replaced'] > 0, 'nothing was given back')
        equal(wrong(machine), 0, machine.say('tasks'))
        equal(machine.say('verify'), '')
        machine.say('check')
        for name in rounds:
            machine.say('unhog ' + name)
        machine.say('check')
        equal(machine.figures('frames %d %d' % (32 * PAGES, PAGES))['free'], PAGES - 512)


def losses(what, size):
    """The same with a protection off: what is lost is seen, sooner or later."""
    with machine_with(2, 2) as machine:
        machine.say(f'protection {what} off')
        write(machine, 32, 'online_movable')
        start(machine, 'a', 'anon', size, 1)
        for _ in range(10):
            back_and_forth(machine, 2)
            if wrong(machine):
                return wrong(machine)
        machine.say('stop a')
        return len(machine.say('verify').splitlines())


def test_without_the_fence_it_is():
    check(losses('fence', '24') > 0, 'the fence keeps nothing')


def test_without_the_shootdown_it_is():
    """With so few pages that a CPU remembers them all: QEMU's may remember 64."""
    check(losses('flush', '96K') > 0, 'the shootdown keeps nothing')


def test_unmovable():
    with machine_with(1, 1) as machine:
        write(machine, 32, 'online_kernel')
        machine.say('hog k kernel 1')
        where = machine.say('where k').split()[0]
        equal(where, '32')
        before = machine.say('frames %d %d' % (32 * PAGES, PAGES))
        text = write(machine, 32, 'offline', 16)
        check('nobody can move' in text or 'unmovable' in text or 'no mover' in text, text)
        equal(machine.say('frames %d %d' % (32 * PAGES, PAGES)), before)
        equal(machine.del_dimm('d0')[1], False, 'it went all the same')
        equal(machine.ost()[-1], (3, 0x82))
        machine.say('unhog k')
        check(machine.del_dimm('d0')[1], 'it stays')


def test_pinned():
    with machine_with(1, 2) as machine:
        write(machine, 32, 'online_movable')
        start(machine, 'p', 'pinned', 2, 1)
        equal(machine.write(STATE % 32, 'offline', 1)[1:], (-4, machine.write(
            STATE % 32, 'offline', 1)[2], True))
        equal(machine.get(STATE % 32), 'online')
        machine.say('stop p')
        equal(wrong(machine), 0)
        machine.say('unhog p')
        write(machine, 32, 'offline')


def test_huge_pages():
    """Of 2 MiB, read and written; the pool keeps its size."""
    with machine_with(2, 2) as machine:
        write(machine, 32, 'online_movable')
        equal(machine.write(HUGE % (2048, 'nr'), '20')[1], 2)
        start(machine, 'h', 'hugetlb', 24, 1)
        back_and_forth(machine, 3)
        stop_all(machine)
        equal(wrong(machine), 0, machine.say('tasks'))
        equal(machine.say('verify'), '')
        check(tasks(machine)['h']['round'] > 0, 'it did not run')
        machine.say('check')
        equal(machine.say('where h').split()[0], '33')


def test_gigantic_page():
    """A page of 1 GiB moves as one, while it is written."""
    with Machine(smp=2, append=MOM + '0') as machine:
        for i in (0, 1):
            machine.add_dimm(f'd{i}', 1024 * MIB, (4 + i) << 30)
        for block in range(32, 40):
            write(machine, block, 'online_movable')
        equal(machine.write(HUGE % (1048576, 'nr'), '1')[1], 1)
        start(machine, 'g', 'gigantic', 1024, 1)
        equal(machine.say('where g').split()[0], '32')
        for block in range(40, 48):
            write(machine, block, 'online_movable')
        write(machine, 35, 'offline')
        stop_all(machine)
        equal(machine.say('where g').split()[::2], [str(n) for n in range(40, 48)])
        equal(wrong(machine), 0, machine.say('tasks'))
        equal(machine.say('verify'), '')
        machine.say('check')


def test_lost_content():
    """A frame goes bad under a task: it hears of it, and goes on with the others."""
    with machine_with(1, 2) as machine:
        write(machine, 32, 'online_movable')
        start(machine, 'a', 'anon', 4, 1)
        address = 32 * BLOCK + 520 * 4096
        equal(machine.write('devices/system/memory/hard_offline_page', hex(address))[1],
              len(hex(address)))
        before = tasks(machine)['a']['round']
        end = time.monotonic() + 20
        while tasks(machine)['a']['round'] < before + 2 and time.monotonic() < end:
            time.sleep(0.02)
        found = tasks(machine)['a']
        check(found['round'] >= before + 2, 'it does not go on')
        equal((found['lost'], found['wrong']), (1, 0))
        stop_all(machine)
        equal(machine.say('verify'), '')
        machine.say('unhog a')
        machine.say('check')


def test_control_lock():
    """Two CPUs take blocks offline and online at once: one waits asleep, both go on."""
    with machine_with(3, 3) as machine:
        for block in (32, 33, 34):
            write(machine, block, 'online_movable')
        start(machine, 'a', 'anon', 16, 2)
        machine.say('toggle 33 1')
        for _ in range(8):
            write(machine, 32, 'offline')
            write(machine, 32, 'online_movable')
        found = machine.figures('untoggle 1')
        check(found['offline'] > 0, 'the other CPU never came to it', found)
        equal((found['failed'], found['offline']), (0, found['online']))
        stop_all(machine)
        equal(wrong(machine), 0, machine.say('tasks'))
        equal(machine.say('verify'), '')
        machine.say('check')


def test_waiting_for_the_lock_has_an_end():
    """Who waits asleep for the control lock hears a signal, and has changed nothing."""
    with machine_with(2, 2) as machine:
        for block in (32, 33):
            write(machine, block, 'online_movable')
        machine.say('hog p pinned 1')
        equal(machine.say('where p').split()[0], '32')
        machine.say('toggle 32 1')
        time.sleep(0.3)  # it has the lock now, for five seconds
        started = time.monotonic()
        step, result, text, signal = machine.write(STATE % 33, 'offline', 1)
        equal((step, result, signal), ('write', -4, True), text)
        check(time.monotonic() - started < 3, 'only when the other was done')
        equal(machine.get(STATE % 33), 'online')
        found = machine.figures('untoggle 1')
        check(found['failed'] > 0 and found['offline'] == 0, found)
        equal(found['error'], 110)
        write(machine, 33, 'offline')
        machine.say('check')


if __name__ == '__main__':
    run(test_nothing_is_lost, test_without_the_fence_it_is, test_without_the_shootdown_it_is,
        test_unmovable, test_pinned, test_huge_pages, test_gigantic_page, test_lost_content,
        test_control_lock, test_waiting_for_the_lock_has_an_end)
