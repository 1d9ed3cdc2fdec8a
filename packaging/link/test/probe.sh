# probe.sh FOLDER: prints what a program in a service's sandbox reaches besides FOLDER, the
# service's own.
for path in /etc /usr /srv /var /root /home /run/facelatch /etc/facelatch /etc/facelatch/link; do
    touch "$path/probe" 2>/dev/null && echo "writes to $path"
done
touch "$1/probe" || echo "cannot write its state"
for path in /etc/shadow /var/lib/facelatch-link/* /var/lib/facelatch-office/site.key; do
    case $path in "$1"/*) continue ;; esac
    cat "$path" >/dev/null 2>&1 && echo "reads $path"
done
ls /var/lib/facelatch >/dev/null 2>&1 && echo "sees the door's people"
grep -qs password /etc/facelatch/facelatch.toml && echo "reads the door's configuration"
cat /etc/facelatch/link/password >/dev/null || echo "cannot read its password"
[ -e /dev/vda ] || [ -e /dev/gpiochip0 ] || [ -e /dev/kmsg ] && echo "sees devices"
[ "$(awk '/^CapBnd/ { print $2 }' /proc/self/status)" = 0000000000000000 ] || echo "has capabilities"
[ "$(grep -c NoNewPrivs:.1 /proc/self/status)" = 1 ] || echo "may gain privileges"
unshare --user true 2>/dev/null && echo "makes namespaces"
[ -d /proc/1 ] && echo "sees others' processes"
rm -f "$1/probe"
echo probed
