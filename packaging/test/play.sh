# play.sh: what test.sh and link/test.sh share, to source in the repository's root. Makes
# `work`, a folder that goes at the end, and `share` in it, which the guest sees.
. tools/fetch.sh
cache=${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/debian-arm64

if ! command -v qemu-system-aarch64 >/dev/null || ! command -v python3 >/dev/null; then
    debian --no-install-recommends qemu-system-arm python3
fi
packaging/test/root.sh "$cache"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
share=$work/share
mkdir -p "$share"

# play GUEST: runs the test GUEST on the emulated board and counts its results. Fails if one
# of them is a failure, or the board goes off too early.
play() {
    local passed failed
    cp "$1" "$share/guest.sh"
    cp packaging/test/checks.sh "$share/"
    cp --sparse=always "$cache/root.ext4" "$work/disk"
    python3 packaging/test/boot.py "$cache" "$work/disk" "$share" "${FACELATCH_PACKAGE_SECONDS:-3600}" || {
        tail -50 "$share/console"
        exit 1
    }
    passed=$(grep -c '^ok ' "$share/output" || true)
    failed=$(grep -c '^not ok ' "$share/output" || true)
    if ! grep -qx end "$share/output"; then
        tail -50 "$share/console"
        echo "the board went off before it was done"
        failed=$((failed + 1))
    fi
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
}
