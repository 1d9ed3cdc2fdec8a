#!/usr/bin/env bash
# flash.sh IMAGE DEVICE [--yes SERIAL]: writes an image to a card, and reads it back.
#
#   packaging/flash.sh door.img /dev/sdX
#   packaging/flash.sh door.img /dev/mmcblk0 --yes 0x5dbe0fa3
#
# It refuses a device that is mounted, in use, not a card or stick, too small, or the disk of
# this machine; shows what will be lost; and asks. --yes does not ask, for scripts: SERIAL must
# be the card's serial number, which flash.sh shows, so that no other card is overwritten.
# The first MiB is written last, so a card that is pulled out meanwhile does not boot.
#
# Exit codes: 0 written and verified, 1 failed, 2 wrong usage, 3 refused.
set -euo pipefail
# For tests: where the kernel describes devices and mounts.
sys=${FACELATCH_SYS:-/sys}
mounts=${FACELATCH_MOUNTS:-/proc/self/mountinfo}
swaps=${FACELATCH_SWAPS:-/proc/swaps}
MIB=1048576

usage() {
    sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}
refuse() {
    echo "refused: $*" >&2
    exit 3
}
fault() {
    echo "flash.sh: $*" >&2
    exit "${code:-1}"
}

image= device= yes=
while [ $# -gt 0 ]; do
    case "$1" in
    --yes)
        [ $# -ge 2 ] || code=2 fault "--yes: name the card's serial number"
        yes=$2
        shift
        ;;
    -*) usage ;;
    *)
        if [ -z "$image" ]; then image=$1; elif [ -z "$device" ]; then device=$1; else usage; fi
        ;;
    esac
    shift
done
[ -n "$device" ] || usage
[ -f "$image" ] && [ -r "$image" ] || code=2 fault "$image: cannot be read"
size=$(stat -c %s "$image")
[ "$size" -gt $((2 * MIB)) ] && [ "$(dd if="$image" bs=1 skip=510 count=2 status=none | od -An -tx1 | tr -d ' ')" = 55aa ] ||
    code=2 fault "$image: not the image of a card"
[ -e "$device" ] || refuse "$device: there is no such device"
[ -b "$device" ] || [ -n "${FACELATCH_SYS:-}" ] || refuse "$device: not a block device"
device=$(readlink -f "$device")
disk=${device##*/}
if [ -e "$sys/class/block/$disk/partition" ]; then
    whole=$(basename "$(dirname "$(readlink -f "$sys/class/block/$disk")")")
    refuse "$device is a part of a disk; name the whole one: /dev/$whole"
fi
about=$sys/class/block/$disk
[ -d "$about" ] || refuse "$device: the kernel describes no such disk"

# property PATH: one line that the kernel says of the disk.
property() {
    local text=
    [ ! -r "$about/$1" ] || read -r text <"$about/$1" || true
    tr -cd '[:print:]' <<<"$text" | sed 's/^ *//; s/ *$//'
}

# serial: of a card as the card says it, of a USB reader or stick as USB does.
serial() {
    local text folder
    text=$(property device/serial)
    folder=$(readlink -f "$about/device" 2>/dev/null || true)
    while [ -z "$text" ] && [ -n "$folder" ] && [ "$folder" != "${sys%/}" ] && [ "$folder" != / ]; do
        if [ -r "$folder/idVendor" ] && [ -r "$folder/serial" ]; then
            text=$(tr -cd '[:print:]' <"$folder/serial")
        fi
        folder=${folder%/*}
    done
    echo "$text"
}

# Numbers (major:minor) of the disk and its parts.
numbers=" $(property dev)"
parts=()
for part in "$about/$disk"*; do
    [ -r "$part/dev" ] || continue
    numbers+=" $(cat "$part/dev")"
    parts+=("${part##*/}")
done

used=$(awk -v numbers="$numbers " 'index(numbers, " " $3 " ") { print $5 }' "$mounts")
if grep -qxE '/|/usr|/boot(/.*)?|/home|/var' <<<"$used"; then
    refuse "$device is the disk of this machine: it holds $(grep -xE '/|/usr|/boot(/.*)?|/home|/var' <<<"$used" | head -1)"
fi
[ -z "$used" ] || refuse "$device is mounted at $(tr '\n' ' ' <<<"$used"); unmount it first: umount $(tr '\n' ' ' <<<"$used")"
for name in "$disk" "${parts[@]}"; do
    ! awk 'NR > 1 { print $1 }' "$swaps" 2>/dev/null | grep -qx "/dev/$name" || refuse "$device holds swap of this machine: /dev/$name"
    for holder in "$about/holders"/* "$about/$name/holders"/*; do
        [ ! -e "$holder" ] || refuse "$device is in use by ${holder##*/} (an encrypted or logical volume); close it first"
    done
done

# A card in a slot of its own has no mark of being removable, but says that it is a card.
kind=$(property device/type)
case "$(property removable) $kind" in
"1 "*) ;;
*" SD") ;;
*) refuse "$device is not removable${kind:+ ($kind)}; this only writes to cards and sticks" ;;
esac
[ "$(property ro)" != 1 ] || refuse "$device is write-protected; move the switch on the card's edge"
room=$(($(property size) * 512))
[ "$room" -gt 0 ] || refuse "$device has no card in it"
[ "$room" -ge "$size" ] || refuse "$device is too small: $((room / MIB)) MiB, and $image needs $((size / MIB)) MiB"

number=$(serial)
echo "$device: $(property device/vendor) $(property device/model)$(property device/name), $((room / 1000000)) MB, serial number ${number:-none}"
if [ ${#parts[@]} -gt 0 ]; then
    echo "This will be lost:"
    if [ -b "$device" ]; then
        lsblk --noheadings --output NAME,SIZE,FSTYPE,LABEL "$device" | sed '1d; s/^/    /'
    else
        printf '    %s\n' "${parts[@]}"
    fi
else
    echo "It has no partitions. Whatever else is on it will be lost."
fi
if [ -n "$yes" ]; then
    [ -n "$number" ] || refuse "$device has no serial number, so --yes cannot know it; run without --yes"
    [ "$yes" = "$number" ] || refuse "$device has the serial number $number and not $yes"
else
    printf 'Write %s to it? Type %s: ' "$image" "$disk"
    read -r answer || answer=
    [ "$answer" = "$disk" ] || refuse "nothing was written"
fi
[ -w "$device" ] || fault "$device: no permission; run with sudo"

direct=
[ ! -b "$device" ] || direct=direct
# put SKIP COUNT: MiB of the image to the same place.
put() {
    dd if="$image" of="$device" bs=$MIB skip="$1" seek="$1" ${2:+count="$2"} conv=notrunc,fsync \
        ${direct:+oflag=direct} status=progress || fault "$device: writing failed; the card may be worn out"
}
# What was there must not start half overwritten.
dd if=/dev/zero of="$device" bs=$MIB count=1 conv=notrunc,fsync status=none || fault "$device: writing failed"
echo "writing"
put 1 ""
put 0 1
echo "reading back"
[ -z "$direct" ] || blockdev --flushbufs "$device"
wanted=$(sha256sum <"$image" | cut -d' ' -f1)
found=$(dd if="$device" bs=$MIB ${direct:+iflag=direct} status=none | head -c "$size" | sha256sum | cut -d' ' -f1) || true
[ "$wanted" = "$found" ] || fault "$device: reads back something else than was written; do not use this card"
[ -z "$direct" ] || blockdev --rereadpt "$device" 2>/dev/null || true
echo "written and verified: sha256 $wanted"
