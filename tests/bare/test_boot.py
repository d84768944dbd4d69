#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The image boots, its boot memory is a pool, and its page tables are what they should be."""
import json
import os
import shutil
import subprocess
import sys
import time

from cases import check, equal, run
from machine import BLOCK, MIB, ROOT, Machine

KERNEL = os.path.join(ROOT, 'tests/linux/oracle/transcripts/6.12')
MEMMAP = 0xffffea0000000000
DIRECT = 0xffff888000000000
LARGE = 2 * MIB
MOM = 'memory_hotplug.memmap_on_memory='
STATE = 'devices/system/memory/memory%d/state'


def zone(machine, node, name):
    return {key: int(machine.get(f'memplug/zones/{node}/{name}/{key}'))
            for key in ('start_pfn', 'spanned', 'present')}


def mapped(machine, address, size_bytes):
    """(virtual, physical, bytes, bytes of an entry) of what the tables map there."""
    text = machine.say(f'tables 0x{address:x} {size_bytes}')
    return [tuple(int(word, 0) for word in line.split()) for line in text.splitlines()]


def memmap_of(block):
    """Where the window has the memmap of a block, and its bytes."""
    return MEMMAP + block * BLOCK // 4096 * 64, BLOCK // 4096 * 64


def test_cpus():
    for smp in (1, 2, 4):
        with Machine(smp=smp) as machine:
            equal(machine.greeting, f'memplug on {smp} CPUs, 1 nodes')
            machine.say('check')


def test_zones_are_the_kernels():
    for name in ('01-single-mom-on', '08-zones-contig', '47-offline-truly-no-room'):
        with open(os.path.join(KERNEL, name + '.jsonl'), encoding='utf-8') as file:
            boot = json.loads(file.readline())
        with Machine(mem=boot['mem']) as machine:
            for text, kernels in boot['snap']['zones'].items():
                node, kind = text.split('/')
                equal(zone(machine, node, kind), {key: kernels[key] for key in
                                                  ('start_pfn', 'spanned', 'present')}, text)
            for block, kernels in boot['snap']['blocks'].items():
                equal(machine.get(f'devices/system/memory/memory{block}/valid_zones'),
                      kernels['valid_zones'], 'block ' + block)


def test_words():
    with Machine() as machine:
        check('memory7/' in machine.say('list devices/system/memory').split('\n'))
        equal(machine.ask('get devices/system/memory/memory99/state')[0], 2)
        equal(machine.ask('list nowhere')[0], 2)
        equal(machine.ask('what')[0], 22)
        equal(machine.ask('get')[0], 22)
        equal(machine.write(STATE % 1, 'wrong')[:2], ('write', -22))
        equal(machine.write(STATE % 99, 'offline')[:2], ('open', -2))
        equal(machine.write('devices/system/memory/block_size_bytes', '1')[:2], ('open', -13))
        equal(machine.write(STATE % 1, 'offline')[:2], ('write', 7))
        equal(machine.get(STATE % 1), 'offline')
        equal(machine.write(STATE % 1, 'online')[:2], ('write', 6))
        machine.say('check')


def test_options():
    for text, found in (('memmap_on_memory=1', 'Y'), ('memmap_on_memory=off', 'N'),
                        (MOM + 'force', 'force'), ('memmap_on_memory=what', 'N'), ('', 'N')):
        with Machine(append='quiet ' + text) as machine:
            equal(machine.get('module/memory_hotplug/parameters/memmap_on_memory'), found, text)
    with Machine(append='memhp_default_state=online_movable') as machine:
        equal(machine.get('devices/system/memory/auto_online_blocks'), 'online_movable')
        machine.add_dimm('d', BLOCK)
        equal(machine.get('devices/system/memory/memory32/valid_zones'), 'Movable')


