#!/usr/bin/env bash
# firmware.sh --cache FOLDER (--dtb FOLDER --out FOLDER [--rtc ds3231] | --virt FILE): what
# starts before the slots, from Debian's packages of root.sh's lists. For a Raspberry Pi the
# firmware, its settings and the boot loader U-Boot; for QEMU's machine virt
# U-Boot (FILE) and its settings (FILE with .env in place of .bin).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../../tools/fetch.sh"
. "$here/common.sh"
cache= dtb= out= rtc= virt=
while [ $# -gt 0 ]; do
    case "$1" in
    --cache) cache=$2 ;;
    --dtb) dtb=$2 ;;
    --out) out=$2 ;;
    --rtc) rtc=$2 ;;
    --virt) virt=$2 ;;
    *) fault "firmware.sh: unknown option $1" ;;
    esac
    shift 2
done

# unpack PACKAGE: where its files are.
unpack() {
    local folder=$cache/firmware/$1
    if [ ! -e "$folder/complete" ] || [ "$cache/apt/lists/complete" -nt "$folder/complete" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        (cd "$folder" && APT_CONFIG=$cache/apt/apt.conf thrice apt-get -qq download "$1" >&2)
        dpkg-deb --extract "$folder"/*.deb "$folder"
        dpkg-deb --showformat '${Package} ${Version} ${Architecture}\n' --show "$folder"/*.deb >"$folder/complete"
        rm "$folder"/*.deb
    fi
    echo "$folder"
}

if [ -n "$virt" ]; then
    cp "$(unpack u-boot-qemu)/usr/lib/u-boot/qemu_arm64/u-boot.bin" "$virt"
    # The second flash of this machine, of 64 MiB, as the Pi's uboot.env below.
    rm -f "${virt%.bin}.env"
    mkenvimage -s 0x40000 -o "${virt%.bin}.env" - <<'ENVIRONMENT'
bootdelay=-2
scriptaddr=0x40200000
devtype=virtio
devnum=0
bootcmd=virtio scan; load virtio 0:1 ${scriptaddr} boot.scr; source ${scriptaddr}; reset
ENVIRONMENT
    truncate -s 64M "${virt%.bin}.env"
    exit
fi

firmware=$(unpack raspi-firmware)/usr/lib/raspi-firmware
# The variants without camera stack or debugging are enough: U-Boot and Linux do the rest.
cp "$firmware"/{bootcode.bin,start.elf,fixup.dat,start4.elf,fixup4.dat} "$out/"
cp "$(unpack u-boot-rpi)/usr/lib/u-boot/rpi_arm64/u-boot.bin" "$out/"
cp "$dtb"/*.dtb "$out/"
cat >"$out/config.txt" <<'CONFIG'
arm_64bit=1
kernel=u-boot.bin
upstream_kernel=1
enable_uart=1
disable_splash=1
CONFIG
if [ "$rtc" = ds3231 ]; then
    mkdir -p "$out/overlays"
    cat >"$cache/ds3231.dts" <<'OVERLAY'
/dts-v1/;
/plugin/;
/ {
    compatible = "brcm,bcm2835";
    fragment@0 {
        target = <&i2c1>;
        __overlay__ {
            #address-cells = <1>;
            #size-cells = <0>;
            status = "okay";
            rtc@68 {
                compatible = "maxim,ds3231";
                reg = <0x68>;
            };
        };
    };
};
OVERLAY
    dtc -q -@ -I dts -O dtb -o "$out/overlays/door-ds3231.dtbo" "$cache/ds3231.dts"
    echo 'dtoverlay=door-ds3231' >>"$out/config.txt"
fi
# Without USB and without a pause for keys, so that nobody stops the start from outside.
mkenvimage -s 0x4000 -o "$out/uboot.env" - <<'ENVIRONMENT'
bootdelay=-2
scriptaddr=0x02400000
devtype=mmc
bootcmd=for devnum in 0 1 2; do if load mmc ${devnum}:1 ${scriptaddr} boot.scr; then source ${scriptaddr}; fi; done; reset
ENVIRONMENT
