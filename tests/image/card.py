"""The card of the emulated board, and what a power cut leaves of it.

The emulator logs every write (driver `blklogwrites`), as tests/board/disk.py explains. After a
power cut the card has its state at the start, every write up to the last flush, and of the
later ones each with even chance, whole: cards write in whatever order they like.
"""

import random
import subprocess
from pathlib import Path

from disk import DISCARD, FLUSH, SECTOR, Disk


class Card(Disk):
    """A copy of an image on a card of `size` bytes, without another copy per start."""

    def __init__(self, folder: Path, image: Path, size: int):
        self.image, self.now, self.log = folder / "card.img", folder / "card.now", folder / "card.log"
        subprocess.run(["cp", "--sparse=always", str(image), str(self.image)], check=True)
        with open(self.image, "r+b") as file:
            file.truncate(size)

    def arguments(self) -> list:
        self.now.unlink(missing_ok=True)
        self.log.write_bytes(b"")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
                        str(self.image), str(self.now)], check=True)
        return [
            "-blockdev", f"driver=qcow2,node-name=now,file.driver=file,file.filename={self.now}",
            "-blockdev", f"driver=file,filename={self.log},node-name=writes",
            "-blockdev", "driver=blklogwrites,file=now,log=writes,log-super-update-interval=1,"
                         "node-name=card",
            "-device", "virtio-blk-pci,drive=card",
        ]

    def keep(self, chance: random.Random | None) -> dict:
        """Brings the image to the state after a power cut, or with None after all writes.
        Returns the numbers of writes kept and lost."""
        # Before the first write the log has no header.
        entries = list(self._entries()) if self.log.stat().st_size >= SECTOR else []
        last = max((at for at, entry in enumerate(entries) if entry[2] & FLUSH), default=-1)
        kept = lost = 0
        with open(self.image, "r+b") as image, open(self.log, "rb") as log:
            for number, (sector, count, flags, size, at) in enumerate(entries):
                if chance and number > last and chance.random() < 0.5:
                    lost += bool(size)
                    continue
                image.seek(sector * SECTOR)
                if flags & DISCARD:
                    image.write(bytes(count * SECTOR))
                elif size:
                    log.seek(at)
                    image.write(log.read(size))
                    kept += 1
        return {"kept": kept, "lost": lost}
