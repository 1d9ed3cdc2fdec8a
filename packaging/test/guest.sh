#!/bin/sh
# The package's test inside the emulated board, run as root after the boot. Prints lines
# `ok NAME` and `not ok NAME`. Beside this file are old.deb, new.deb (one version later, with
# a different example configuration) and frames/. Requests to the host go into the file
# `ask`, which the host empties when done.
. "$(dirname "$0")/checks.sh"
unit=facelatch.service
stage=$(cat /var/tmp/stage 2>/dev/null || echo 1)
configuration=/etc/facelatch/facelatch.toml
gallery=/var/lib/facelatch/gallery.redb
ask() {
    echo "$1" >"$here/ask"
    within 120 not test -s "$here/ask"
}
install() { apt-get install -qq -y -o Dpkg::Options::=--force-confold "$here/$1"; }
as_service() { runuser -u facelatch -- "$@"; }
knows_ada() { "$@" facelatch people list | grep -q '^Ada Lovelace'; }
relay_is_there() { [ -c /dev/facelatch/relay ]; }

first_boot() {
    is "the package is installed" install old.deb
    is "its files are as they were packed" test -z "$(dpkg --verify facelatch)"
    equal "the user cannot log in" "$(getent passwd facelatch | cut -d: -f6-)" \
        /var/lib/facelatch:/usr/sbin/nologin
    equal "the user has the groups of the devices alone" \
        "$(id -Gn facelatch | tr ' ' '\n' | sort | tr '\n' ' ')" "dialout facelatch gpio video "
    equal "only the service may look at the gallery" \
        "$(stat -c '%U:%G %a' /var/lib/facelatch)" "facelatch:facelatch 700"
    equal "and at the register" \
        "$(stat -c '%U:%G %a' /var/lib/facelatch-register)" "facelatch:facelatch 700"
    equal "the configuration belongs to root, and the service reads it" \
        "$(stat -c '%U:%G %a' $configuration)" "root:facelatch 640"
    sandboxed
    is "the service is enabled" systemctl is-enabled facelatch.service
    equal "nothing starts before camera and relay are named" \
        "$(property ActiveState) $(property Result)" "inactive exec-condition"
    is "the log says what is missing" told "names no camera and relay"
    is "which is no failure" nothing_failed
    equal "GPIO is for its group" "$(stat -c '%G %a' /dev/gpiochip0)" "gpio 660"

    cp -r "$here/frames" /srv/
    cat >$configuration <<CONFIGURATION
# Edited.
[camera]
uri = "images:/srv/frames/*.png?fps=1&loop"
[relay]
uri = "log:"
CONFIGURATION
    if ! grep -q NOTIFY_SOCKET /usr/bin/facelatch; then
        echo "    this binary does not tell systemd that it is ready: tested as Type=exec"
        mkdir -p /run/systemd/system/facelatch.service.d /etc/systemd/system/facelatch.service.d
        printf '[Service]\nType=exec\nWatchdogSec=0\n' \
            >/etc/systemd/system/facelatch.service.d/test.conf
        systemctl daemon-reload
    fi
    is "it starts once they are" systemctl restart facelatch.service
    process=$(property MainPID)
    equal "it runs as its user" "$(stat -c %U "/proc/$process")" facelatch
    is "it watches its camera" within 120 told " people, "
    is "somebody is enrolled as the service" \
        as_service facelatch enroll "Ada Lovelace" --image /srv/frames/ada.jpg
    is "the service's user sees them" knows_ada as_service
    is "root sees the same gallery" knows_ada env
    equal "the gallery is the service's alone" "$(stat -c '%U %a' $gallery)" "facelatch 600"
    is "it takes the newcomer in" within 120 told "gallery: 1 people"
    equal "it has not been started again meanwhile" "$(property NRestarts)" 0
    echo "    memory: $(($(property MemoryCurrent) / 1048576)) MiB"
    if grep -q NOTIFY_SOCKET /usr/bin/facelatch; then
        is "it is told to read its configuration anew" systemctl reload facelatch.service
        is "it does" within 120 told "configuration: reloaded"
        equal "and goes on" "$(property MainPID)" "$process"
    fi
    chown root:root $gallery
    kill -9 "$process"
    is "killed, it comes back as another process" within 120 active_as_other_than "$process"
    equal "with a gallery that root had taken" "$(stat -c %U $gallery)" facelatch
    is "and its relay was released meanwhile" \
        told "relay of the last start: log is off, the door is locked"
    process=$(property MainPID)
    cat $configuration >/run/whole
    echo "[broken" >>$configuration
    kill -9 "$process"
    is "with a broken configuration it locks first and says what is broken" \
        within 120 told "the door cannot start; relay of the last start: log is off"
    is "which it does" told "not valid TOML"
    cat /run/whole >$configuration
    is "once it is mended the door runs" within 120 active_as_other_than "$process"
    is "a service that runs keeps its relay" sh -c \
        "runuser -u facelatch -- facelatch door release-relay | grep -q 'a service runs'"

    sandbox
    upgrade
    echo 2 >/var/tmp/stage
    systemctl reboot 2>/dev/null
}

