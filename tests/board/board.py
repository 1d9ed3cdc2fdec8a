"""The emulated board with everything connected to it, on which the scenes play."""

import os
import shutil
import sys
import threading
import time
from pathlib import Path

import disk
import guest
import pictures
import qemu
import relay

HERE = Path(__file__).resolve().parent


class Log:
    """Writes everything that happens, with its time, to a file; if verbose also to the terminal."""

    def __init__(self, path: Path, verbose: bool):
        self.begun = time.monotonic()
        self.file = open(path, "w", buffering=1)
        self.verbose = verbose
        self.lock = threading.Lock()

    def __call__(self, who: str, text: str):
        line = f"{time.monotonic() - self.begun:7.2f} {who:>8}  {text}"
        with self.lock:
            self.file.write(line + "\n")
            if self.verbose:
                print(line, flush=True)

    def say(self, text: str):
        """Writes to the file and always to the terminal."""
        self("test", text)
        if not self.verbose:
            print(text, flush=True)


class Board:
    """The board through several boots and power cuts, with one disk."""

    def __init__(self, work: Path, folder: Path, log: Log, cpu: str):
        self.work, self.folder, self.log, self.cpu = work, folder, log, cpu
        self.share = folder / "share"
        self.share.mkdir()
        self.disk = disk.Disk(folder)
        self.camera = pictures.Camera(self.share, log)
        self.machine = None
        # State that scenes leave for the scenes after them.
        self.service = self.newcomer = None
        self.serial = False

    def boot(self):
        """Switches the power on; returns once the guest answers and the camera is fed."""
        self.machine = qemu.Machine(self.work, self.folder, self.disk, self.log, self.cpu)
        try:
            self.gpio = self.machine.gpio
            self.relay = relay.SerialRelay(self.folder / "relay.sock", self.log)
            self.said = guest.ServiceLog(self.folder / "log.sock", self.log)
            self.guest = guest.Guest(self.folder / "agent.sock")
        except BaseException:
            self.off()
            raise
        self.guest.must("feeder /dev/video0 /mnt/clip >/dev/console 2>&1 &")
        # One device for the program's log, found by the name of its port.
        self.guest.must(
            "for p in /sys/class/virtio-ports/*; do"
            " [ $(cat $p/name) = log ] && ln -sf /dev/${p##*/} /run/log; done; test -e /run/log")

    def cut_power(self):
        """Cuts the power: everything stops at once, and writes not yet flushed are lost."""
        self.machine.kill()
        left = self.disk.cut()
        self.log("host", f"power cut: {left['kept']} writes on the disk, {left['lost']} lost")
        return left

    def off(self):
        if self.machine:
            self.machine.kill()


def temporary(name: str) -> Path:
    """Makes a temporary folder whose path is short enough for unix sockets."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"{name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    if len(str(folder)) > 80:
        sys.exit(f"{folder}: too long a path for a socket; set TMPDIR to a shorter one")
    return folder
