# fetch.sh: for other scripts to source. What comes from elsewhere is tried three times, for
# a network stumbles, and so does a mirror.

# thrice COMMAND...: until it succeeds, with pauses.
thrice() {
    local pause
    for pause in 15 60; do
        "$@" && return
        echo "failed, and tried once more in $pause s: $*" >&2
        sleep "$pause"
    done
    "$@"
}

# debian [OPTION]... PACKAGE...: installs packages, once nobody else installs any.
debian() {
    thrice debian_once "$@"
}

debian_once() {
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
    # A mirror that nothing is wanted of may be away.
    "${apt[@]}" update || true
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y "$@"
}

# cannot REASON: ends the script with 3: this machine lacks what nobody can fetch.
cannot() {
    echo "${0##*/}: cannot be set up here: $1" >&2
    exit 3
}

# debian_or_cannot PACKAGE...: the same as debian without what packages only recommend, for
# what is left out where it cannot be.
debian_or_cannot() {
    local package
    command -v apt-get >/dev/null || cannot "$* is missing, and this is no Debian"
    [ "$(id -u)" = 0 ] || cannot "$* is missing, and only root may install it"
    if debian --no-install-recommends "$@"; then
        return
    fi
    for package in "$@"; do
        # Where not even dpkg is on offer there are no lists, which is a network's fault.
        if [ -n "$(apt-cache madison dpkg)" ] && [ -z "$(apt-cache madison "$package")" ]; then
            cannot "there is no package $package"
        fi
    done
    return 1
}
