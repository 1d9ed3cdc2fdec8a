#!/usr/bin/env bash
# build.sh [--binary FILE]: builds the Debian package for 64-bit boards from FILE, or from
# a binary built by dist.sh. Checks the package and prints where it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. packaging/pack.sh

given "$@"
if [ -z "$binary" ]; then
    ./dist.sh
    binary=$(realpath "${CARGO_TARGET_DIR:-target}/$target/dist/facelatch")
fi

# FACELATCH_EXAMPLE names a file to use as the configuration.
pack facelatch device package facelatch.toml "${FACELATCH_EXAMPLE:-}"
has usr/bin/facelatch -rwxr-xr-x
has usr/lib/facelatch/configured -rwxr-xr-x
has usr/bin/facelatch-update -rwxr-xr-x
has usr/lib/facelatch/boot-slot -rwxr-xr-x
has 'usr/lib/systemd/system/facelatch\.service' -rw-r--r--
has 'usr/lib/sysusers\.d/facelatch\.conf' -rw-r--r--
has 'usr/lib/tmpfiles\.d/facelatch\.conf' -rw-r--r--
has 'usr/lib/udev/rules\.d/70-facelatch\.rules' -rw-r--r--
documents models.md install.md audit.md image.md wiring.svg
checked
