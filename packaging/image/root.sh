#!/usr/bin/env bash
# root.sh PACKAGES... --cache FOLDER --out FOLDER: the read-only system of a door, from
# Debian's arm64 packages and the door's: OUT/{vmlinuz,initrd.img,dtb,root.squashfs,status,licences}.
# It holds nothing of one door, so all doors share it and its updates.
#
#   --refresh           fetch the package lists again; otherwise those in the cache are used
#   --mirror URL        Debian's mirror; by default the one of this machine
#   --extra "PACKAGES"  more of Debian's packages
#
# Works as root, or without it if unprivileged user namespaces and qemu-user's binfmt are set up.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../tools/fetch.sh"
. "$here/common.sh"
suite=trixie
cache= out= refresh= mirror= extra=
packages=()
while [ $# -gt 0 ]; do
    case "$1" in
    --cache) cache=$(realpath -m "$2") && shift ;;
    --out) out=$(realpath -m "$2") && shift ;;
    --refresh) refresh=1 ;;
    --mirror) mirror=$2 && shift ;;
    --extra) extra=$2 && shift ;;
    *.deb) packages+=("$(realpath "$1")") ;;
    *) fault "root.sh: unknown option $1" ;;
    esac
    shift
done
mkdir -p "$cache" "$out"
needs mmdebstrap mmdebstrap arch-test
needs qemu-aarch64-static qemu-user-static
needs mksquashfs squashfs-tools
[ "$(id -u)" = 0 ] || needs newuidmap uidmap
install_needed

# The machine's own mirrors, with another suite; those of the last image as long as its lists
# are used.
mirrors() {
    if [ -n "$mirror" ]; then
        echo "${mirror%/}" "${mirror%/}-security"
    elif [ -z "$refresh" ] && [ -e "$cache/mirrors" ]; then
        cat "$cache/mirrors"
    else
        own_mirrors || { apt-get -qq update >&2 && own_mirrors; } ||
            fault "this machine has no mirror of Debian; name one with --mirror URL"
    fi
}

own_mirrors() {
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Identifier: Packages' | awk '
        $2 == "Debian" && $3 == "Debian" && !main { main = $1 }
        $2 == "Debian" && $3 == "Debian-Security" && !security { security = $1 }
        END {
            sub(/\/$/, "", main)
            sub(/\/$/, "", security)
            if (main == "") exit 1
            print main, security == "" ? main "-security" : security
        }'
}
found=$(mirrors)
read -r main security <<<"$found"
echo "$found" >"$cache/mirrors"
keyring=$(ls /usr/share/keyrings/debian-archive-keyring.* 2>/dev/null | tail -1) || true
[ -n "$keyring" ] || fault "there is no debian-archive-keyring; install that package"

# A private apt, whose lists are the ones of every later image until --refresh.
lists() {
    local apt=$cache/apt
    [ -z "$refresh" ] || rm -rf "$apt/lists"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    cat >"$apt/sources.list" <<LIST
deb [signed-by=$keyring] $main $suite main non-free-firmware
deb [signed-by=$keyring] $main $suite-updates main non-free-firmware
deb [signed-by=$keyring] ${security%/} $suite-security main non-free-firmware
LIST
    : >"$apt/status"
    cat >"$apt/apt.conf" <<CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "5";
Acquire::Check-Valid-Until "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Cache::archives "$apt/archives";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
CONF
    if [ ! -e "$apt/lists/complete" ]; then
        step "fetching package lists"
        APT_CONFIG=$apt/apt.conf thrice apt-get -qq update
        : >"$apt/lists/complete"
    fi
}

