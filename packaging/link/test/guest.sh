#!/bin/sh
# The test of the link's package inside the emulated board, run as root after the boot, with
# the package beside it. The door's package is not installed. Prints lines `ok NAME` and
# `not ok NAME`.
. "$(dirname "$0")/checks.sh"
configuration=/etc/facelatch/link.toml
unit=facelatch-link.service
office=/var/lib/facelatch-office
install_link() { apt-get install -qq -y --no-install-recommends "$here/link.deb"; }
status_says() { facelatch-link status 2>&1 | grep -qF -- "$1"; }
processes() { find /proc -maxdepth 1 \( -user facelatch-link -o -user facelatch-office \); }
# reached NAME STATE: passes if a program in the place of the service reaches its folder STATE
# and nothing else.
reached() {
    cp "$here/probe.sh" /srv/
    sed -e '/^\(ExecCondition\|Restart\|RestartSec\|WatchdogSec\|Type\|ExecStart\)=/d' \
        -e "s|^\[Service\]|&\nType=oneshot\nExecStart=/bin/sh /srv/probe.sh $2|" \
        "/usr/lib/systemd/system/$unit" >"/run/systemd/system/probe-$unit"
    systemctl daemon-reload
    systemctl start "probe-$unit"
    equal "$1" "$(journalctl --boot --unit="probe-$unit" --output=cat SYSLOG_IDENTIFIER=sh)" probed
    rm -r /srv/probe.sh "/run/systemd/system/probe-$unit"
    systemctl daemon-reload
}

is "the package is installed" install_link
is "its files are as they were packed" test -z "$(dpkg --verify facelatch-link)"
equal "the user cannot log in" "$(getent passwd facelatch-link | cut -d: -f7)" /usr/sbin/nologin
is "the group of the door's socket is there" getent group facelatch
equal "only root and the service read the configuration" \
    "$(stat -c '%U:%G %a' $configuration)" "root:facelatch-link 640"
equal "and the folder of secrets" "$(stat -c '%U:%G %a' /etc/facelatch/link)" "root:facelatch-link 2750"
sandboxed
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

# What a program in its place must not see.
mkdir -p /var/lib/facelatch /var/lib/facelatch-register /run/facelatch
chmod 755 /var/lib/facelatch
echo "a camera's password" >/etc/facelatch/facelatch.toml
chmod 644 /etc/facelatch/facelatch.toml
systemctl stop $unit
equal "it ends well" "$(property Result)" success
reached "the sandbox lets nothing else through" /var/lib/facelatch-link
systemctl start $unit

# The office of a site, as connect.md sets it up.
unit=facelatch-office.service
sandboxed
is "the office is not enabled" not systemctl is-enabled $unit
is "a site is made" facelatch-link site init
key=$(sha256sum $office/site.key)
is "the office is started" systemctl enable --now $unit
process=$(property MainPID)
equal "it runs as its user" "$(stat -c %U "/proc/$process")" facelatch-office
equal "the site's key is that user's alone" \
    "$(stat -c '%U %a' $office $office/site.key | tr '\n' ' ')" "facelatch-office 700 facelatch-office 600 "
is "it says that it does not reach the broker" within 60 told "no connection to the broker"
is "its status shows it" sh -c "systemctl status $unit | grep -q 'no connection to the broker'"
is "a command of root goes through it" facelatch-link site people
is "a new data key is made" facelatch-link site rotate
umask 077
printf '[groups.staff]\n' >/root/rules.toml
echo "a set" >/root/set.tar
umask 022
is "it takes rules of root's" facelatch-link site policy /root/rules.toml
is "and models of root's, which it cannot see" facelatch-link site models /root/set.tar --version 2027.1
is "a door may join" sh -c \
    "timeout --signal=INT 10 facelatch-link site admit --door front | grep -q 'facelatch site join '"
is "no order is left" within 10 sh -c "test -z \"\$(ls -A $office/orders)\""
echo "    memory: $(($(property MemoryCurrent) / 1024)) KiB"
sleep 25
equal "it has not been started again meanwhile" "$(property MainPID) $(property NRestarts)" "$process 0"
kill -9 "$process"
is "killed, it comes back as another process" within 60 active_as_other_than "$process"

systemctl stop $unit
equal "it ends well" "$(property Result)" success
is "without it a command keeps its result until the broker is back" sh -c \
    "facelatch-link site rotate 2>&1 | grep -q 'The office has kept it'"
chown root:root $office/*
systemctl start mosquitto.service
sed -i 's|^url = .*|url = "mqtt://127.0.0.1:1883"|; s|^password_file = .*|password_file = "facelatch-link.password"|' \
    $configuration
mkdir -p /etc/credstore.encrypted
systemd-creds encrypt --name=facelatch-link.password /etc/facelatch/link/password \
    /etc/credstore.encrypted/facelatch-link.password 2>/dev/null
is "it starts with files that root wrote, and a password of systemd's store" systemctl start $unit
is "it reaches a broker" within 60 told "connected to the broker"
is "and commands go through it" facelatch-link site doors
is "nothing failed" nothing_failed
reached "its sandbox lets nothing else through" $office
systemctl stop mosquitto.service
rm -rf /root/rules.toml /root/set.tar /etc/credstore.encrypted/facelatch-link.password \
    /var/lib/facelatch /var/lib/facelatch-register /etc/facelatch/facelatch.toml
sed -i 's|^password_file = .*|password_file = "/etc/facelatch/link/password"|' $configuration

before=$(sha256sum $configuration)
is "the package is removed" apt-get remove -qq -y facelatch-link
equal "no process of the link or the office is left" "$(processes)" ""
equal "the configuration stays" "$(sha256sum $configuration)" "$before"
is "it is installed again" install_link
is "the office runs with what had stayed" systemctl start $unit
unit=facelatch-link.service
is "and so does the link" within 60 active
purged=$(apt-get purge -y facelatch-link 2>&1)
is "the package is purged" not test -e /usr/lib/systemd/system/$unit
equal "no process is left of it, either" "$(processes)" ""
is "it says that the site's key stays" test "${purged#*$office stays}" != "$purged"
equal "it does" "$(sha256sum $office/site.key)" "$key"
equal "nothing else is left but the users" "$(remains)" $office
is "and nothing failed" nothing_failed
echo end
systemctl poweroff 2>/dev/null
