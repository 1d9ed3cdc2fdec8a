# checks.sh: what the tests inside the emulated board share. They set `unit`, the service that
# these functions look at.
here=$(dirname "$0")
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
property() { systemctl show --value --property="$1" "$unit"; }
# told TEXT: whether the service logged it since the boot.
told() { journalctl --boot --unit="$unit" --output=cat | grep -qF -- "$1"; }
active() { systemctl is-active --quiet "$unit"; }
# active_as_other_than PROCESS: systemd reports a killed process as active for a moment, so
# this also requires a new process.
active_as_other_than() {
    active && [ "$(property MainPID)" != "$1" ] && [ "$(property MainPID)" != 0 ]
}
nothing_failed() { [ -z "$(systemctl list-units --failed --plain --no-legend)" ]; }
# sandboxed: the unit is correct and its sandbox is tight.
sandboxed() {
    is "the unit verifies" test -z "$(systemd-analyze verify "$unit" 2>&1)"
    score=$(systemd-analyze security --no-pager "$unit" | sed -n 's/.*: \([0-9.]*\) .*/\1/p' | tail -1)
    echo "    exposure $score of 10, by systemd-analyze security"
    is "the sandbox is tight" awk "BEGIN { exit !(\"$score\" != \"\" && $score <= 2) }"
}
# remains: files of the packages that are still on the board.
remains() {
    find / -xdev -iname '*facelatch*' -not -path '/srv/*' -not -path '/proc/*' \
        -not -path '/var/log/*' -not -path '/dev/*' -not -path '/run/*' \
        -not -name 'facelatch-package-test*' -not -path '/etc/initramfs-tools/*'
}
