#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""virtio-mem devices of QEMU: what is asked for is plugged in and out, and nothing is lost."""
import json
import os
import subprocess
import sys
import tempfile
import time

from cases import check, equal, load_script, run
from machine import BLOCK, BUILD, MIB, Machine

PAGES = BLOCK // 4096
MOM = 'memory_hotplug.memmap_on_memory=1'
STATE = 'devices/system/memory/memory%d/state'
SCENARIO = """boot memmap_on_memory=1 mem=1G
vadd v0 512M 64M
online_movable @0
kpf @0
vreq v0 200M
online_movable @1
hog a anon 100
vreq v0 150M
kpf @0
kpf @1
vreq v0 384M
online @2
offline @1
online_movable @1
unhog a
vreq v0 0
"""


def device(**more):
    """A machine with one device of 1 GiB, and its first block."""
    machine = Machine(append=MOM, devices=[Machine.virtio_mem('v', '1G', **more)])
    end = time.monotonic() + 20
    while not machine.devices() and time.monotonic() < end:
        time.sleep(0.02)
    return machine, machine.devices()[0]['address'] // BLOCK


def agree(machine, size_bytes, running=False):
    """Driver and device say the same of everything."""
    equal(machine.say('states'), '')
    equal(machine.plugged('v'), size_bytes, 'the device says')
    equal(machine.say('verify'), '')
    if not running:  # a look at everything is exact only then
        machine.say('check')


def frames(machine, block):
    return machine.figures(f'frames {block * PAGES} {PAGES}')


