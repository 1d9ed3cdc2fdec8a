# The boot loader's script (U-Boot), on the Raspberry Pi and in QEMU. It takes one of two
# slots. What it decides by lies in sectors before the first partition, one per block of
# 4 KiB, so that a write that is cut off damages one of them alone:
#
#   block 8, 9   the slot that is good, twice (the second is written after the first)
#   block 10     a slot to try once
#   block 12, 13 how "good A" and "good B" look; 14, 15: "try A" and "try B"; 16: nothing
#
# A sector counts only if it is whole, byte for byte. To try a slot is forgotten before it is
# started, so whatever ends its start, the next one takes the good slot.
# packaging/update/boot-slot is the other side of this.
if test -z "${devtype}"; then setenv devtype mmc; fi
if test -z "${devnum}"; then setenv devnum 0; fi
if test "${devtype}" = virtio; then
    setenv state 0x48000000
    setenv kernel 0x4a000000
    setenv ramdisk 0x4e000000
    setenv tree ${fdtcontroladdr}
    setenv console ttyAMA0
else
    setenv state 0x09000000
    setenv kernel 0x0a000000
    setenv ramdisk 0x0e000000
    setenv tree ${fdt_addr}
    setenv console tty0
fi
setexpr second ${state} + 0x1000
setexpr try ${state} + 0x2000
setexpr good_a ${state} + 0x4000
setexpr good_b ${state} + 0x5000
setexpr try_a ${state} + 0x6000
setexpr try_b ${state} + 0x7000
setexpr nothing ${state} + 0x8000
setexpr again ${state} + 0x9000

${devtype} dev ${devnum}
${devtype} read ${state} 0x40 0x48

setenv good A
setenv other B
if cmp.b ${state} ${good_b} 0x200; then
    setenv good B
elif cmp.b ${state} ${good_a} 0x200; then
    setenv good A
elif cmp.b ${second} ${good_b} 0x200; then
    setenv good B
fi
if test ${good} = B; then setenv other A; fi

setenv wanted
if cmp.b ${try} ${try_a} 0x200; then setenv wanted A; fi
if cmp.b ${try} ${try_b} 0x200; then setenv wanted B; fi
if test -n "${wanted}"; then
    ${devtype} write ${nothing} 0x50 1
    ${devtype} read ${again} 0x50 1
    if cmp.b ${again} ${nothing} 0x200; then
        echo "slot ${wanted} is tried"
    else
        # A card that takes no writes would try for ever.
        setenv wanted
    fi
fi

for slot in ${wanted} ${good} ${other}; do
    if test ${slot} = A; then setenv part 2; else setenv part 3; fi
    echo "slot ${slot}"
    if load ${devtype} ${devnum}:${part} ${kernel} /vmlinuz && load ${devtype} ${devnum}:${part} ${ramdisk} /initrd.img; then
        setenv bootargs "root=PARTUUID=@SIGNATURE@-0${part} boot=slot rauc.slot=${slot} ro panic=10 console=${console} quiet loglevel=4 fsck.repair=yes net.ifnames=0 usbcore.authorized_default=0 sysrq_always_enabled=0 systemd.gpt_auto=0 @ARGUMENTS@"
        booti ${kernel} ${ramdisk}:${filesize} ${tree}
    fi
done
reset
