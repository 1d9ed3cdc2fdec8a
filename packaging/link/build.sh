#!/usr/bin/env bash
# build.sh [--binary FILE]: builds the Debian package of facelatch-link for 64-bit boards
# from FILE, or from a binary that it builds. Checks the package and prints where it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. packaging/pack.sh

given "$@"
if [ -z "$binary" ]; then
    command -v aarch64-linux-gnu-gcc >/dev/null || debian gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    thrice rustup target add "$target"
    cargo build --profile dist --target "$target" --package facelatch-link
    binary=$(realpath "${CARGO_TARGET_DIR:-target}/$target/dist/facelatch-link")
fi

pack facelatch-link "" package-link link.toml
has usr/bin/facelatch-link -rwxr-xr-x
has 'usr/lib/sysusers\.d/facelatch-link\.conf' -rw-r--r--
documents connect.md
# Neither package needs the other.
if dpkg-deb --field "$package" Depends | grep -q facelatch; then
    wrong "depends on the door"
fi
for unit in facelatch-link.service facelatch-office.service; do
    has "usr/lib/systemd/system/${unit//./\\.}" -rw-r--r--
    # The sandbox, as far as systemd can tell without the package's board.
    if command -v systemd-analyze >/dev/null; then
        score=$(systemd-analyze security --offline=true --no-pager "packaging/link/debian/$unit" \
            2>/dev/null | sed -n 's/.*: \([0-9.]*\) .*/\1/p' | tail -1)
        echo "$unit: exposure $score of 10, by systemd-analyze security"
        awk "BEGIN { exit !(\"$score\" != \"\" && $score <= 2) }" || wrong "a loose sandbox: $unit"
    fi
done
checked
