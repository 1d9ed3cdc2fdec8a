#!/usr/bin/env bash
# make.sh WORK [OPTION OF image.sh]...: the images that play.py boots, of which one brings a
# set of models and every other option, and updates that are good, signed by somebody else, changed, that do not start, and that start without a door.
# Exits with 3 where this machine cannot make images.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sources=$(cd "$here/../.." && pwd)
. "$sources/tools/fetch.sh"
. "$sources/packaging/image/common.sh"
work=$(realpath -m "${1:?usage: make.sh WORK [OPTION OF image.sh]...}")
shift
mkdir -p "$work"
[ "$(id -u)" = 0 ] || cannot "only root may make the updates that are bad on purpose"
needs rauc rauc
needs debugfs e2fsprogs
needs unsquashfs squashfs-tools
needs qemu-system-aarch64 qemu-system-arm
needs qemu-img qemu-utils
needs djpeg libjpeg-turbo-progs
install_needed

cd "$work"
[ -e admin ] || ssh-keygen -q -t ed25519 -N '' -f admin
for who in update foreign; do
    [ -e $who.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=$who" \
        -keyout $who.key -out $who.pem 2>/dev/null
done
"$sources/packaging/image.sh" --board virt --config "$here/door.toml" --ssh-key admin.pub \
    --hostname emulated --update-cert update.pem --update-key update.key --bundle good.raucb \
    --out door.img "$@"

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
step "a card with everything that a door can be given"
package=$(ls "$sources"/target/package/facelatch_*_arm64.deb 2>/dev/null) || true
for option in "$@"; do
    if [ "${before:-}" = --package ]; then package=$option; fi
    before=$option
done
dpkg-deb --extract "$package" "$temporary/package"
program=("$temporary/package/usr/bin/facelatch")
[ "$(dpkg --print-architecture)" = arm64 ] || program=(qemu-aarch64-static -cpu cortex-a76 "${program[@]}")
trusted=$("$sources/tests/sets/signed.py" set set.key "${program[@]}")
"$sources/tests/sets/signed.py" foreign-set foreign-set.key "${program[@]}" >/dev/null
tar -C foreign-set -cf foreign-set.tar .
{
    cat "$here/door.toml"
    printf '\n[models]\ntrusted_keys = ["%s office"]\n' "$trusted"
} >models.toml
printf 'network={\n    ssid="door"\n    psk="not the right one"\n}\n' >wifi.conf
printf '1-1 1a86 7523  # relay\n' >usb
printf 'server time.example nts iburst\n' >time
options=(--models set --wifi wifi.conf --usb usb --time time)
# The link, if packaging/link/build.sh has made it.
if link=$(ls "$sources"/target/package-link/facelatch-link_*_arm64.deb 2>/dev/null); then
    printf '[mqtt]\nurl = "mqtt://broker.example"\n' >link.toml
    options+=(--link link.toml --link-package "$link")
fi
"$sources/packaging/image.sh" --board virt --config models.toml --ssh-key admin.pub \
    --hostname everything --out everything.img "${options[@]}" "$@"

# The slot, out of the image.
read -r start size < <(sfdisk --dump door.img | sed -n 's/.*img2 : start= *\([0-9]*\), size= *\([0-9]*\),.*/\1 \2/p')
dd if=door.img of="$temporary/slot" bs=1M iflag=skip_bytes,count_bytes skip=$((start * 512)) count=$((size * 512)) \
    conv=sparse status=none
length=$(dumpe2fs -h "$temporary/slot" 2>/dev/null | sed -n 's/^Block count: *//p')
truncate -s $((length * 4096)) "$temporary/slot"

# update NAME SLOT [SIGNER]: signs a slot.
update() {
    rm -rf "$temporary/bundle" "$1"
    mkdir "$temporary/bundle"
    cp "$2" "$temporary/bundle/system.img"
    printf '[update]\ncompatible=facelatch-arm64\nversion=test\n\n[bundle]\nformat=verity\n\n[image.system]\nfilename=system.img\n' \
        >"$temporary/bundle/manifest.raucm"
    rauc --cert="${3:-update}.pem" --key="${3:-update}.key" bundle "$temporary/bundle" "$1" >&2
}

step "an update that somebody else signed, and one that was changed"
update foreign.raucb "$temporary/slot" foreign
cp good.raucb changed.raucb
printf 'x' | dd of=changed.raucb bs=1 seek=20000000 conv=notrunc status=none

step "an update that does not start"
cp "$temporary/slot" "$temporary/broken"
debugfs -w -R 'rm root.squashfs' "$temporary/broken" 2>/dev/null
update broken.raucb "$temporary/broken"

step "an update without a door"
debugfs -R "dump root.squashfs $temporary/squashfs" "$temporary/slot" 2>/dev/null
unsquashfs -quiet -no-progress -d "$temporary/root" "$temporary/squashfs" >/dev/null
printf '#!/bin/sh\nexit 1\n' >"$temporary/root/usr/bin/facelatch"
mkdir -p "$temporary/root/etc/systemd/system/door-confirm.service.d"
# The patience of a door that is emulated, and that somebody waits for.
printf '[Service]\nEnvironment=FACELATCH_PATIENCE=60\n' \
    >"$temporary/root/etc/systemd/system/door-confirm.service.d/test.conf"
mksquashfs "$temporary/root" "$temporary/new" -quiet -no-progress -comp zstd -Xcompression-level 3 -noappend
mkdir "$temporary/files"
for file in vmlinuz initrd.img; do
    debugfs -R "dump $file $temporary/files/$file" "$temporary/slot" 2>/dev/null
done
mv "$temporary/new" "$temporary/files/root.squashfs"
rm "$temporary/slot"
truncate -s $(($(du -sBM "$temporary/files" | cut -f1 | tr -d M) * 102 / 100 + 12))M "$temporary/slot"
mke2fs -q -t ext4 -m 0 -O ^has_journal,^resize_inode -d "$temporary/files" "$temporary/slot"
update silent.raucb "$temporary/slot"
