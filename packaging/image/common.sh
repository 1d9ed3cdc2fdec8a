# Functions that the image's scripts share. To be sourced, after tools/fetch.sh.
PATH=$PATH:/usr/sbin:/sbin

# step TEXT: what is done now, with the seconds since the start.
step() {
    printf '%4d s  %s\n' "$SECONDS" "$*" >&2
}

# fault TEXT: ends with 2, which is what can be corrected on the command line.
fault() {
    echo "$*" >&2
    exit 2
}

# needs PROGRAM PACKAGE...: notes the packages of a program that is missing.
missing=()
needs() {
    command -v "$1" >/dev/null || missing+=("${@:2}")
}

# Installs what was noted, or names it.
install_needed() {
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        debian --no-install-recommends "${missing[@]}" >&2
        missing=()
    else
        fault "these packages are missing: apt install ${missing[*]}"
    fi
}

# What is packed must belong to root, also when another user packs it.
asroot() {
    if [ "$(id -u)" = 0 ]; then "$@"; else unshare --map-root-user "$@"; fi
}
