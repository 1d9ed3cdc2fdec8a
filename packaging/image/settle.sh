#!/bin/sh
# settle.sh ROOT SYSTEM: turns a Debian with the door's packages into a system that is never
# written: files of SYSTEM, services on and off, nothing that differs from build to build.
set -e
root=$1 system=$2
cp -R "$system/." "$root/"
find "$system" -mindepth 1 -printf '%P\n' | while read -r path; do
    chown -h 0:0 "$root/$path"
    if [ -d "$root/$path" ] || [ -x "$root/$path" ]; then chmod 755 "$root/$path"; else chmod 644 "$root/$path"; fi
done
chmod 440 "$root/etc/sudoers.d/door"

echo door >"$root/etc/hostname"
printf '127.0.0.1 localhost door\n::1 localhost door\n' >"$root/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
mkdir -p "$root/data" "$root/etc/facelatch" "$root/etc/credstore.encrypted" "$root/var/lib/facelatch" \
    "$root/var/lib/facelatch-register" "$root/var/lib/facelatch-link" "$root/var/lib/chrony" "$root/var/lib/systemd"

# Nobody has a password. admin comes in by ssh's key.
chroot "$root" useradd --uid 1000 --user-group --no-create-home --home-dir /home/admin \
    --shell /bin/bash --groups sudo,facelatch --password '*' admin
chroot "$root" usermod --password '*' root
rm -f "$root"/etc/ssh/ssh_host_*

mask() {
    for unit in "$@"; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
}
# No login anywhere but by ssh.
mask getty@.service serial-getty@.service console-getty.service container-getty@.service \
    autovt@.service getty.target debug-shell.service ctrl-alt-del.target
mkdir -p "$root/etc/systemd/system-generators"
ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-getty-generator"
# Nothing to update, to wait for or to write by itself.
mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    systemd-networkd-wait-online.service systemd-machine-id-commit.service systemd-firstboot.service \
    wpa_supplicant.service sshd-keygen.service ssh.socket rauc-mark-good.service \
    systemd-pcrlock-make-policy.service systemd-hibernate-clear.service
# No ssh by other ways than the network.
ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-ssh-generator"
for unit in systemd-networkd systemd-resolved ssh chrony door-settings door-confirm door-models facelatch; do
    chroot "$root" systemctl --quiet enable "$unit.service" >&2
done
if [ -e "$root/usr/lib/systemd/system/facelatch-link.service" ]; then
    mkdir -p "$root/etc/systemd/system/facelatch-link.service.d"
    printf '[Unit]\nConditionPathExists=/etc/facelatch/link.toml\nRequires=door-settings.service\nAfter=door-settings.service\nRequiresMountsFor=/etc/facelatch /var/lib/facelatch-link\n' \
        >"$root/etc/systemd/system/facelatch-link.service.d/door.conf"
    chroot "$root" systemctl --quiet enable facelatch-link.service >&2
fi

# /etc/facelatch lies on the data partition. The example stays readable.
if [ -e "$root/etc/facelatch/facelatch.toml" ]; then
    mv "$root/etc/facelatch/facelatch.toml" "$root/usr/share/doc/facelatch/example.toml"
    chmod 644 "$root/usr/share/doc/facelatch/example.toml"
fi

# The licences stay; other documents, caches and what differs between two builds goes.
find "$root/usr/share/doc" \( -type f -o -type l \) ! -name copyright ! -path '*/facelatch*/*' -delete
find "$root/usr/share/doc" -type d -empty -delete
rm -rf "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/usr/share/lintian \
    "$root"/var/cache/* "$root"/var/log/* "$root"/var/lib/apt/lists/* "$root"/var/tmp/* "$root"/tmp/* \
    "$root"/var/lib/systemd/* "$root"/etc/apt/sources.list "$root"/etc/.pwd.lock "$root"/var/lib/dpkg/*-old \
    "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- "$root"/etc/subuid- "$root"/etc/subgid-
{
    echo "system: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
    chroot "$root" dpkg-query --show --showformat '${Package}: ${Version}\n' 'facelatch*' linux-image-arm64 systemd rauc
} >"$root/etc/door-release"
# systemd sets the clock to no earlier than this file's date.
: >"$root/usr/lib/clock-epoch"