def test_sub_blocks():
    """Part of a block is used, the rest is logically offline, and never touched."""
    machine, first = device()
    with machine:
        for mib in (2, 64, 128, 130, 300, 130, 6, 0):
            found = machine.request('v', mib * MIB)
            equal((found['plugged'], found['error']), (mib * MIB, 0))
            agree(machine, mib * MIB)
            listed = machine.say('list devices/system/memory')
            for i in range(-(-mib // 128)):
                check(f'memory{first + i}/' in listed, 'block', i, 'at', mib)
                if machine.get(STATE % (first + i)) == 'offline':
                    machine.write(STATE % (first + i), 'online_movable')
                counts = frames(machine, first + i)
                plugged = min(128, mib - 128 * i) * MIB // 4096
                equal((counts['free'], counts['kept']), (plugged, PAGES - plugged), f'{mib}:{i}')
        check(f'memory{first}/' not in machine.say('list devices/system/memory'))


def test_device_block():
    machine, first = device(block=8 * MIB)
    with machine:
        machine.request('v', 24 * MIB)
        machine.write(STATE % first, 'online_movable')
        equal(frames(machine, first)['kept'], PAGES - 24 * MIB // 4096)
        agree(machine, 24 * MIB)
        machine.request('v', 8 * MIB)
        agree(machine, 8 * MIB)


def test_interrupt():
    """A request is served when the device calls, and not when somebody happens to look."""
    machine, _ = device()
    with machine:
        before = machine.figures('devices')['interrupts']
        started = time.monotonic()
        for i in range(1, 11):
            machine.request('v', 2 * i * MIB)
        check(time.monotonic() - started < 8, 'it took', time.monotonic() - started)
        check(machine.figures('devices')['interrupts'] - before >= 10, 'no interrupt')


def test_pages_move_out():
    """Who is in the way is moved, while it writes."""
    machine, first = device()
    machine.close()
    with Machine(append=MOM, smp=2, devices=[Machine.virtio_mem('v', '1G')]) as machine:
        machine.request('v', 100 * MIB)
        machine.write(STATE % first, 'online_movable')
        machine.say('hog a anon 80')
        equal(machine.say('where a').split(), [str(first), str(80 * 256)])
        machine.say('run a 1 churn')
        for mib in (40, 100, 20, 0):
            equal(machine.request('v', mib * MIB)['plugged'], mib * MIB)
            agree(machine, mib * MIB, running=True)
            if mib == 100:
                machine.say('stop a')
                machine.say('unhog a')
                machine.say('hog a anon 80')
                machine.say('run a 1 plain')
        machine.say('stop a')
        check(' wrong 0 ' in machine.say('tasks'), machine.say('tasks'))
        agree(machine, 0)


def test_in_the_way():
    """What cannot be moved stays, is named, and the rest of the request is tried again."""
    machine, first = device()
    with machine:
        machine.request('v', 128 * MIB)
        machine.write(STATE % first, 'online_kernel')
        machine.say('hog k kernel 4')
        equal(machine.say('where k').split(), [str(first), '1024'])
        found = machine.request('v', 0)
        equal((found['plugged'], found['error']), (4 * MIB, 16))
        time.sleep(0.5)  # whatever the device had to say has been heard
        agree(machine, 4 * MIB)
        machine.say('unhog k')
        end = time.monotonic() + 20
        while machine.plugged('v') and time.monotonic() < end:
            time.sleep(0.05)
        agree(machine, 0)


def test_offline_in_part():
    """A block of which only a part is plugged in goes offline, and comes back as it was."""
    machine, first = device()
    with machine:
        machine.request('v', 50 * MIB)
        machine.write(STATE % first, 'online_movable')
        machine.say('hog a anon 30')
        equal(machine.write(STATE % first, 'offline')[1], 7)
        equal(machine.write(STATE % first, 'online_movable')[1], 14)
        equal(frames(machine, first)['kept'], PAGES - 50 * 256)
        agree(machine, 50 * MIB)


def test_later_and_elsewhere():
    """A device that comes later, on another node, beside a DIMM."""
    with Machine(nodes=2, append=MOM, ports=1) as machine:
        machine.add_dimm('d', BLOCK)
        equal(machine.add_virtio_mem('v', 512 * MIB, 130 * MIB, 0, node=1), {})
        machine.settle(130 * MIB)
        found = machine.devices()[0]
        equal((found['node'], found['plugged'], found['error']), (1, 130 * MIB, 0))
        first = found['address'] // BLOCK
        check('node1@' in machine.say(f'list devices/system/memory/memory{first}').split('\n'))
        machine.write(STATE % first, 'online_movable')
        machine.write(STATE % 32, 'online_movable')
        check(machine.del_dimm('d')[1])
        machine.request('v', 0)
        agree(machine, 0)


def test_as_in_the_replay():
    """A scenario is taken here and by memplug replay, and the transcripts are compared."""
    bare = load_script('bare')
    with tempfile.TemporaryDirectory() as folder:
        for name in ('scenarios', 'replay', 'bare'):
            os.mkdir(os.path.join(folder, name))
        path = os.path.join(folder, 'scenarios', 'virtio.scn')
        with open(path, 'w', encoding='utf-8') as file:
            file.write(SCENARIO)
        wrong = bare.take(folder, 'virtio', os.path.join(folder, 'bare'))
        equal(wrong, '')
        files = [os.path.join(folder, name, 'virtio.jsonl') for name in ('replay', 'bare')]
        subprocess.run([os.path.join(BUILD, 'memplug'), 'replay', '-o', files[0], path],
                       check=True, timeout=60)
        done = subprocess.run([sys.executable, os.path.join(bare.KEPT, 'compare.py'), *files],
                              text=True, stdout=subprocess.PIPE, check=False, timeout=60)
        equal(done.returncode, 0, done.stdout)
        check('15 steps, 15 compared, 0 listed, 0 different' in done.stdout, done.stdout)
        plugged = []
        for name in files:
            with open(name, encoding='utf-8') as file:
                plugged.append([json.loads(line).get('plugged') for line in file])
        equal(plugged[1], plugged[0], 'plugged in')


if __name__ == '__main__':
    run(test_sub_blocks, test_device_block, test_interrupt, test_pages_move_out, test_in_the_way,
        test_offline_in_part, test_later_and_elsewhere, test_as_in_the_replay)
