#!/usr/bin/env bash
# test.sh PACKAGE: installs, uses, updates, removes and purges the package on an emulated
# 64-bit board: Debian's kernel in QEMU with systemd. Takes about five minutes, up to an
# hour on a busy machine, and three more minutes the first time to fetch that Debian.
set -euo pipefail
package=$(realpath "${1:?usage: packaging/test.sh PACKAGE}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. packaging/test/play.sh
mkdir -p "$share/frames"
cp "$package" "$share/old.deb"
# Repacks it as the next version, whose example configuration has one more line.
dpkg-deb --raw-extract "$package" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
echo '# The next version.' >>"$work/next/etc/facelatch/facelatch.toml"
(cd "$work/next" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -Zgzip --build "$work/next" "$share/new.deb" >/dev/null
# The camera's frames: an empty corridor, small enough for an emulated processor, and Ada.
python3 - "$share/frames/empty.png" <<'PNG'
import struct, sys, zlib
side, part = 96, lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
rows = b"".join(b"\0" + bytes((x + y) % 64 + 96 for x in range(side) for _ in "rgb") for y in range(side))
head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
open(sys.argv[1], "wb").write(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b""))
PNG
cp assets/astronaut.jpg "$share/frames/ada.jpg"
play packaging/test/guest.sh
