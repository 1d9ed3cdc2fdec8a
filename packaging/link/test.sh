#!/usr/bin/env bash
# test.sh PACKAGE: installs, runs, kills, removes and purges the link's package on an emulated
# 64-bit board without the door's package. Takes about four minutes, more on a busy machine,
# and three more the first time to fetch that Debian.
set -euo pipefail
package=$(realpath "${1:?usage: packaging/link/test.sh PACKAGE}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/fetch.sh
cache=${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/debian-arm64

if ! command -v qemu-system-aarch64 >/dev/null || ! command -v python3 >/dev/null; then
    debian --no-install-recommends qemu-system-arm python3
fi
packaging/test/root.sh "$cache"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
share=$work/share
mkdir -p "$share"
cp packaging/link/test/guest.sh "$share/"
cp "$package" "$share/link.deb"
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
