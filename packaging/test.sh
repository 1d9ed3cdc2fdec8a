#!/usr/bin/env bash
# test.sh PACKAGE: installs, uses, updates, removes and purges the package on an emulated
# 64-bit board: Debian's kernel in QEMU with systemd. Takes about five minutes, up to an
# hour on a busy machine, and three more minutes the first time to fetch that Debian.
set -euo pipefail
package=$(realpath "${1:?usage: packaging/test.sh PACKAGE}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/fetch.sh
cache=${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/debian-arm64

if ! command -v qemu-system-aarch64 >/dev/null || ! command -v python3 >/dev/null; then
    debian --no-install-recommends qemu-system-arm python3
fi
packaging/test/root.sh "$cache"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
share=$work/share
mkdir -p "$share/frames"
cp packaging/test/guest.sh "$share/"
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

cp --sparse=always "$cache/root.ext4" "$work/disk"
python3 packaging/test/boot.py "$cache" "$work/disk" "$share" "${FACELATCH_PACKAGE_SECONDS:-3600}" || {
    tail -50 "$share/console"
    exit 1
}
passed=$(grep -c '^ok ' "$share/output" || true)
failed=$(grep -c '^not ok ' "$share/output" || true)
if ! grep -qx end "$share/output"; then
    tail -50 "$share/console"
    echo "the board went off before it was done"
    failed=$((failed + 1))
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
