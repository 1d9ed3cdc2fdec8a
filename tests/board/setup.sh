#!/usr/bin/env bash
# setup.sh [WORK]: what the emulated board is made of, from Debian's packages: the arm64
# kernel, its modules with v4l2loopback built for it, and a first file system of busybox
# and the programs under guest/. Leaves WORK/vmlinuz and WORK/initrd.
#
# The first time it takes a minute and 75 MB; what it fetched is kept in WORK (by default
# ~/.cache/facelatch/board) for as long as the kernel's part below stays as it is. Ends
# with 3 where this machine has no such packages, or may not install them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../tools/fetch.sh"
work=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/board}")
mkdir -p "$work"
cd "$work"
# Flags meant for other builds would reach the kernel's makefiles.
unset CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS ARCH CROSS_COMPILE

missing=()
needs() {
    command -v "$1" >/dev/null || missing+=("${@:2}")
}
PATH=$PATH:/usr/sbin:/sbin
needs qemu-system-aarch64 qemu-system-arm
needs aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
needs make make
needs cpio cpio
needs depmod kmod
needs xz xz-utils
needs djpeg libjpeg-turbo-progs
needs mkfs.ext4 e2fsprogs
if ((${#missing[@]})); then
    debian_or_cannot "${missing[@]}"
fi

# What they need comes with them.
modules=(virtio_pci virtio_blk virtio_console ext4 crc32c_generic 9p 9pnet_virtio
    videodev xhci_pci ftdi_sio v4l2loopback)

# An APT of its own beside the machine's: packages of another architecture without
# telling the machine about it, from the mirrors that the machine is set up with.
private_apt() {
    mkdir -p apt/lists/partial apt/cache/archives/partial
    local keyring
    keyring=$(ls /usr/share/keyrings/debian-archive-keyring.* 2>/dev/null | tail -1) || true
    [ -n "$keyring" ] || cannot "this is no Debian: there is no debian-archive-keyring"
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' \
        'Identifier: Packages' 'Component: main' >apt/targets
    # Debian 12's own v4l2loopback is no camera any more once its feeder has gone and
    # come back; its backport is.
    awk '$2 !~ /-/ && !done { print $1, $2 "-backports"; done = 1 } { print }' apt/targets \
        | sort -u >apt/releases
    sed "s|.*|deb [signed-by=$keyring] & main|" apt/releases >apt/sources.list
    : >apt/status
    cat >apt/apt.conf <<CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; "$(dpkg --print-architecture)"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "5";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::State "$work/apt";
Dir::State::lists "$work/apt/lists";
Dir::State::status "$work/apt/status";
Dir::Cache "$work/apt/cache";
Dir::Etc::sourcelist "$work/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
}

# depends PACKAGE PATTERN: the first of its dependencies that is like this.
depends() {
    apt-cache depends "$1" | awk -v like="$2" '/Depends:/ && $2 ~ like { print $2; exit }'
}

kernel() {
    local image release kbuild backports headers
    rm -rf apt deb root
    mkdir deb root
    private_apt
    export APT_CONFIG=$work/apt/apt.conf
    thrice apt-get -qq update
    image=$(depends linux-image-arm64 '^linux-image-')
    release=${image#linux-image-}
    kbuild=$(depends "linux-headers-$release" '^linux-kbuild-')
    backports=$(awk '$2 ~ /-backports$/ { print $2; exit }' apt/releases)
    (
        cd deb
        thrice apt-get -qq download "$image" "linux-headers-$release" busybox-static \
            "$(depends "linux-headers-$release" '^linux-headers-.*common')" \
            "$kbuild:$(dpkg --print-architecture)"
        offers=$(apt-cache madison v4l2loopback-dkms)
        if grep -q " $backports/" <<<"$offers"; then
            thrice apt-get -qq download "v4l2loopback-dkms/$backports"
        else
            thrice apt-get -qq download v4l2loopback-dkms
        fi
    )
    unset APT_CONFIG
    for package in deb/*.deb; do
        dpkg -x "$package" root
    done

    headers=$work/root/usr/src/linux-headers-$release
    # Debian's makefile names the place where the package would be installed.
    sed -i "s|/usr/src|$work/root/usr/src|" "$headers/Makefile"
    # The headers' own symbols are all a module needs; BTF would want the whole kernel.
    make -s -C "$headers" M="$(echo root/usr/src/v4l2loopback-* | sed "s|^|$work/|")" \
        CROSS_COMPILE=aarch64-linux-gnu- CONFIG_DEBUG_INFO_BTF_MODULES= modules
    install -D -t "root/lib/modules/$release/updates" root/usr/src/v4l2loopback-*/v4l2loopback.ko
    depmod -b root "$release"
    cp "root/boot/vmlinuz-$release" vmlinuz
    cp root/bin/busybox busybox
    echo "$release" >release

    # The modules the board is made of; all others of the kernel are let go.
    local module path kept=modules/lib/modules/$release
    rm -rf modules
    for module in "${modules[@]}"; do
        # modules.dep names after each module all that must be there before it.
        grep -E "/${module//_/[-_]}\.ko(\.xz)?:" "root/lib/modules/$release/modules.dep" | tr -d :
    done | tr ' ' '\n' | sort -u | while read -r path; do
        install -D -m 644 "root/lib/modules/$release/$path" "$kept/$path"
    done
    find modules -name '*.ko' -exec aarch64-linux-gnu-strip -g {} +
    cp "root/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$kept/"
    depmod -b modules "$release"
    rm -rf apt deb root
}

# The first file system: busybox, the modules, guest/.
initrd() {
    local tree program
    tree=$(mktemp -d)
    mkdir -p "$tree"/{bin,dev,etc,mnt,proc,run,sys,tmp,var/lib/facelatch}
    cp busybox "$tree/bin/"
    ln -s busybox "$tree/bin/sh"
    ln -s bin/busybox "$tree/init"
    cp -r modules/lib "$tree/"
    install -m 644 "$here/guest/inittab" "$tree/etc/"
    install -m 755 "$here"/guest/{start,agent,plugged} "$tree/etc/"
    for program in feeder probe; do
        aarch64-linux-gnu-gcc -std=gnu11 -O2 -Wall -Wextra -Werror -static -s \
            -o "$tree/bin/$program" "$here/guest/$program.c"
    done
    (cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -9) >initrd.new
    mv initrd.new initrd
    rm -rf "$tree"
}

# Stamped with what it was made by, so that a change of the kernel's part makes it anew.
recipe=$({ declare -f private_apt depends kernel; declare -p modules; } | sha256sum)
if [ "$(cat stamp 2>/dev/null)" != "$recipe" ] || ! [ -s vmlinuz ]; then
    rm -f stamp
    kernel
    echo "$recipe" >stamp
fi
initrd
echo "board: Linux $(<release), $(stat -c %s vmlinuz) bytes; initrd $(stat -c %s initrd) bytes; in $work"
