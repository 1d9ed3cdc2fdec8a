#!/usr/bin/env bash
# image.sh: makes the image of a card that boots into a locked door.
#
#   packaging/image.sh --board pi --config door.toml --ssh-key admin.pub --out door.img
#
#   --board pi|virt       64-bit Raspberry Pi (3, 4, Zero 2 W), or QEMU's machine virt
#   --config FILE         the door's configuration; it is checked before anything is built
#   --ssh-key FILE        public keys that may log in as admin; without it nobody can
#   --hostname NAME       the door's name in the network [door]
#   --wifi FILE           configuration of wpa_supplicant
#   --models SET          signed set of models, a folder or a tar of one; the door installs it
#                         at its first start
#   --usb FILE            USB devices allowed, "PORT VENDOR PRODUCT" per line; without it
#                         cameras, the relays that the package knows and a Pi's own network
#   --time FILE           servers of authenticated time, as chrony's sources
#   --update-cert FILE    certificate of updates that this door takes; without it none
#   --update-key FILE     key of that certificate; with --bundle
#   --bundle FILE         writes a signed update with this system, too
#   --link FILE           configuration of facelatch-link, with --link-package FILE.deb
#   --rtc ds3231          clock with a battery on the Pi's I2C pins
#   --package FILE        the door's package; by default packaging/build.sh builds it
#   --facelatch FILE      program of this machine that checks the configuration
#   --packages "NAME..."  more of Debian's packages, for example ffmpeg
#   --slot-size MIB       of each of the two slots [512]
#   --cache FOLDER        [~/.cache/facelatch/image]
#   --refresh             take Debian's newest packages; otherwise those of the last image
#   --mirror URL          Debian's mirror [that of this machine]
#   --out FILE            the image; beside it FILE.spdx.json, FILE.licences.tar.gz, FILE.sha256
#
# packaging/flash.sh writes it to a card. Exit codes: 0 done, 1 failed, 2 wrong usage or
# configuration, 3 this machine cannot make one.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
sources=$(dirname "$here")
. "$sources/tools/fetch.sh"
. "$here/image/common.sh"
export LC_ALL=C.UTF-8 TZ=UTC
umask 022

board= config= key= name=door wifi= models= usb= time= certificate= signing= bundle= link= link_package= rtc=
package= program= extra= slot_size=512 cache=${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/image
refresh= mirror= out=
while [ $# -gt 0 ]; do
    case "$1" in
    --refresh) refresh=--refresh ;;
    -h | --help)
        sed -n '2,/^set -/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    --*)
        [ $# -ge 2 ] || fault "$1: its value is missing"
        case "$1" in
        --board) board=$2 ;;
        --config) config=$2 ;;
        --ssh-key) key=$2 ;;
        --hostname) name=$2 ;;
        --wifi) wifi=$2 ;;
        --models) models=$2 ;;
        --usb) usb=$2 ;;
        --time) time=$2 ;;
        --update-cert) certificate=$2 ;;
        --update-key) signing=$2 ;;
        --bundle) bundle=$2 ;;
        --link) link=$2 ;;
        --link-package) link_package=$2 ;;
        --rtc) rtc=$2 ;;
        --package) package=$2 ;;
        --facelatch) program=$2 ;;
        --packages) extra=$2 ;;
        --slot-size) slot_size=$2 ;;
        --cache) cache=$2 ;;
        --mirror) mirror=$2 ;;
        --out) out=$2 ;;
        *) fault "there is no option $1; see image.sh --help" ;;
        esac
        shift
        ;;
    *) fault "$1: what is it? see image.sh --help" ;;
    esac
    shift
done

# Everything that is given is checked before anything is built.
case "$board" in pi | virt) ;; *) fault "--board is pi or virt" ;; esac
[ -n "$config" ] || fault "--config is missing: the door's configuration, see facelatch config example"
[ -n "$out" ] || fault "--out is missing: the file of the image"
for file in "$config" ${key:+"$key"} ${wifi:+"$wifi"} ${usb:+"$usb"} ${time:+"$time"} \
    ${certificate:+"$certificate"} ${signing:+"$signing"} ${link:+"$link"} \
    ${link_package:+"$link_package"} ${package:+"$package"} ${program:+"$program"}; do
    [ -r "$file" ] && [ -f "$file" ] || fault "$file: cannot be read"
