# fetch.sh: functions for other scripts to source. Downloads are tried three times, because
# networks and mirrors fail now and then.

# thrice COMMAND...: tries up to three times, with pauses.
thrice() {
    local pause
    for pause in 15 60; do
        "$@" && return
        echo "failed, and tried once more in $pause s: $*" >&2
        sleep "$pause"
    done
    "$@"
}

# debian [OPTION]... PACKAGE...: installs packages, after waiting for other installations.
debian() {
    thrice debian_once "$@"
}

debian_once() {
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
    # A mirror that is not needed may be unreachable.
    "${apt[@]}" update || true
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y "$@"
}

# cannot REASON: exits with 3, because this machine cannot be set up.
cannot() {
    echo "${0##*/}: cannot be set up here: $1" >&2
    exit 3
}

# debian_or_cannot PACKAGE...: like debian, without recommended packages. Exits with 3 if
# this machine cannot install them, so that the caller may skip its test.
debian_or_cannot() {
    local package
    command -v apt-get >/dev/null || cannot "$* is missing, and this is no Debian"
    [ "$(id -u)" = 0 ] || cannot "$* is missing, and only root may install it"
    if debian --no-install-recommends "$@"; then
        return
    fi
    for package in "$@"; do
        # If not even dpkg is listed, the package lists are missing: a network fault.
        if [ -n "$(apt-cache madison dpkg)" ] && [ -z "$(apt-cache madison "$package")" ]; then
            cannot "there is no package $package"
        fi
    done
    return 1
}
