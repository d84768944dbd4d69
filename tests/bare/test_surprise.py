#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A DIMM is pulled out without asking: who was in it is told, or the kernel says why it stops."""
import time

from cases import check, equal, run
from machine import BLOCK, Broken, Machine

PAGES = BLOCK // 4096
STATE = 'devices/system/memory/memory%d/state'
HUGE = 'kernel/mm/hugepages/hugepages-2048kB/nr_hugepages'


def machine_with(mom):
    machine = Machine(append=f'memory_hotplug.memmap_on_memory={mom}')
    check(machine.add_dimm('d', 2 * BLOCK)[2])
    return machine


def pull(machine):
    """QEMU takes the device away; the kernel notices by itself."""
    machine.say('pull 0')
    check(machine.wait_event(lambda e: e['event'] == 'DEVICE_DELETED', 10), 'it is still there')
    machine.forget('mem-d')
    end = time.monotonic() + 10
    while 'memory32/' in machine.say('list devices/system/memory') and time.monotonic() < end:
        time.sleep(0.02)
    check('memory32/' not in machine.say('list devices/system/memory'), 'nobody noticed')


def again(machine):
    """The slot, the addresses and the group can be used again."""
    equal(machine.get('memplug/groups'), '')
    machine.say('check')
    equal(machine.say('verify'), '')
    check(machine.add_dimm('d', BLOCK)[2])
    equal(machine.write(STATE % 32, 'online_movable')[1], 14)
    check(machine.del_dimm('d')[1])
    machine.say('check')


def test_offline():
    """What is offline has nothing to lose, wherever its memmap was."""
    for mom in '01':
        with machine_with(mom) as machine:
            pull(machine)
            again(machine)


def test_in_use():
    """Tasks lose the pages that were in it and no others; nothing is copied from nowhere."""
    with machine_with('0') as machine:
        before = machine.figures('machine')['pool_pages']
        for block in (32, 33):
            machine.write(STATE % block, 'online_movable')
        equal(machine.write(HUGE, '4')[1], 1)
        machine.say('hog h hugetlb 4')
        machine.say('hog a anon 400')
        here = dict(line.split() for line in machine.say('where a').splitlines())
        lost = int(here['32']) + int(here['33'])
        pull(machine)
        words = [line.split() for line in machine.say('tasks').splitlines()]
        equal({line[0]: int(line[line.index('lost') + 1]) for line in words},
              {'h': 2, 'a': lost})
        equal(set(machine.say('where a').split()[::2]), set(here) - {'32', '33'})
        equal(machine.say('verify'), '')
        machine.say('unhog a')
        machine.say('unhog h')
        machine.write(HUGE, '0')
        equal(machine.figures('machine')['pool_pages'] <= before, True)
        again(machine)


def stops(mom, word, hog):
    with machine_with(mom) as machine:
        machine.write(STATE % 32, word)
        if hog:
            machine.say(hog)
        machine.say('pull 0')
        try:
            for _ in range(200):
                machine.say('machine')
                time.sleep(0.02)
        except Broken as error:
            return str(error)
    return 'it goes on'


def test_its_memmap():
    text = stops('1', 'online_movable', None)
    check('slot 0 was pulled out in use' in text and 'memmap' in text, text)


def test_the_kernels_own():
    text = stops('0', 'online_kernel', 'hog k kernel 1')
    check('slot 0 was pulled out in use' in text, text)


if __name__ == '__main__':
    run(test_offline, test_in_use, test_its_memmap, test_the_kernels_own)