def test_nodes():
    with Machine(nodes=2) as machine:
        equal(machine.get('devices/system/node/possible'), '0-1')
        machine.add_dimm('d', 2 * BLOCK, node=1)
        check('node1@' in machine.say('list devices/system/memory/memory32').split('\n'))
        machine.write(STATE % 32, 'online_kernel')
        equal(zone(machine, 1, 'Normal')['present'], BLOCK // 4096)
        check(machine.del_dimm('d')[1], 'the device stays')
        machine.say('check')


def test_large():
    """The memmap of boot memory needs more than the first block: what it takes stays taken."""
    with Machine(mem='10G', maxmem='16G', append=MOM + '0') as machine:
        early = machine.figures('machine')['early_bytes']
        check(early > BLOCK, 'it fits', early)
        counts = machine.figures(f'frames {BLOCK // 4096} {BLOCK // 4096}')
        check(0 < counts['used'] < BLOCK // 4096, counts)
        equal(machine.write(STATE % 1, 'offline')[1], -16)
        machine.say('hog a anon 1800')
        machine.add_dimm('d', 4 * BLOCK)
        equal(machine.say('verify'), '')
        machine.say('check')
        machine.say('unhog a')
        check(machine.del_dimm('d')[1])
        equal(machine.figures('machine')['early_bytes'], early)
        equal(machine.write(STATE % 3, 'offline')[1], 7)
        check(machine.write('firmware/memory/memory3/config', '0')[1] > 0, 'boot memory stays')
        equal(mapped(machine, DIRECT + 3 * BLOCK, BLOCK), [])
        machine.say('check')


def test_self_hosted_memmap():
    """The window's entries point into the block itself, are large, and go with it."""
    with Machine(smp=2, append=MOM + '1') as machine:
        before = machine.figures('machine')
        machine.add_dimm('d', 2 * BLOCK)
        for block in (32, 33):
            virtual, size_bytes = memmap_of(block)
            equal(mapped(machine, virtual, size_bytes),
                  [(virtual, block * BLOCK, size_bytes, LARGE)], f'memmap of {block}')
            equal(mapped(machine, DIRECT + block * BLOCK, BLOCK),
                  [(DIRECT + block * BLOCK, block * BLOCK, BLOCK, LARGE)], 'direct map')
        equal(machine.figures('machine')['pool_pages'], 0, 'the kernel paid')
        check(machine.del_dimm('d')[1], 'the device stays')
        after = machine.figures('machine')
        equal(mapped(machine, memmap_of(32)[0], 2 * memmap_of(32)[1]), [])
        equal(mapped(machine, DIRECT + 32 * BLOCK, 2 * BLOCK), [])
        for key in ('early_bytes', 'table_pages', 'pool_pages'):
            equal(after[key], before[key], key)


def test_other_sizes():
    """A large page of the window serves one block only; the rest of a memmap is mapped in pages."""
    for size, units in ((56, ([4096], [4096])), (72, ([LARGE, 4096], [4096])),
                        (128, ([LARGE], [LARGE]))):
        with Machine(append=f'{MOM}force page_struct_bytes={size}') as machine:
            before = machine.figures('machine')
            machine.add_dimm('d', 2 * BLOCK)
            for block, wanted in zip((32, 33), units):
                bytes_of_it = BLOCK // 4096 * size
                virtual, done = MEMMAP + block * bytes_of_it, 0
                found = mapped(machine, virtual, bytes_of_it)
                equal([run[3] for run in found], wanted, f'{size} bytes, {block}')
                for run in found:  # one behind the other, from the block's head on
                    equal(run[:2], (virtual + done, block * BLOCK + done), f'{size}, {block}')
                    done += run[2]
                equal(done, bytes_of_it)
            equal(machine.write(STATE % 32, 'online_movable')[1], 14)
            machine.say('hog a anon 20')
            equal(machine.write(STATE % 33, 'online_movable')[1], 14)
            equal(machine.write(STATE % 32, 'offline')[1], 7)
            equal(machine.say('verify'), '')
            machine.say('unhog a')
            machine.say('check')
            check(machine.del_dimm('d')[1])
            after = machine.figures('machine')
            equal((after['table_pages'], after['pool_pages']),
                  (before['table_pages'], before['pool_pages']))


def test_memmap_of_the_kernels():
    """Without memmap_on_memory it is the kernel's memory, and goes back."""
    with Machine(append=MOM + '0') as machine:
        machine.add_dimm('d', BLOCK)
        virtual, size_bytes = memmap_of(32)
        (found,) = mapped(machine, virtual, size_bytes)
        equal((found[0], found[2], found[3]), (virtual, size_bytes, LARGE))
        check(found[1] < 32 * BLOCK, 'it lies in the block', found)
        check(machine.figures('machine')['pool_pages'] >= 512, 'nobody paid')
        check(machine.del_dimm('d')[1], 'the device stays')
        equal(machine.figures('machine')['pool_pages'], 0)
        machine.say('check')


def test_nothing_is_left():
    """A test that is killed leaves no machine behind."""
    text = 'import machine, time; m = machine.Machine(); print(m.qemu.pid, m.folder, flush=True); '
    text += 'time.sleep(60)'
    with subprocess.Popen([sys.executable, '-c', text], cwd=os.path.dirname(__file__) or '.',
                          stdout=subprocess.PIPE, text=True) as child:
        qemu, folder = child.stdout.readline().split()
        child.kill()
    shutil.rmtree(folder)
    state, end = 'R', time.monotonic() + 10
    while state not in ('Z', '') and time.monotonic() < end:
        time.sleep(0.02)
        try:
            with open(f'/proc/{qemu}/stat', encoding='utf-8') as file:
                state = file.read().rsplit(')', 1)[1].split()[0]
        except FileNotFoundError:
            state = ''
    check(state in ('Z', ''), 'QEMU goes on:', qemu, state)


def test_answers_to_the_device():
    """Success, refusal and eject are told by _OST's codes."""
    with Machine(append=MOM + '1') as machine:
        equal(machine.add_dimm('d', BLOCK)[2], True)
        equal(machine.ost(), [(1, 0)])
        check(machine.del_dimm('d')[1])
        check(machine.wait_event(lambda e: e['event'] == 'ACPI_DEVICE_OST' and
                                 e['data']['info']['status'] == 0, 10), 'the eject has no end')
        equal(machine.ost(), [(3, 0x84), (3, 0)])
        machine.add_dimm('odd', BLOCK + 64 * MIB)
        equal(machine.ask('get ' + STATE % 32)[0], 2, 'a device of no whole blocks')
        check(machine.del_dimm('odd')[1], 'it cannot be taken out again')


if __name__ == '__main__':
    run(test_cpus, test_zones_are_the_kernels, test_words, test_options, test_nodes,
        test_large, test_self_hosted_memmap, test_other_sizes, test_memmap_of_the_kernels,
        test_nothing_is_left, test_answers_to_the_device)
