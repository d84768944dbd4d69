# SPDX-License-Identifier: MIT
"""
A machine in QEMU that runs the bare image: its management by QMP, its console by lines.

Every wait has an end. close() ends the very process that was started; the kernel does if this one
dies without.
"""
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get('BUILD') or os.path.join(ROOT, 'build'))
QEMU = 'qemu-system-x86_64'
START_SECONDS = 60
MIB = 1 << 20
BLOCK = 128 * MIB


PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def die_with_parent():
    """In the child, before it becomes QEMU."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Broken(Exception):
    """The kernel stopped, or does not answer."""


def parse_size(text):
    units = {'K': 10, 'M': 20, 'G': 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)


def missing():
    """Why nothing can be run here, or an empty text."""
    if not shutil.which(QEMU):
        return f'{QEMU} is not installed: package qemu-system-x86'
    image = os.environ.get('MEMPLUG_BARE_IMAGE') or os.path.join(BUILD, 'memplug-bare')
    return '' if os.path.exists(image) else f'{image} is not there: built on x86-64 only'


class Machine:
    def __init__(self, mem='1G', maxmem='32G', slots=16, nodes=1, smp=1, append='', ports=0,
                 devices=()):
        self.events, self.objects = [], set()
        self.folder = tempfile.mkdtemp(prefix='memplug-bare-')
        self.qemu = None
        self.input, self.qmp_input = b'', b''
        names = [os.path.join(self.folder, name) for name in ('console', 'qmp')]
        listeners = [socket.socket(socket.AF_UNIX) for _ in names]
        for listener, name in zip(listeners, names):
            listener.bind(name)
            listener.listen(1)
            listener.settimeout(START_SECONDS)
        image = os.environ.get('MEMPLUG_BARE_IMAGE') or os.path.join(BUILD, 'memplug-bare')
        command = [QEMU, '-machine', 'q35,accel=tcg', '-nodefaults', '-display', 'none',
                   '-no-reboot', '-m', f'{mem},slots={slots},maxmem={maxmem}', '-smp', str(smp),
                   '-kernel', image, '-append', append,
                   '-device', 'isa-debug-exit,iobase=0xf4,iosize=0x04',
                   '-chardev', f'socket,id=console,path={names[0]}', '-serial', 'chardev:console',
                   '-chardev', f'socket,id=qmp,path={names[1]}', '-mon', 'qmp,mode=control']
        if nodes > 1:
            command += ['-object', f'memory-backend-ram,id=boot,size={mem}',
                        '-numa', 'node,nodeid=0,cpus=0-%d,memdev=boot' % (smp - 1)]
            for node in range(1, nodes):
                command += ['-numa', f'node,nodeid={node}']
        for port in range(ports):
            command += ['-device', f'pcie-root-port,id=port{port},slot={port},chassis={port + 1}']
        for device in devices:
            command += device
        self.log = open(os.path.join(self.folder, 'log'), 'w+', encoding='utf-8')
        try:
            self.qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log,
                                         stderr=subprocess.STDOUT,
                                         preexec_fn=die_with_parent)
            self.console, self.monitor = (self.accept(listener) for listener in listeners)
            self.read_qmp(time.monotonic() + START_SECONDS)
            self.qmp('qmp_capabilities')
            self.greeting = self.start()
        except BaseException:
            self.close()
            raise
        finally:
            for listener in listeners:
                listener.close()

    def accept(self, listener):
        listener.settimeout(1)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.qemu.poll() is None:
            try:
                return listener.accept()[0]
            except socket.timeout:
                pass
        self.log.seek(0)
        raise Broken(f'QEMU does not start: {self.log.read()}')

    def start(self):
        """What the firmware prints first is not ours."""
        end = time.monotonic() + START_SECONDS
        while True:
            line = self.read_line(end)
            if line.startswith('memplug on '):
                return line

    def close(self):
        if self.qemu and self.qemu.poll() is None:
            self.qemu.kill()
        if self.qemu:
            self.qemu.wait()
        for name in ('console', 'monitor', 'log'):
            if hasattr(self, name):
                getattr(self, name).close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- the console ----------------------------------------------------------------------------

    def fill(self, end):
        """More of the console's output."""
        self.console.settimeout(max(0.01, end - time.monotonic()))
        try:
            more = self.console.recv(65536)
        except (socket.timeout, ConnectionResetError):
            more = b''
        if not more:
            raise Broken('no answer: ' + self.input.decode(errors='replace')[-500:])
        self.input += more

    def read_line(self, end):
        while b'\n' not in self.input:
            self.fill(end)
        line, self.input = self.input.split(b'\n', 1)
        text = line.decode(errors='replace').rstrip('\r')
        if text.startswith('panic:'):
            raise Broken(text)
        return text

    def read_answer(self, end):
        line = self.read_line(end)
        while not line.startswith(('= ', '! ')):
            line = self.read_line(end)
        if line[0] == '!':
            number, _, text = line[2:].partition(' ')
            return int(number), text
        length = int(line[2:]) + 1
        while len(self.input) < length:
            self.fill(end)
        answer, self.input = self.input[:length - 1], self.input[length:]
        return 0, answer.decode(errors='replace')

    def asks(self, lines, seconds=60):
        """The answers to some lines: a positive errno or 0, and a text."""
        end = time.monotonic() + seconds
        answers = []
        for start in range(0, len(lines), 32):  # what the line's buffers hold
            part = lines[start:start + 32]
            self.console.settimeout(max(0.01, end - time.monotonic()))
            try:
                self.console.sendall(''.join(line + '\n' for line in part).encode())
            except (BrokenPipeError, ConnectionResetError):
                pass  # what it said last is still to be read, and says why
            answers += [self.read_answer(end) for _ in part]
        return answers

    def ask(self, line, seconds=60):
        return self.asks([line], seconds)[0]

    def say(self, line, seconds=60):
        """The text of an answer that is no error."""
        error, text = self.ask(line, seconds)
        if error:
            raise Broken(f'{line}: error {error}: {text}')
        return text

    def get(self, path):
        """A file's text without its newline."""
        return self.say('get ' + path).rstrip('\n')

    def write(self, path, value, seconds=None):
        """(step, result, text): a result below 0 is an errno; with seconds (.., signal came)."""
        code = ''.join(c if c.isalnum() or c in '_-' else f'%{ord(c):02x}' for c in value) or '""'
        word = f'timed {seconds} ' if seconds is not None else 'set '
        text = self.say(word + f'{path} {code}', 4000)
        lines = text.split('\n')
        step, result, *rest = lines[0].split(' ', 2)
        answer = (step, int(result), rest[0] if rest else '')
        return answer if seconds is None else answer + (lines[-1] == 'signal 1',)

    def figures(self, word):
        """Lines of a name and a number."""
        return {line.split()[0]: int(line.split()[1]) for line in self.say(word).splitlines()
                if len(line.split()) == 2}

    def figures_of(self, word, name):
        """The numbers behind a name, in the line that begins with it."""
        return next([int(n) for n in line.split()[1:]] for line in self.say(word).splitlines()
                    if line.split()[0] == name)

    # --- QMP ------------------------------------------------------------------------------------

    def read_qmp(self, end):
        while b'\n' not in self.qmp_input:
            self.monitor.settimeout(max(0.01, end - time.monotonic()))
            more = self.monitor.recv(65536)
            if not more:
                raise Broken('QMP has ended')
            self.qmp_input += more
        line, self.qmp_input = self.qmp_input.split(b'\n', 1)
        return json.loads(line)

    def qmp(self, command, **arguments):
        """What it returned, or {'error': ...}."""
        text = json.dumps({'execute': command, 'arguments': arguments}) + '\n'
        self.monitor.sendall(text.encode())
        end = time.monotonic() + 30
        while True:
            message = self.read_qmp(end)
            if 'event' in message:
                self.events.append(message)
            elif 'error' in message:
                return {'error': message['error']['desc']}
            elif 'return' in message:
                return message['return']

    def wait_event(self, wanted, seconds):
        """The first event that is wanted, from those that have not been looked at; or None."""
        end = time.monotonic() + seconds
        at = 0
        while True:
            while at < len(self.events):
                if wanted(self.events[at]):
                    return self.events[at]
                at += 1
            try:
                message = self.read_qmp(end)
            except socket.timeout:
                return None
            if 'event' in message:
                self.events.append(message)

    # --- devices --------------------------------------------------------------------------------

    def add_dimm(self, name, size_bytes, address=None, node=0, seconds=30):
        """What QMP said to both commands, and whether the kernel has answered."""
        made = self.qmp('object-add', **{'qom-type': 'memory-backend-ram', 'id': 'mem-' + name,
                                         'size': size_bytes})
        if 'error' in made:
            return made, made, False
        self.events.clear()
        place = {} if address is None else {'addr': address}
        added = self.qmp('device_add', driver='pc-dimm', id=name, memdev='mem-' + name,
                         node=node, **place)
        if 'error' in added:
            self.forget('mem-' + name)
            return made, added, False
        event = self.wait_event(lambda e: e['event'] == 'ACPI_DEVICE_OST' and
                                e['data']['info']['source'] == 1 and
                                e['data']['info'].get('device') == name, seconds)
        return made, added, event is not None

    def del_dimm(self, name, seconds=60):
        """What QMP said, and whether the device has gone."""
        def wanted(event):
            info = event['data'].get('info', {})
            return (event['event'] == 'DEVICE_DELETED' and event['data'].get('device') == name or
                    event['event'] == 'ACPI_DEVICE_OST' and info.get('device') == name and
                    info['source'] == 3 and info['status'] not in (0, 0x84))
        self.events.clear()
        asked = self.qmp('device_del', id=name)
        if 'error' in asked:
            return asked, False
        event = self.wait_event(wanted, seconds)
        gone = event is not None and event['event'] == 'DEVICE_DELETED'
        if gone:
            self.forget('mem-' + name)
        return asked, gone

    @staticmethod
    def virtio_mem(name, size, requested=0, node=0, block=2 * MIB):
        """Arguments of a device that is there from the start."""
        return ['-object', f'memory-backend-ram,id=mem-{name},size={size}', '-device',
                f'virtio-mem-pci,id={name},memdev=mem-{name},node={node},block-size={block},'
                f'requested-size={requested}']

    def add_virtio_mem(self, name, size_bytes, requested, port, node=0, block=2 * MIB):
        """A device that comes later, behind a port of its own. What QMP said."""
        made = self.qmp('object-add', **{'qom-type': 'memory-backend-ram', 'id': 'mem-' + name,
                                         'size': size_bytes})
        if 'error' in made:
            return made
        return self.qmp('device_add', driver='virtio-mem-pci', id=name, memdev='mem-' + name,
                        bus=f'port{port}', node=node, **{'block-size': block,
                                                         'requested-size': requested})

    def request(self, name, size_bytes, seconds=60):
        """Ask for so much; how much is plugged in when the kernel has done what it could."""
        wanted = self.qmp('qom-set', path='/machine/peripheral/' + name,
                          property='requested-size', value=size_bytes)
        if 'error' in wanted:
            raise Broken(wanted['error'])
        return self.settle(size_bytes, seconds)

    def settle(self, size_bytes, seconds=60):
        """Until some device has served this request."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for device in self.devices():
                if device['requested'] == size_bytes:
                    return device
            time.sleep(0.02)
        raise Broken(f'no device has served a request of {size_bytes}')

    def devices(self):
        """The kernel's virtio-mem devices: names and numbers."""
        found = []
        for line in self.say('devices').splitlines()[:-1]:
            words = line.split()[1:]
            found.append({key: int(value) for key, value in zip(words[::2], words[1::2])})
        return found

    def plugged(self, name):
        """What the device itself says."""
        return self.qmp('qom-get', path='/machine/peripheral/' + name, property='size')

    def forget(self, name):
        """QEMU lets go of a backend a moment after its device."""
        end = time.monotonic() + 10
        while 'error' in self.qmp('object-del', id=name) and time.monotonic() < end:
            time.sleep(0.01)

    def ost(self):
        """The answers of the kernel to the last command: (source, status)."""
        return [(e['data']['info']['source'], e['data']['info']['status']) for e in self.events
                if e['event'] == 'ACPI_DEVICE_OST']