done
[ -d "$(dirname "$out")" ] || fault "$(dirname "$out"): there is no such folder"
[[ $name =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] ||
    fault "--hostname $name: use 1 to 63 of a-z, 0-9 and -, not - at the ends"
[[ $slot_size =~ ^[0-9]{3,4}$ ]] || fault "--slot-size $slot_size: 100 to 9999 MiB"
if [ -n "$key" ]; then
    ! grep -q 'PRIVATE KEY' "$key" || fault "$key: this is the private key; the card gets the public one, *.pub"
    ssh-keygen -l -f "$key" >/dev/null 2>&1 || fault "$key: holds no public key of ssh"
fi
[ -z "$wifi" ] || grep -q '^[[:space:]]*network={' "$wifi" || fault "$wifi: names no network={...}; see wpa_supplicant.conf(5)"
if [ -n "$usb" ] && wrong=$(sed 's/#.*//' "$usb" | grep -vnE '^[[:space:]]*$|^[0-9]+-[0-9.]+[[:space:]]+[0-9a-f]{4}[[:space:]]+[0-9a-f]{4}[[:space:]]*$'); then
    fault "$usb: line ${wrong%%:*} is not like 1-1.2 1a86 7523 (port, vendor, product)"
fi
if [ -n "$models" ]; then
    if [ -d "$models" ]; then
        [ -r "$models/manifest.toml" ] || fault "$models: no set of models, it has no manifest.toml"
    else
        [ -r "$models" ] || fault "$models: cannot be read"
        names=$(tar -tf "$models" 2>/dev/null) || true
        grep -qxE '(\./)?manifest\.toml' <<<"$names" ||
            fault "$models: no set of models, a tar with manifest.toml at its top level"
    fi
fi
[ -z "$certificate" ] || openssl x509 -in "$certificate" -noout 2>/dev/null || fault "$certificate: no certificate (PEM)"
if [ -n "$bundle" ]; then
    [ -n "$signing" ] && [ -n "$certificate" ] || fault "--bundle needs --update-key and --update-cert"
fi
if [ -n "$link" ] && [ -z "$link_package" ]; then
    fault "--link needs the package of facelatch-link: --link-package FILE.deb"
fi
case "$rtc" in '' | ds3231) ;; *) fault "--rtc $rtc: only ds3231 is known" ;; esac
[ -z "$rtc" ] || [ "$board" = pi ] || fault "--rtc is for --board pi"
if ! said=$("$here/configured" "$config" 2>&1); then
    fault "$said"
fi

needs mmdebstrap mmdebstrap arch-test
needs qemu-aarch64-static qemu-user-static
needs mksquashfs squashfs-tools
needs sfdisk fdisk
needs mkfs.vfat dosfstools
needs mcopy mtools
needs mkfs.ext4 e2fsprogs
needs mkimage u-boot-tools
needs dtc device-tree-compiler
needs python3 python3
[ -z "$bundle" ] || needs rauc rauc
install_needed

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(realpath -m "$cache")
mkdir -p "$cache"
# One image at a time: they share the cache.
exec 9>"$cache/lock"
flock -n 9 || { step "waiting for another image.sh" && flock 9; }