# Runs a probe in the service's unit, to test what the door's program can reach.
sandbox() {
    cat >/srv/probe.sh <<'PROBE'
opens() { dd if="$1" of=/dev/null count=0 iflag=nonblock status=none; }
: >/run/facelatch/started
until [ -e /var/lib/facelatch/go ]; do sleep 1; done
for path in /etc /usr /srv /var /root /home; do
    touch "$path/probe" 2>/dev/null && echo "writes to $path"
done
touch /var/lib/facelatch/probe || echo "cannot write where people are kept"
opens /dev/facelatch/relay || echo "cannot open a relay plugged in later"
opens /dev/facelatch/camera || echo "cannot open a camera plugged in later"
opens /dev/gpiochip0 || echo "cannot open GPIO"
opens /dev/kmsg 2>/dev/null && echo "opens the kernel's log"
[ "$(sed 1,2d /proc/net/dev | grep -vc ' lo:')" = 0 ] || echo "sees the network"
[ "$(grep -c NoNewPrivs:.1 /proc/self/status)" = 1 ] || echo "may gain privileges"
[ "$(awk '/^CapBnd/ { print $2 }' /proc/self/status)" = 0000000000000000 ] || echo "has capabilities"
unshare --user true 2>/dev/null && echo "makes namespaces"
date --set=2001-01-01 >/dev/null 2>&1 && echo "sets the clock"
[ "$(ls -d /proc/1 2>/dev/null)" ] && echo "sees others' processes"
echo probed
PROBE
    sed -e '/^\(ExecCondition\|ExecReload\|Restart\|RestartSec\|WatchdogSec\|Type\|ExecStart\)=/d' \
        -e 's/^\[Service\]/&\nType=oneshot\nExecStart=+\/bin\/sh -c "head -c1 \/dev\/vda >\/dev\/null 2>\&1 \&\& echo root reads the disk; true"\nExecStart=\/bin\/sh \/srv\/probe.sh/' \
        /usr/lib/systemd/system/facelatch.service >/run/systemd/system/probe.service
    systemctl stop facelatch.service
    mkdir -p /run/udev/rules.d
    systemctl daemon-reload
    systemctl start --no-block probe.service
    within 120 test -e /run/facelatch/started
    # Both are plugged in while the service runs. The camera is the kernel's test device,
    # which a rule declares to be on USB.
    echo 'SUBSYSTEM=="video4linux", ENV{ID_BUS}="usb"' >/run/udev/rules.d/69-test.rules
    udevadm control --reload
    modprobe vivid n_devs=1 node_types=0x1
    ask plug
    is "a relay has its name" within 120 relay_is_there
    equal "and its group" "$(stat -L -c '%G %a' /dev/facelatch/relay)" "dialout 660"
    is "a camera has its name" within 120 test -c /dev/facelatch/camera
    equal "and its group, too" "$(stat -L -c %G /dev/facelatch/camera)" video
    touch /var/lib/facelatch/go
    within 120 not systemctl is-active --quiet probe.service
    within 120 sh -c 'journalctl --boot --unit=probe.service --output=cat | grep -qx probed'
    equal "the sandbox lets the door's devices through and nothing else" \
        "$(journalctl --boot --unit=probe.service --output=cat SYSLOG_IDENTIFIER=sh)" probed
    ask unplug
    is "a relay that is gone has no name" within 120 not relay_is_there
    ask plug
    is "plugged in again it has" within 120 relay_is_there
    rm -f /var/lib/facelatch/go /var/lib/facelatch/probe
    systemctl start facelatch.service
}

upgrade() {
    before=$(cat $configuration)
    process=$(property MainPID)
    is "the next version is installed" install new.deb
    equal "an edited configuration stays" "$(cat $configuration)" "$before"
    is "the new example lies beside it" test -e $configuration.dpkg-dist
    is "the door runs again, in the new version" within 120 active_as_other_than "$process"
    is "everybody is still enrolled" knows_ada as_service
    systemctl disable --quiet --now facelatch.service
    install new.deb >/dev/null 2>&1
    is "a service that was disabled stays so" not systemctl is-enabled facelatch.service
    is "and is not started" not active
    systemctl enable --quiet --now facelatch.service
    is "nothing failed" nothing_failed
}

second_boot() {
    is "the door runs after the board was started again" within 120 active
    is "and knows everybody" knows_ada as_service
    before=$(sha256sum $configuration)
    is "the package is removed" apt-get remove -qq -y facelatch
    is "the door has stopped" not active
    equal "no process is left" "$(find /proc -maxdepth 1 -user facelatch)" ""
    is "the program is gone" not test -e /usr/bin/facelatch
    is "people stay" test -s $gallery
    equal "and the configuration does" "$(sha256sum $configuration)" "$before"
    is "it is installed again" install new.deb
    is "and runs with what had stayed" within 120 active
    is "everybody is there" knows_ada as_service
    is "the package is purged" apt-get purge -qq -y facelatch
    is "people are gone" not test -e /var/lib/facelatch
    rm -rf /etc/systemd/system/facelatch.service.d
    is "and so is the configuration" not test -e /etc/facelatch
    equal "nothing is left but the user" "$(remains)" ""
    is "and nothing failed" nothing_failed
    install old.deb >/dev/null 2>&1
    sed -i 's/^/# /' $configuration && cp $configuration /tmp/ && apt-get purge -qq -y facelatch >/dev/null
    is "it can be installed anew" install old.deb
    is "an example that nobody edited" not grep -q "The next version" $configuration
    is "takes the next version" install new.deb
    is "and changes with it" grep -q "The next version" $configuration
    echo end
    systemctl poweroff 2>/dev/null
}

case "$stage" in
1) first_boot ;;
*) second_boot ;;
esac