# The date of the newest list: everything in the base has this date at most.
lists_date() {
    local newest=0 at
    while read -r at; do
        at=$(date -d "$at" +%s)
        [ "$at" -le "$newest" ] || newest=$at
    done < <(sed -n 's/^Date: //p' "$cache"/apt/lists/*InRelease)
    echo "$newest"
}

# registers arm64 programs with the kernel while this runs, if they are not yet.
binfmt=/proc/sys/fs/binfmt_misc
mounted= registered=
work=$(mktemp -d)
# Without root the hooks run as a user that may read only what everybody may: what they need
# is copied to here.
chmod 755 "$work"
mkdir "$work/in"
cleanup() {
    if [ -n "$registered" ]; then echo -1 >"$binfmt/facelatch-aarch64" 2>/dev/null || true; fi
    if [ -n "$mounted" ]; then umount "$binfmt" || true; fi
    rm -rf "$work"
}
trap cleanup EXIT
register() {
    [ "$(dpkg --print-architecture)" != arm64 ] || return 0
    if ! [ -e "$binfmt/register" ] && [ "$(id -u)" = 0 ]; then
        mount -t binfmt_misc binfmt_misc "$binfmt" || cannot "the kernel has no binfmt_misc"
        mounted=1
    fi
    if grep -qs '^interpreter.*aarch64' "$binfmt"/*aarch64*; then return; fi
    [ -w "$binfmt/register" ] ||
        cannot "programs for arm64 do not run here; as root: apt install qemu-user-static binfmt-support"
    # The header of an arm64 program; F opens the interpreter now, so that it need not exist
    # in the new root.
    local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    echo ":facelatch-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >"$binfmt/register" \
        || cannot "the kernel takes no other interpreter of programs"
    registered=1
}

mode=unshare
[ "$(id -u)" != 0 ] || mode=root
if [ $mode = unshare ] && ! grep -qE "^($(id -un)|$(id -u)):" /etc/subuid; then
    cannot "/etc/subuid names no numbers for $(id -un); as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)"
fi
bootstrap() {
    mmdebstrap --quiet --mode="$mode" --architectures=arm64 --skip=check/qemu \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "5"' \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false"' "$@"
}

# base FILE: Debian's part.
base() {
    step "installing Debian's packages (some minutes)"
    cp -R "$here/initramfs" "$work/in/"
    mkdir "$work/in/lists"
    cp "$cache"/apt/lists/*Release "$cache"/apt/lists/*Packages* "$work/in/lists/"
    cat >"$work/in/prepare.sh" <<'HOOK'
set -e
root=$1 from=$2
mkdir -p "$root/etc/initramfs-tools/conf.d" "$root/etc/initramfs-tools/scripts"
printf 'MODULES=list\nCOMPRESS=gzip\nBUSYBOX=y\nFSTYPE=ext4\nRESUME=none\n' >"$root/etc/initramfs-tools/conf.d/facelatch"
cp "$from/initramfs/modules" "$root/etc/initramfs-tools/modules"
install -m 755 "$from/initramfs/slot" "$root/etc/initramfs-tools/scripts/slot"
HOOK
    # shellcheck disable=SC2016 # $1 is the hook's
    # INITRD: the first file system is made once, at the end, and not by each package.
    SOURCE_DATE_EPOCH=$date INITRD=No bootstrap --variant=minbase --skip=update,download/empty,essential/unlink,cleanup/apt/cache \
        --include="$wanted" \
        --setup-hook="mkdir -p \"\$1/var/lib/apt/lists\" \"\$1/var/cache/apt/archives/partial\"" \
        --setup-hook="cp $work/in/lists/* \"\$1/var/lib/apt/lists/\"" \
        --setup-hook="sync-in $cache/apt/archives /var/cache/apt/archives" \
        --essential-hook="sh $work/in/prepare.sh \"\$1\" $work/in" \
        --customize-hook='chroot "$1" update-initramfs -c -k all >&2' \
        --customize-hook="sync-out /var/cache/apt/archives $cache/apt/archives" \
        --customize-hook='rm -rf "$1"/var/cache/apt/archives/*' \
        "$suite" "$1" "$cache/apt/sources.list"
}

# root FOLDER: the door's part on top of it.
root() {
    step "installing the door's packages"
    cp -R "$here/system" "$here/settle.sh" "${packages[@]}" "$work/in/"
    ln "$base" "$work/in/base.tar" 2>/dev/null || cp "$base" "$work/in/base.tar"
    cat >"$work/in/door.sh" <<'HOOK'
set -e
root=$1 from=$2
mkdir -p "$root/etc/sysusers.d"
cp "$from/system/etc/sysusers.d/facelatch.conf" "$root/etc/sysusers.d/"
for package in $DOOR_PACKAGES; do
    cp "$from/$package" "$root/tmp/"
    chroot "$root" dpkg --install "/tmp/$package" >&2
    rm "$root/tmp/$package"
done
sh "$from/settle.sh" "$root" "$from/system"
HOOK
    # Without root no devices can be made; the kernel makes them all at the start.
    SOURCE_DATE_EPOCH=$2 DOOR_PACKAGES="${packages[*]##*/}" bootstrap --variant=custom --skip=setup,update,download,cleanup/mmdebstrap,cleanup/apt \
        --setup-hook="tar -C \"\$1\" --extract --numeric-owner --exclude './dev/*' --file $work/in/base.tar" \
        --setup-hook='mkdir -p "$1/dev/pts" "$1/dev/shm"' \
        --customize-hook="sh $work/in/door.sh \"\$1\" $work/in" \
        "$suite" "$1" "$cache/apt/sources.list"
}

