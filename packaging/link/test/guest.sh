#!/bin/sh
# The test of the link's package inside the emulated board, run as root after the boot, with
# the package beside it. The door's package is not installed. Prints lines `ok NAME` and
# `not ok NAME`.
here=$(dirname "$0")
configuration=/etc/facelatch/link.toml
unit=facelatch-link.service
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# is NAME COMMAND...: passes if the command succeeds.
is() {
    name=$1
    shift
    if said=$("$@" 2>&1); then
        echo "ok $name"
    else
        echo "not ok $name"
        echo "$*: $said" | sed 's/^/    /'
    fi
}
# equal NAME GOT WANTED: passes if both are the same.
equal() {
    if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: got \"$2\", not \"$3\""; fi
}
not() { ! "$@"; }
# within SECONDS COMMAND...: retries every second until it succeeds.
within() {
    left=$1
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || { "$@"; return; }
        sleep 1
    done
}
property() { systemctl show --value --property="$1" $unit; }
status_says() { facelatch-link status 2>&1 | grep -qF -- "$1"; }
active() { systemctl is-active --quiet $unit; }
active_as_other_than() { active && [ "$(property MainPID)" != "$1" ] && [ "$(property MainPID)" != 0 ]; }
nothing_failed() { [ -z "$(systemctl list-units --failed --plain --no-legend)" ]; }

is "the package is installed" apt-get install -qq -y --no-install-recommends "$here/link.deb"
is "its files are as they were packed" test -z "$(dpkg --verify facelatch-link)"
equal "the user cannot log in" "$(getent passwd facelatch-link | cut -d: -f7)" /usr/sbin/nologin
is "the group of the door's socket is there" getent group facelatch
equal "only root and the service read the configuration" \
    "$(stat -c '%U:%G %a' $configuration)" "root:facelatch-link 640"
equal "and the folder of secrets" "$(stat -c '%U:%G %a' /etc/facelatch/link)" "root:facelatch-link 2750"
is "the unit verifies" test -z "$(systemd-analyze verify $unit 2>&1)"
score=$(systemd-analyze security --no-pager $unit | sed -n 's/.*: \([0-9.]*\) .*/\1/p' | tail -1)
echo "    exposure $score of 10, by systemd-analyze security"
is "the sandbox is tight" awk "BEGIN { exit !(\"$score\" != \"\" && $score <= 2) }"
is "the service is enabled" systemctl is-enabled $unit
equal "nothing starts before a broker or webhook is named" \
    "$(property ActiveState) $(property Result)" "inactive exec-condition"
is "which is no failure" nothing_failed

install -m 640 -g facelatch-link /dev/null /etc/facelatch/link/password
echo "a password" >/etc/facelatch/link/password
cat >>$configuration <<CONFIGURATION
# Edited.
CONFIGURATION
sed -i 's|^\[mqtt\]|&\nurl = "mqtt://127.0.0.1:1"\nusername = "door"\npassword_file = "/etc/facelatch/link/password"|' $configuration
is "it starts once one is" systemctl restart $unit
process=$(property MainPID)
equal "it runs as its user" "$(stat -c %U "/proc/$process")" facelatch-link
is "with the group of the door's socket" \
    grep -qw "$(getent group facelatch | cut -d: -f3)" "/proc/$process/status"
is "it says that there is no door" within 30 status_says "link.sock: No such file"
echo "    memory: $(($(property MemoryCurrent) / 1024)) KiB"
sleep 25
equal "it has not been started again meanwhile" "$(property MainPID) $(property NRestarts)" "$process 0"
kill -9 "$process"
is "killed, it comes back as another process" within 60 active_as_other_than "$process"
process=$(property MainPID)
kill -STOP "$process"
is "stopped, systemd's watchdog restarts it" within 150 active_as_other_than "$process"

# What a program in its place could reach.
mkdir -p /var/lib/facelatch /var/lib/facelatch-register /run/facelatch
chmod 755 /var/lib/facelatch
cat >/srv/probe.sh <<'PROBE'
for path in /etc /usr /srv /var /root /home /run/facelatch /etc/facelatch /etc/facelatch/link; do
    touch "$path/probe" 2>/dev/null && echo "writes to $path"
done
touch /var/lib/facelatch-link/probe || echo "cannot write its state"
ls /var/lib/facelatch >/dev/null 2>&1 && echo "sees the door's people"
cat /etc/facelatch/link/password >/dev/null || echo "cannot read its password"
[ -e /dev/vda ] || [ -e /dev/gpiochip0 ] || [ -e /dev/kmsg ] && echo "sees devices"
[ "$(awk '/^CapBnd/ { print $2 }' /proc/self/status)" = 0000000000000000 ] || echo "has capabilities"
[ "$(grep -c NoNewPrivs:.1 /proc/self/status)" = 1 ] || echo "may gain privileges"
unshare --user true 2>/dev/null && echo "makes namespaces"
[ -d /proc/1 ] && echo "sees others' processes"
rm -f /var/lib/facelatch-link/probe
echo probed
PROBE
sed -e '/^\(ExecCondition\|Restart\|RestartSec\|WatchdogSec\|Type\|ExecStart\)=/d' \
    -e 's/^\[Service\]/&\nType=oneshot\nExecStart=\/bin\/sh \/srv\/probe.sh/' \
    /usr/lib/systemd/system/$unit >/run/systemd/system/probe.service
systemctl stop $unit
equal "it ends well" "$(property Result)" success
systemctl daemon-reload
systemctl start probe.service
equal "the sandbox lets nothing else through" \
    "$(journalctl --boot --unit=probe.service --output=cat SYSLOG_IDENTIFIER=sh)" probed
rm -rf /srv/probe.sh /run/systemd/system/probe.service /var/lib/facelatch /var/lib/facelatch-register
systemctl daemon-reload

before=$(sha256sum $configuration)
systemctl start $unit
is "the package is removed" apt-get remove -qq -y facelatch-link
equal "no process is left" "$(find /proc -maxdepth 1 -user facelatch-link)" ""
equal "the configuration stays" "$(sha256sum $configuration)" "$before"
is "it is installed again" apt-get install -qq -y --no-install-recommends "$here/link.deb"
is "and runs with what had stayed" within 60 active
is "the package is purged" apt-get purge -qq -y facelatch-link
equal "nothing is left but the user" \
    "$(find / -xdev -iname '*facelatch*' -not -path '/srv/*' -not -path '/proc/*' \
        -not -path '/var/log/*' -not -path '/dev/*' -not -path '/run/*' \
        -not -name 'facelatch-package-test*' -not -path '/etc/initramfs-tools/*')" ""
is "and nothing failed" nothing_failed
echo end
systemctl poweroff 2>/dev/null
