#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""
DIMMs and virtio-mem come, are used and go, again and again, and not one page is lost.

MEMPLUG_BARE_CYCLES=1000 makes it longer.
"""
import os
import time

from cases import check, equal, run
from machine import BLOCK, MIB, Machine

CYCLES = int(os.environ.get('MEMPLUG_BARE_CYCLES', '20'))
STATE = 'devices/system/memory/memory%d/state'
PAGES = BLOCK // 4096


def figures(machine):
    """What has to be as it was: the kernel's memory, and what every frame is."""
    found = machine.figures('machine')
    kept = {key: found[key] for key in ('early_bytes', 'table_pages', 'pool_pages')}
    kept['frames'] = machine.say('frames 0 %d' % (8 * PAGES))
    kept['blocks'] = machine.say('list devices/system/memory')
    kept['stat'] = {key: value for key, value in
                    (line.split() for line in machine.get('memplug/stat').splitlines())
                    if key not in ('nr_moved_pages', 'nr_free_pages')}
    return kept


def online(machine, block, word):
    equal(machine.write(STATE % block, word)[1], len(word), f'{word} {block}')


def dimm_cycle(machine, cycle, first):
    """Two blocks, one of them in use by a task that writes while they go."""
    name = f'd{cycle % 3}'
    check(machine.add_dimm(name, 2 * BLOCK, first * BLOCK)[2], 'nobody serves', name)
    online(machine, first, 'online_movable')
    online(machine, first + 1, ('online_kernel', 'online_movable')[cycle % 2])
    machine.say('hog t anon 6')
    machine.say('hog k kernel 2')
    machine.say('run t 1 plain')
    if cycle % 2 == 0:
        equal(machine.del_dimm(name)[1], False, 'a DIMM went with somebody in it')
        equal([machine.get(f'devices/system/memory/memory{first + i}/valid_zones')
               for i in (0, 1)], ['Movable', 'Normal'], 'not put back')
    machine.say('unhog k')
    check(machine.del_dimm(name)[1], name, 'stays')
    machine.say('stop t')
    equal(machine.say('verify'), '')
    check(' wrong 0 ' in machine.say('tasks'), machine.say('tasks'))
    machine.say('unhog t')


def virtio_cycle(machine, cycle):
    first = machine.devices()[0]['address'] // BLOCK
    size = (2 + 14 * (cycle % 11)) * MIB
    machine.request('v', size)
    for i in range(-(-size // BLOCK)):
        online(machine, first + i, 'online_movable')
    machine.say('hog t anon 2')
    machine.request('v', size // 2 // (2 * MIB) * 2 * MIB)
    equal(machine.say('states'), '')
    equal(machine.say('verify'), '')
    machine.request('v', 0)
    equal(machine.plugged('v'), 0)
    machine.say('unhog t')


def cycles(mom):
    with Machine(smp=2, append=f'memory_hotplug.memmap_on_memory={mom}',
                 devices=[Machine.virtio_mem('v', '512M')]) as machine:
        end = time.monotonic() + 20
        while not machine.devices() and time.monotonic() < end:
            time.sleep(0.02)
        first = machine.devices()[0]['address'] // BLOCK + 8
        before = None
        for cycle in range(CYCLES):
            dimm_cycle(machine, cycle, first)
            virtio_cycle(machine, cycle)
            machine.say('check')
            if cycle % 10 and cycle + 1 < CYCLES:
                continue
            after = figures(machine)
            if before:
                equal(after, before, f'cycle {cycle}')
            before = after


def test_self_hosted():
    cycles('1')


def test_memmap_of_the_kernels():
    cycles('0')


if __name__ == '__main__':
    run(test_self_hosted, test_memmap_of_the_kernels)