lists
register
wanted=$( (sed 's/#.*//' "$here/packages"; echo "$extra") | tr -s ' \n' ',' | sed 's/^,//; s/,$//')
date=$(lists_date)
base=$cache/base-$( (declare -f base bootstrap; cat "$here"/initramfs/* "$cache"/apt/lists/*InRelease; echo "$wanted $main $suite") | sha256sum | cut -c1-16).tar
if [ ! -e "$base" ]; then
    rm -f "$cache"/base-*.tar
    base "$work/base.tar"
    mv "$work/base.tar" "$base.part"
    mv "$base.part" "$base"
fi

epoch=${SOURCE_DATE_EPOCH:-$date}
[ "$epoch" -ge "$date" ] || epoch=$date
key=$( (cat "$here"/*.sh; find "$here/system" -type f -printf '%P %m\n' | sort; find "$here/system" -type f | sort | xargs cat
    cat "${packages[@]}"; echo "$base $epoch") | sha256sum | cut -c1-16)
if [ "$(cat "$out/key" 2>/dev/null)" != "$key" ]; then
    rm -rf "$out"
    mkdir -p "$out"
    root "$work/root.tar" "$epoch"
    step "compressing the system"
    tar -C "$work" -xf "$work/root.tar" --wildcards './boot/vmlinuz-*' './boot/initrd.img-*' ./var/lib/dpkg/status
    mv "$work"/boot/vmlinuz-* "$out/vmlinuz"
    mv "$work"/boot/initrd.img-* "$out/initrd.img"
    mkdir -p "$out/dtb"
    tar -C "$out/dtb" -xf "$work/root.tar" --wildcards --strip-components=5 './usr/lib/linux-image-*/broadcom/bcm2711-rpi-*' './usr/lib/linux-image-*/broadcom/bcm2837-rpi-*'
    # mksquashfs of Debian 12 gives the root folder to who packs, whatever -root-uid says.
    # Kernel and first file system lie beside it in the slot, where the boot loader reads them.
    mmtarfilter --path-exclude='/boot/*' --path-exclude='/dev/*' <"$work/root.tar" |
        asroot env -u SOURCE_DATE_EPOCH mksquashfs - "$out/root.squashfs" -tar -quiet -no-progress -comp zstd -Xcompression-level 15 -b 262144 \
        -root-mode 0755 -root-uid 0 -root-gid 0 -all-time "$epoch" -mkfs-time "$epoch" >&2
    cp "$work/var/lib/dpkg/status" "$out/status"
    mkdir -p "$out/licences"
    tar -C "$out/licences" -xf "$work/root.tar" --wildcards --strip-components=4 \
        './usr/share/doc/*/copyright' './usr/share/doc/facelatch/licences.gz'
    echo "$epoch" >"$out/epoch"
    echo "$key" >"$out/key"
fi
