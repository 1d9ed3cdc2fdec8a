"""The board with all that is around it: what the scenes are played on."""

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
    """Everything that happens, with its time, in one file; and on the terminal if asked."""

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
        """To the terminal in any case."""
        self("test", text)
        if not self.verbose:
            print(text, flush=True)


class Board:
    """Boots and power cuts over one disk."""

    def __init__(self, work: Path, folder: Path, log: Log, cpu: str):
        self.work, self.folder, self.log, self.cpu = work, folder, log, cpu
        self.share = folder / "share"
        self.share.mkdir()
        self.disk = disk.Disk(folder)
        self.camera = pictures.Camera(self.share, log)
        self.machine = None
        # What scenes leave for those after them.
        self.service = self.newcomer = None
        self.serial = False

    def boot(self):
        """Power on, until the guest answers and the camera is fed."""
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
        # One place for what the program says; found by its name.
        self.guest.must(
            "for p in /sys/class/virtio-ports/*; do"
            " [ $(cat $p/name) = log ] && ln -sf /dev/${p##*/} /run/log; done; test -e /run/log")

    def cut_power(self):
        """Everything stops where it is; what the disk had not flushed is lost."""
        self.machine.kill()
        left = self.disk.cut()
        self.log("host", f"power cut: {left['kept']} writes on the disk, {left['lost']} lost")
        return left

    def off(self):
        if self.machine:
            self.machine.kill()


def temporary(name: str) -> Path:
    """A folder whose sockets have short enough paths."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"{name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    if len(str(folder)) > 80:
        sys.exit(f"{folder}: too long a path for a socket; set TMPDIR to a shorter one")
    return folder
