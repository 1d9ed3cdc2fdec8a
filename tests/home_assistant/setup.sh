#!/usr/bin/env bash
# setup.sh [WORK]: a Debian 13 in a folder with Home Assistant, from Debian's packages and
# Python's. Leaves WORK/root. The first time takes 7 to 14 minutes and 1.6 GB; WORK is by
# default ~/.cache/facelatch/home_assistant. Exits with 3 if this machine has no such
# packages, or may not install them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../tools/fetch.sh"
work=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/home_assistant}")
# The last version for the Python of Debian 13.
version=2026.2.3
root=$work/root

[ "$(id -u)" = 0 ] || cannot "only root may make another Debian in a folder"
command -v debootstrap >/dev/null || debian_or_cannot debootstrap
[ ! -e "$root/ready-$version" ] || exit 0

mkdir -p "$work"
rm -rf --one-file-system "$root"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Component: main' | head -1)
[ -n "$mirror" ] || cannot "apt knows no mirror of Debian"
made() {
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase \
        --include=python3,python3-venv,python3-dev,ca-certificates,gcc,libc6-dev \
        trixie "$root" "$mirror" >"$work/debootstrap.log"
}
thrice made
cp /etc/resolv.conf /etc/hosts "$root/etc/"
# Python's packages come from where this machine takes its own.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for conf in /etc/pip.conf ~/.pip/pip.conf ~/.config/pip/pip.conf; do
    [ ! -e "$conf" ] || cp "$conf" "$root/etc/pip.conf"
done
chroot "$root" python3 -m venv /ha
thrice chroot "$root" /ha/bin/pip install -q "homeassistant==$version" paho-mqtt==2.1.0
touch "$root/ready-$version"
