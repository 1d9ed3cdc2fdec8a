"""The disk of the gallery, and its state after a power cut.

Killing the emulator would not lose any write: everything the guest has written, flushed
or not, is in the host's memory and survives. Therefore the emulator also logs all writes
to the disk (driver `blklogwrites`, in the format of Linux's dm-log-writes). After a power
cut the disk is rebuilt from its state at boot and the writes up to the last flush. Later
writes are lost, as on a card or disk whose cache lost power.
"""

import shutil
import struct
import subprocess
from pathlib import Path

SECTOR = 512
MAGIC = 0x6A736677736872
FLUSH, DISCARD = 1, 4
SIZE = 64 << 20


class Disk:
    def __init__(self, folder: Path):
        """Makes a new disk with an empty ext4 file system."""
        self.image = folder / "disk.img"
        self.boot = folder / "disk.boot"
        self.log = folder / "disk.log"
        with open(self.image, "wb") as file:
            file.truncate(SIZE)
        mkfs = shutil.which("mkfs.ext4") or "/usr/sbin/mkfs.ext4"
        # Lazy initialization would keep a kernel thread writing and flushing.
        subprocess.run([mkfs, "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0",
                        str(self.image)], check=True)

    def arguments(self) -> list:
        """Arguments for the emulator. Saves the present state as the state at boot."""
        shutil.copyfile(self.image, self.boot)
        self.log.write_bytes(b"")
        return [
            "-blockdev", f"driver=file,filename={self.image},node-name=image",
            "-blockdev", f"driver=file,filename={self.log},node-name=writes",
            "-blockdev", "driver=blklogwrites,file=image,log=writes,log-super-update-interval=1,"
                         "node-name=disk",
            "-device", "virtio-blk-pci,drive=disk",
        ]

    def cut(self) -> dict:
        """Rebuilds the disk after a power cut. Returns the numbers of writes kept and lost."""
        entries = list(self._entries())
        last = max((at for at, entry in enumerate(entries) if entry[2] & FLUSH), default=-1)
        shutil.copyfile(self.boot, self.image)
        with open(self.image, "r+b") as image, open(self.log, "rb") as log:
            for sector, count, flags, size, at in entries[:last + 1]:
                image.seek(sector * SECTOR)
                if flags & DISCARD:
                    image.write(bytes(count * SECTOR))
                elif size:
                    log.seek(at)
                    image.write(log.read(size))
        writes = [bool(entry[3]) for entry in entries]
        return {"kept": sum(writes[:last + 1]), "lost": sum(writes[last + 1:])}

    def _entries(self):
        """Yields (sector, sectors, flags, bytes, their offset in the log) per entry."""
        with open(self.log, "rb") as log:
            magic, _version, count, sector_size = struct.unpack("<QQQI", log.read(28))
            if magic != MAGIC or sector_size != SECTOR:
                raise ValueError(f"{self.log}: not a log of writes in sectors of {SECTOR} bytes")
            at = SECTOR
            for _ in range(count):
                log.seek(at)
                header = log.read(32)
                if len(header) < 32:
                    break
                # The fourth number is the text length of a mark; there are no marks here.
                sector, sectors, flags, _ = struct.unpack("<QQQQ", header)
                size = 0 if flags & DISCARD else sectors * SECTOR
                yield sector, sectors, flags, size, at + SECTOR
                at += SECTOR + size
