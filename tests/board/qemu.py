"""The emulator process and its control over QMP and qtest.

QMP plugs and unplugs devices. qtest accesses chips without the guest's involvement: it
reads the data register of the GPIO chip, as a voltmeter would, and drives its inputs.
"""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import lines

# Address of the PL061 of machine `virt`, and of its data register: bits 9..2 of the address
# are a mask of lines, so that one read covers all eight.
PL061 = 0x0903_0000
ALL_LINES = PL061 + (0xFF << 2)
# Polling interval, seconds; shorter pulses may be missed.
POLL = 0.02


def connect(path: Path, seconds: float = 20) -> socket.socket:
    """Connects to a unix socket, waiting until the emulator has created it."""
    end = time.monotonic() + seconds
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(str(path))
            return link
        except OSError:
            link.close()
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


class Qmp:
    """Sends commands to the emulator over QMP."""

    def __init__(self, path: Path):
        self.file = connect(path).makefile("rw")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            line = self.file.readline()
            if not line:
                raise ConnectionError(f"{command}: the emulator is gone")
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


class Gpio:
    """The GPIO lines from outside: drives the inputs and records all lines."""

    def __init__(self, path: Path, chip: str, log):
        self.file = connect(path).makefile("rw")
        self.chip = chip
        self.log = log
        self.lock = threading.Lock()
        self.changed = threading.Condition()
        self.levels = None
        # (time, line, level) of every change seen.
        self.record = []
        for line, level in lines.INPUTS.items():
            self.drive(line, level)
        self.running = True
        self.watcher = threading.Thread(target=self._watch, daemon=True)
        self.watcher.start()

    def _ask(self, command: str) -> str:
        with self.lock:
            self.file.write(command + "\n")
            self.file.flush()
            while True:
                answer = self.file.readline()
                if not answer:
                    raise ConnectionError("qtest: the emulator is gone")
                # Skip unsolicited reports of interrupts.
                if not answer.startswith("IRQ"):
                    return answer.strip()

    def drive(self, line: int, level: int):
        """Sets the level of an input, as an external switch would."""
        answer = self._ask(f"set_irq_in {self.chip} unnamed-gpio-in {line} {level}")
        if answer != "OK":
            raise RuntimeError(f"qtest: line {line}: {answer}")

    def _read(self) -> int:
        return int(self._ask(f"readb {ALL_LINES:#x}").split()[1], 16)

    def _watch(self):
        try:
            while self.running:
                levels = self._read()
                if levels != self.levels:
                    self._note(levels)
                time.sleep(POLL)
        except (ConnectionError, OSError, ValueError):
            pass
        with self.changed:
            self.running = False
            self.changed.notify_all()

    def _note(self, levels: int):
        before, now = self.levels, time.monotonic()
        with self.changed:
            for line, name in lines.NAMES.items():
                level = levels >> line & 1
                if before is None or before >> line & 1 != level:
                    self.record.append((now, line, level))
                    # The lights blink, so their changes are only recorded.
                    if before is not None and line not in (lines.GREEN, lines.RED, lines.BUZZER):
                        self.log("line", f"{name} {level}")
            self.levels = levels
            self.changed.notify_all()

    def level(self, line: int) -> int:
        return self.levels >> line & 1 if self.levels is not None else 0

    def changes(self, line: int, since: float = 0.0) -> list:
        """(time, level) of each change of a line since a time."""
        with self.changed:
            return [(at, level) for at, which, level in self.record
                    if which == line and at >= since]

    def wait(self, line: int, level: int, seconds: float) -> float:
        """Waits until a line has a level; returns the time at which it was seen."""
        end = time.monotonic() + seconds
        with self.changed:
            while self.levels is None or self.levels >> line & 1 != level:
                left = end - time.monotonic()
                if left <= 0 or not self.running:
                    raise TimeoutError(
                        f"line {lines.NAMES.get(line, line)} was not {level} within {seconds:.0f} s")
                self.changed.wait(left)
        return time.monotonic()

    def press(self, line: int, seconds: float, sleep=time.sleep):
        """Inverts an input for some seconds by our clock, or by the guest's clock if its
        `sleep` is given, so that a slow guest sees the press, too."""
        rest = lines.INPUTS[line]
        self.drive(line, 1 - rest)
        sleep(seconds)
        self.drive(line, rest)


class Machine:
    """One boot of the board."""

    RELAY_PLUG = {"driver": "usb-serial", "chardev": "relay", "id": "relay0"}

    def __init__(self, work: Path, folder: Path, disk, log, cpu: str):
        """Boots the board. `folder` holds the sockets, `folder/share` is /mnt in the guest;
        `disk` is a `disk.Disk`."""
        self.folder = folder
        self.log = log
        share = folder / "share"
        share.mkdir(exist_ok=True)

        def sock(name: str) -> str:
            path = folder / f"{name}.sock"
            path.unlink(missing_ok=True)
            return f"{path},server=on,wait=off"

        command = [
            # Low priority: other processes here go first, above all the other end of the
            # serial port.
            "nice", "-n", "10",
            "qemu-system-aarch64", "-M", "virt", "-cpu", cpu, "-smp", "2", "-m", "512",
            # One instruction takes one nanosecond of guest time, however long it takes
            # here. On a busy machine the guest's clock runs slower, and its program does
            # not notice.
            "-accel", "tcg,thread=single", "-icount", "shift=0",
            "-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none",
            "-kernel", str(work / "vmlinuz"), "-initrd", str(work / "initrd"),
            # A kernel panic ends the emulator, and so the test.
            "-append", "console=ttyAMA0 loglevel=4 panic=-1",
            "-serial", "stdio",
            "-qmp", f"unix:{sock('qmp')}",
            "-qtest", f"unix:{sock('qtest')}", "-qtest-log", "/dev/null",
            "-fsdev", f"local,id=share,path={share},security_model=none",
            "-device", "virtio-9p-pci,fsdev=share,mount_tag=share",
            *disk.arguments(),
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={sock('agent')}",
            "-device", "virtserialport,chardev=agent,name=agent",
            "-chardev", f"socket,id=log,path={sock('log')}",
            "-device", "virtserialport,chardev=log,name=log",
            "-device", "qemu-xhci",
            "-chardev", f"socket,id=relay,path={sock('relay')}",
            "-device", ",".join(f"{key}={value}" for key, value in self.RELAY_PLUG.items()),
        ]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # A session of its own, so that Ctrl-C reaches the test first.
            start_new_session=True)
        self.console = threading.Thread(target=self._console, daemon=True)
        self.console.start()
        try:
            self.qmp = Qmp(folder / "qmp.sock")
            chips = self.qmp.ask("qom-list", path="/machine/unattached")
            chip = next(entry["name"] for entry in chips if entry["type"] == "child<pl061>")
            self.gpio = Gpio(folder / "qtest.sock", f"/machine/unattached/{chip}", log)
        except BaseException:
            self.kill()
            raise

    def _console(self):
        for line in self.process.stdout:
            text = line.decode(errors="replace").rstrip()
            if text:
                self.log("console", text)

    def unplug_relay(self):
        """Unplugs the USB relay."""
        self.qmp.ask("device_del", id=self.RELAY_PLUG["id"])
        self.log("host", "relay unplugged")

    def plug_relay(self):
        """Plugs the USB relay in again."""
        self.qmp.ask("device_add", **self.RELAY_PLUG)
        self.log("host", "relay plugged in")

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self):
        """Cuts the power: kills the emulator at once."""
        gpio = getattr(self, "gpio", None)
        if gpio:
            gpio.running = False
        if self.alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.console.join(timeout=5)