# program_of PACKAGE: the door's program from it, run by qemu-user where needed.
checker() {
    if [ -n "$program" ]; then
        "$(realpath "$program")" "$@"
    elif [ -n "$package" ]; then
        [ -e "$work/package/usr/bin/facelatch" ] || dpkg-deb --extract "$package" "$work/package"
        if [ "$(dpkg --print-architecture)" = arm64 ]; then
            "$work/package/usr/bin/facelatch" "$@"
        else
            qemu-aarch64-static -cpu cortex-a76 "$work/package/usr/bin/facelatch" "$@"
        fi
    elif [ -x "$sources/target/release/facelatch" ]; then
        "$sources/target/release/facelatch" "$@"
    else
        return 125
    fi
}
check() {
    local code=0
    step "checking $config"
    checker config check "$config" >&2 || code=$?
    [ "$code" = 0 ] || [ "$code" = 125 ] || fault "$config: correct it first"
    [ "$code" = 0 ] || return "$code"
    [ -n "$models" ] || return 0
    # Exactly what the door will do, in a folder of its own.
    step "checking $models"
    mkdir -p "$work/models"
    XDG_STATE_HOME=$work/models checker models install "$models" --config "$config" \
        --store "$work/models/store" --gallery "$work/models/gallery.redb" </dev/null >&2 2>"$work/said" || code=$?
    # A new folder has no audit log, and needs none.
    grep -v 'audit log' "$work/said" >&2 || true
    [ "$code" = 0 ] || fault "$models: the door would refuse this set"
}
checked=
if check; then checked=1; fi
if [ -z "$package" ]; then
    step "building the door's package"
    (cd "$sources" && packaging/build.sh >&2) 9>&-
    package=$(ls "$sources"/target/package/facelatch_*_arm64.deb)
fi
[ -n "$checked" ] || check
[ "$(dpkg-deb --field "$package" Architecture)" = arm64 ] || fault "$package: not for arm64"
contents=$(dpkg-deb --fsys-tarfile "$package" | tar -t)
for needed in usr/bin/facelatch-update usr/lib/facelatch/boot-slot; do
    grep -qx "./$needed" <<<"$contents" ||
        fault "$package: has no $needed; build it from these sources"
done

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$sources" log -1 --format=%ct 2>/dev/null || echo 0)}
root=$cache/root
"$here/image/root.sh" "$package" ${link_package:+"$link_package"} --cache "$cache" --out "$root" \
    $refresh ${mirror:+--mirror "$mirror"} ${extra:+--extra "$extra"} 9>&-
epoch=$(cat "$root/epoch")
export SOURCE_DATE_EPOCH=$epoch E2FSPROGS_FAKE_TIME=$epoch

# dated FOLDER: one date for all files.
dated() {
    find "$1" -exec touch -h -d "@$epoch" {} +
}
# ext4 FILE MIB LABEL UUID FOLDER
ext4() {
    rm -f "$1"
    truncate -s "$2M" "$1"
    dated "$5"
    asroot mke2fs -q -t ext4 -d "$5" -L "$3" -U "$4" -m 0 -b 4096 \
        -E "hash_seed=$4,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0${6:+,$6}" ${7:-} "$1"
    # The time of the last change of an inode is the one thing that cannot be set on files.
    (echo "set_current_time @$epoch" && cd "$5" && find . -printf "set_inode_field \"/%P\" ctime @$epoch\n" | sort) |
        debugfs -w -f - "$1" >/dev/null 2>"$work/debugfs"
    ! grep -v '^debugfs [0-9]' "$work/debugfs" || return 1
}

step "making the slots"
slot=$work/slot
mkdir "$slot"
cp "$root/vmlinuz" "$root/initrd.img" "$root/root.squashfs" "$slot/"
slot_mib=$((($(du -sBM --apparent-size "$slot" | cut -f1 | tr -d M)) * 102 / 100 + 12))
[ "$slot_mib" -le "$slot_size" ] || fault "the system needs $slot_mib MiB; give --slot-size"
ext4 "$work/slot.img" "$slot_mib" facelatch-slot 0d0e7a5c-0000-4000-8000-000000000001 "$slot" "" "-O ^has_journal,^resize_inode"

step "making the data partition"
data=$work/data
mkdir -p "$data"/{facelatch,register,link,config,credstore,systemd,chrony,rauc,settings/time,ssh}
install -m 640 "$config" "$data/config/facelatch.toml"
[ -z "$link" ] || install -m 640 "$link" "$data/config/link.toml"
echo "$name" >"$data/settings/hostname"
[ -z "$key" ] || install -m 644 "$key" "$data/ssh/authorized_keys"
[ -z "$wifi" ] || install -m 600 "$wifi" "$data/settings/wifi.conf"
[ -z "$usb" ] || install -m 600 "$usb" "$data/settings/usb"
[ -z "$time" ] || install -m 644 "$time" "$data/settings/time/door.sources"
[ -z "$certificate" ] || install -m 644 "$certificate" "$data/settings/update.pem"
room=64
if [ -d "$models" ]; then
    # Names only at the top level, as the door wants them.
    (cd "$models" && find . -maxdepth 1 -type f -printf '%P\n' | sort | tar --create --files-from - --format=ustar \
        --owner=0 --group=0 --numeric-owner --mtime "@$epoch" --mode=0644) >"$data/settings/models.tar"
