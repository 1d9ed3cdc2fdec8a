#!/usr/bin/env python3
"""Tests packaging/image/boot.cmd itself: U-Boot in QEMU reads cards with whole, torn and missing
decisions, and must take the slot that slots.py's model takes, and forget a trial first. The
slots hold no kernel, so U-Boot goes on to the next one and ends; a start takes seconds.

    loader.py U-BOOT      U-BOOT is the u-boot.bin that image.sh writes for virt
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

from slots import GOOD1, GOOD2, SECTOR, TRY, Card, text  # noqa: E402

IMAGE = Path(__file__).resolve().parents[2] / "packaging/image"
MIB = 1 << 20


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, **more)


def make(folder: Path) -> Path:
    """A card with the real boot partition and slots without kernels."""
    script = "\n".join(line for line in (IMAGE / "boot.cmd").read_text().splitlines()
                       if not line.strip().startswith("#"))
    (folder / "boot.cmd").write_text(script.replace("@SIGNATURE@", "0d0e7a5c"))
    run("mkimage", "-A", "arm64", "-T", "script", "-C", "none", "-d", folder / "boot.cmd",
        folder / "boot.scr")
    sizes = {"boot": 40, "slot": 8, "data": 4}
    for name, mib in sizes.items():
        with open(folder / name, "wb") as file:
            file.truncate(mib * MIB)
    run("/sbin/mkfs.vfat", "-F", "32", "-s", "1", folder / "boot")
    run("mcopy", "-i", folder / "boot", folder / "boot.scr", "::boot.scr")
    (folder / "files").mkdir()
    for name in ("vmlinuz", "initrd.img"):
        (folder / "files" / name).write_bytes(b"none" * 1024)
    run("/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", folder / "files",
        folder / "slot")
    run(sys.executable, IMAGE / "assemble.py", "--signature", "0d0e7a5c", "--slot-mib", "8",
        *(word for name in sizes for word in (f"--{name}", folder / name)),
        "--out", folder / "disk")
    return folder / "disk"


def order(loader: Path, disk: Path) -> list:
    """The slots that U-Boot takes, one after the other."""
    done = subprocess.run(
        ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a53", "-m", "512", "-nodefaults",
         "-display", "none", "-serial", "stdio", "-no-reboot", "-bios", str(loader),
         "-drive", f"if=pflash,unit=1,format=raw,readonly=on,file={loader.with_suffix('.env')}",
         "-drive", f"if=none,id=card,format=raw,file={disk}", "-device", "virtio-blk-pci,drive=card"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
    said = done.stdout.decode("utf-8", "replace")
    taken = re.findall(r"^slot ([AB])\r?$", said, re.MULTILINE)
    assert taken, said[-3000:]
    return taken


def states():
    """(what it is, first sector, second sector, sector to try)"""
    a, b, none = text("good A"), text("good B"), bytes(SECTOR)
    try_a, try_b = text("try  A"), text("try  B")
    torn = try_b[:511] + b"\0"
    yield "a new card", a, a, none
    yield "B is good", b, b, none
    yield "B is tried", a, a, try_b
    yield "A is tried", b, b, try_a
    yield "a torn order to try", a, a, torn
    yield "the first byte of an order is wrong", a, a, b"x" + try_b[1:]
    yield "the second copy is older", b, a, none
    yield "the first copy is torn", b[:256] + a[256:], b, none
    yield "the first copy is torn, a trial is due", none, b, try_a
    yield "nothing is known", none, none, none
    yield "noise", b"\xff" * SECTOR, b"\xff" * SECTOR, b"\xff" * SECTOR


def main() -> int:
    loader = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        disk = make(folder)
        count = 0
        for what, first, second, trial in states():
            card = Card.__new__(Card)
            card.file, card.cmdline = disk, folder / "cmdline"
            for block, sector in ((GOOD1, first), (GOOD2, second), (TRY, trial)):
                card.put(block, sector)
            taken = order(loader, disk)
            # U-Boot has forgotten the trial, as the model does.
            after = card.get(TRY)
            card.put(TRY, trial)
            expected = card.start()
            kept = card.start()
            assert taken[0] == expected, (what, taken, expected)
            assert kept in taken and {"A", "B"} == set(taken), (what, taken)
            if expected != kept:
                assert taken[1] == kept, (what, "the good slot is next", taken)
                assert after == bytes(SECTOR), (what, "the trial is not forgotten")
            count += 1
            print(f"ok      {what}: {' '.join(taken)}", flush=True)
    print(f"{count} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
