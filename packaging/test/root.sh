#!/usr/bin/env bash
# root.sh FOLDER: builds a minimal Debian for arm64 that boots in QEMU, from this machine's
# mirror: FOLDER/{vmlinuz,initrd.img,root.ext4}. Keeps an existing one that is up to date.
# Takes about three minutes and 200 MB of packages. Exits with 3 if this machine's kernel or
# privileges are not sufficient.
set -euo pipefail
folder=$(realpath -m "$1")
suite=${FACELATCH_SUITE:-bookworm}
# Rebuild whenever this script changes.
stamp=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-16)-$suite
[ "$(cat "$folder/stamp" 2>/dev/null)" = "$stamp" ] && exit 0

. "$(dirname "${BASH_SOURCE[0]}")/../../tools/fetch.sh"
[ "$(id -u)" = 0 ] || cannot "only root may make one"
unshare --mount true 2>/dev/null || cannot "root may mount nothing here"
sources=/etc/apt/sources.list.d/debian.sources
[ -e "$sources" ] || cannot "there is no $sources"
if ! command -v mmdebstrap >/dev/null || ! command -v arch-test >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    debian_or_cannot mmdebstrap arch-test qemu-user-static
fi

# Scripts of arm64 packages run through qemu-user, which must be registered with the
# kernel. If it is not, register it now and remove it at the end.
binfmt=/proc/sys/fs/binfmt_misc
mounted= registered=
work=$(mktemp -d)
cleanup() {
    if [ -n "$registered" ]; then echo -1 >"$binfmt/qemu-aarch64"; fi
    if [ -n "$mounted" ]; then umount "$binfmt"; fi
    rm -rf "$work"
}
trap cleanup EXIT
if ! [ -e "$binfmt/register" ]; then
    mount -t binfmt_misc binfmt_misc "$binfmt" || cannot "the kernel has no binfmt_misc"
    mounted=1
fi
if ! [ -e "$binfmt/qemu-aarch64" ]; then
    # The header of an ELF file: 64-bit, little endian, program or shared object, AArch64.
    # F: open the interpreter now, so that it need not exist in the new root.
    magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >"$binfmt/register" \
        || cannot "the kernel takes no other interpreter of programs"
    registered=1
fi

# An initrd with few drivers: unpacking all takes an emulated processor half a minute.
cat >"$work/initramfs.sh" <<'HOOK'
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=gzip\nFSTYPE=ext4\n' >"$1/etc/initramfs-tools/conf.d/facelatch"
printf '%s\n' virtio_pci virtio_blk ext4 >"$1/etc/initramfs-tools/modules"
HOOK
# After the boot it runs the script in the folder that the host shares. The broker waits for
# a test that starts it.
cat >"$work/facelatch-package-test.service" <<'UNIT'
[Service]
ExecStartPre=/bin/mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /mnt
ExecStart=/bin/sh -c "exec sh /mnt/guest.sh >>/mnt/output 2>&1"
Environment=HOME=/root
[Install]
WantedBy=multi-user.target
UNIT
mmdebstrap --quiet --aptopt='Acquire::Retries "5"' --mode=root --architectures=arm64 --variant=minbase \
    --include=systemd-sysv,udev,kmod,init-system-helpers,initramfs-tools,linux-image-arm64,mosquitto \
    --essential-hook="sh $work/initramfs.sh \"\$1\"" \
    --customize-hook='echo door >"$1/etc/hostname"' \
    --customize-hook='passwd --root "$1" --delete root >/dev/null' \
    --customize-hook="cp $work/facelatch-package-test.service \"\$1/etc/systemd/system/\"" \
    --customize-hook='rm "$1/etc/systemd/system/multi-user.target.wants/mosquitto.service"' \
    --customize-hook='ln -s ../facelatch-package-test.service "$1/etc/systemd/system/multi-user.target.wants/"' \
    --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/usr/share/{doc,locale,man}/*' \
    "$suite" "$work/root" "$sources"

mkdir -p "$folder"
cp "$work"/root/boot/vmlinuz-* "$folder/vmlinuz"
cp "$work"/root/boot/initrd.img-* "$folder/initrd.img"
rm -rf "$work"/root/boot/*
truncate --size 1500M "$work/root.ext4"
mke2fs -q -t ext4 -d "$work/root" "$work/root.ext4"
mv "$work/root.ext4" "$folder/root.ext4"
echo "$stamp" >"$folder/stamp"