elif [ -n "$models" ]; then
    install -m 600 "$models" "$data/settings/models.tar"
fi
[ -z "$models" ] || room=$((room + $(stat -c %s "$data/settings/models.tar") / 1048576 + 1))
# resize: how far the table of groups can grow at the first start: 512 GB.
ext4 "$work/data.img" $room facelatch-data 0d0e7a5c-0000-4000-8000-000000000002 "$data" resize=134217728

step "making the boot partition"
signature=0d0e7a5c
boot=$work/boot
mkdir -p "$boot"
arguments="console=ttyAMA0"
case "$board" in
pi) arguments= ;;
esac
sed "s/@SIGNATURE@/$signature/; s/ *@ARGUMENTS@//" "$here/image/boot.cmd" | grep -v '^ *#' >"$work/boot.cmd"
mkimage -q -A arm64 -T script -C none -n facelatch -d "$work/boot.cmd" "$boot/boot.scr" >/dev/null
if [ "$board" = pi ]; then
    "$here/image/firmware.sh" --cache "$cache" --dtb "$root/dtb" --out "$boot" ${rtc:+--rtc "$rtc"}
    firmware=("$cache/firmware/raspi-firmware" "$cache/firmware/u-boot-rpi")
else
    firmware=("$cache/firmware/u-boot-qemu")
    "$here/image/firmware.sh" --cache "$cache" --virt "$(dirname "$(realpath -m "$out")")/u-boot.bin"
fi
dated "$boot"
rm -f "$work/boot.img"
truncate -s 48M "$work/boot.img"
mkfs.vfat --invariant -F 32 -s 1 -n FACELATCH -i "$signature" "$work/boot.img" >/dev/null
(cd "$boot" && find . -mindepth 1 -printf '%P\n' | sort | while read -r path; do
    if [ -d "$path" ]; then mmd -i "$work/boot.img" "::$path"; else mcopy -m -i "$work/boot.img" "$path" "::$path"; fi
done)

step "putting the card together"
"$here/image/assemble.py" --signature "$signature" --slot-mib "$slot_size" --boot "$work/boot.img" \
    --slot "$work/slot.img" --data "$work/data.img" --out "$work/door.img"
mv "$work/door.img" "$out"

step "listing what it is made of"
"$here/image/sbom.py" --status "$root/status" --package "$package" --image "$out" --epoch "$epoch" \
    --lists "$cache/apt/lists" --firmware "${firmware[@]/%//complete}" >"$out.spdx.json"
cp -R "$root/licences" "$work/licences"
for folder in "${firmware[@]}"; do
    install -D -m 644 "$folder/usr/share/doc/${folder##*/}/copyright" "$work/licences/${folder##*/}/copyright"
done
(cd "$work/licences" && find . -type f | sort | tar --create --files-from - --owner=0 --group=0 --numeric-owner \
    --mtime "@$epoch" --mode=0644) | gzip -9n >"$out.licences.tar.gz"
(cd "$(dirname "$out")" && sha256sum "${out##*/}") >"$out.sha256"
if [ -n "$bundle" ]; then
    step "signing the update"
    version=$(dpkg-deb --field "$package" Version)
    mkdir "$work/bundle"
    mv "$work/slot.img" "$work/bundle/system.img"
    cat >"$work/bundle/manifest.raucm" <<MANIFEST
[update]
compatible=facelatch-arm64
version=$version
build=$epoch

[bundle]
format=verity

[image.system]
filename=system.img
MANIFEST
    rm -f "$bundle"
    rauc --cert="$certificate" --key="$signing" bundle "$work/bundle" "$bundle" >&2
    echo "$bundle: $(stat -c %s "$bundle") bytes"
fi
step "done"
echo "$out: $(stat -c %s "$out") bytes, $(du -B1 "$out" | cut -f1) of them not zero; system $(stat -c %s "$root/root.squashfs") bytes"
