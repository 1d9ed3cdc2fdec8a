#!/usr/bin/env python3
"""Puts a card together: partition table, the boot loader's state, boot, two slots, data."""

import argparse
import struct
from pathlib import Path

MIB = 1 << 20
SECTOR = 512
# Block (4 KiB) -> text of 16 bytes that fills its first sector. boot.cmd says what they mean.
STATE = {8: b"facelatch good A", 9: b"facelatch good A", 12: b"facelatch good A",
         13: b"facelatch good B", 14: b"facelatch try  A", 15: b"facelatch try  B"}
FAT32, LINUX = 0x0C, 0x83


def copy(out, path: Path, at: int):
    """Copies a file to a place, leaving out what is zero."""
    with open(path, "rb") as file:
        while block := file.read(MIB):
            if block.strip(b"\0"):
                out.seek(at)
                out.write(block)
            at += len(block)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signature", required=True)
    parser.add_argument("--slot-mib", type=int, required=True)
    for name in ("boot", "slot", "data", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    boot, data = (path.stat().st_size for path in (args.boot, args.data))
    slot = args.slot_mib * MIB
    # Starts at 4 MiB: cards erase in blocks of that size at most, and the state lies before.
    start, parts = 4 * MIB, []
    for kind, size in ((FAT32, boot), (LINUX, slot), (LINUX, slot), (LINUX, data)):
        parts.append((kind, start, size))
        start += size
    table = bytearray(SECTOR)
    table[440:444] = struct.pack("<I", int(args.signature, 16))
    for number, (kind, at, size) in enumerate(parts):
        # Cylinders and heads are not used.
        table[446 + 16 * number:462 + 16 * number] = struct.pack(
            "<B3sB3sII", 0x80 if number == 0 else 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff",
            at // SECTOR, size // SECTOR)
    table[510:512] = b"\x55\xaa"
    with open(args.out, "wb") as out:
        out.truncate(start)
        out.write(table)
        for block, text in STATE.items():
            out.seek(block * 4096)
            out.write(text * (SECTOR // len(text)))
        # Both slots hold the same system, so that a damaged one does not end the door.
        for path, (_, at, _) in zip((args.boot, args.slot, args.slot, args.data), parts):
            copy(out, path, at)


if __name__ == "__main__":
    main()
