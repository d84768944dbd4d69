#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The memmap of huge pages is lent: seen in the page tables, and nothing is lost."""
from cases import check, equal, run
from machine import BLOCK, Machine
from test_boot import MEMMAP, mapped, memmap_of
from test_tasks import HUGE, back_and_forth, start, stop_all, write, wrong

PAGES = BLOCK // 4096
LENT = 7  # of the 8 memmap pages of 2 MiB


def frames_shown(machine, block):
    """The frame behind each page of a block's memmap."""
    virtual, size_bytes = memmap_of(block)
    found = []
    for _, address, size, unit in mapped(machine, virtual, size_bytes):
        equal(unit, 4096, 'bytes of an entry')
        found += range(address, address + size, 4096)
    equal(len(found), size_bytes // 4096)
    return found


def test_self_hosted():
    """Frames of the memmap become frames of its block, and are the memmap's again."""
    with Machine(smp=2, append='memory_hotplug.memmap_on_memory=1 '
                               'hugetlb_free_vmemmap=all') as machine:
        for name in ('a', 'b'):
            check(machine.add_dimm(name, BLOCK)[2])
        write(machine, 32, 'online_movable')
        own = frames_shown(machine, 32)
        equal(own, list(range(32 * BLOCK, 32 * BLOCK + len(own) * 4096, 4096)))
        equal(machine.write(HUGE % (2048, 'nr'), '10')[1], 2)
        lent = frames_shown(machine, 32)
        equal(len(own) - len(set(lent)), 10 * LENT, 'lent')
        equal(machine.figures(f'frames {32 * PAGES} {PAGES}')['free'],
              PAGES - 512 - 10 * 512 + 10 * LENT)
        start(machine, 'h', 'hugetlb', 20, 1)
        machine.say('hog a anon 90')
        back_and_forth(machine, 2)
        stop_all(machine)
        equal(wrong(machine), 0, machine.say('tasks'))
        equal(machine.say('verify'), '')
        machine.say('check')
        machine.say('unhog h')
        machine.say('unhog a')
        equal(machine.write(HUGE % (2048, 'nr'), '0')[1], 1)
        equal(frames_shown(machine, 32), own, 'given back')
        for name in ('a', 'b'):
            check(machine.del_dimm(name)[1], name, 'stays')
        machine.say('check')


def test_of_the_kernels():
    """They go back to the kernel, and have to be there again."""
    with Machine(append='hugetlb_free_vmemmap=on') as machine:
        machine.add_dimm('a', BLOCK)
        write(machine, 32, 'online_movable')
        before = machine.figures('machine')
        equal(machine.write(HUGE % (2048, 'nr'), '20')[1], 2)
        after = machine.figures('machine')
        equal(before['pool_pages'] - after['pool_pages'], 20 * LENT)
        equal(len(set(frames_shown(machine, 32))), 512 - 20 * LENT)
        machine.say('check')
        equal(machine.write(HUGE % (2048, 'nr'), '0')[1], 1)
        equal(machine.figures('machine')['pool_pages'], before['pool_pages'])
        equal(len(set(frames_shown(machine, 32))), 512)
        check(machine.del_dimm('a')[1])
        equal(mapped(machine, MEMMAP + 32 * BLOCK // 64, BLOCK // 64), [])
        machine.say('check')


if __name__ == '__main__':
    run(test_self_hosted, test_of_the_kernels)
