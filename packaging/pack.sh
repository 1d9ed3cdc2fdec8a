# pack.sh: what build.sh and link/build.sh share, to source in the repository's root. Sets
# `failed` if a check fails; `checked` ends the script by it.
. tools/fetch.sh
target=aarch64-unknown-linux-musl
cache=${XDG_CACHE_HOME:-$HOME/.cache}/facelatch
failed=0

# given [--binary FILE]: sets `binary` to FILE, or to nothing. Installs the tools.
given() {
    case "${1:-}" in
    --binary) binary=$(realpath "$2") ;;
    "") binary= ;;
    *)
        sed -n '2,3s/^# //p' "$0" >&2
        exit 2
        ;;
    esac
    local tool
    for tool in dpkg-deb lintian qemu-aarch64-static; do
        if ! command -v "$tool" >/dev/null; then
            debian --no-install-recommends dpkg-dev lintian qemu-user-static
        fi
    done
    if ! cargo deb --version >/dev/null 2>&1; then
        CARGO_TARGET_DIR=$cache/cargo-deb thrice cargo install --locked --version 3.8.0 cargo-deb
    fi
}

# pack NAME FEATURES FOLDER CONFIGURATION [EXAMPLE]: builds the package NAME of `binary` in
# target/FOLDER and shows what it holds. Its CONFIGURATION is EXAMPLE, or the program's own
# example, so that it lists every key of this version. Sets `package` and `contents`.
pack() {
    local name=$1 features=$2 made=$PWD/target/$3 configuration=$4 example=${5:-} version
    rm -rf "$made"
    mkdir -p "$made/$target/dist"
    cp "$binary" "$made/$target/dist/$name"
    if [ -n "$example" ]; then
        cp "$example" "$made/$configuration"
    else
        qemu-aarch64-static "$binary" config example >"$made/$configuration"
    fi
    version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
    cat >"$made/changelog" <<CHANGES
$name ($version-1) unstable; urgency=medium

  * See changelog.gz.

 -- Facelatch authors <authors@facelatch.example>  $(git log -1 --format=%cD 2>/dev/null || date -R)
CHANGES
    gzip -9nc CHANGELOG.md >"$made/changelog.gz"
    python3 packaging/licences.py "$target" "$features" "$name" | gzip -9n >"$made/licences.gz"

    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
    CARGO_TARGET_DIR=$made cargo deb --quiet --no-build --no-strip --package "$name" \
        --target "$target" --profile dist --output "$made/" >/dev/null
    package=$(ls "$made/${name}"_*_arm64.deb)

    dpkg-deb --info "$package"
    contents=$(dpkg-deb --contents "$package")
    echo "$contents"
    has "etc/facelatch/${configuration//./\\.}" -rw-r--r--
    if [ "$(dpkg-deb --field "$package" Architecture)" != arm64 ] ||
        [ "$(dpkg-deb --info "$package" conffiles)" != "/etc/facelatch/$configuration" ]; then
        wrong "not for arm64, or its configuration is no conffile"
    fi
    local script
    for script in postinst prerm postrm; do
        dpkg-deb --info "$package" "$script" | sh -n || failed=1
    done
    lintian --fail-on error,warning "$package" || failed=1
}

# wrong TEXT: the package is not as it should be.
wrong() {
    echo "$package: $1" >&2
    failed=1
}

# has PATH MODE: fails unless the package has this file, owned by root.
has() {
    grep -qE "^$2 (root/root|0/0) .* \./$1$" <<<"$contents" || wrong "no $1 of $2, owned by root"
}

# documents FILE...: fails unless they are in the package's folder of documents.
documents() {
    local document
    for document in copyright changelog.gz changelog.Debian.gz licences.gz "$@"; do
        has "usr/share/doc/$(dpkg-deb --field "$package" Package)/${document//./\\.}" -rw-r--r--
    done
}

# checked: prints where the package is, unless a check failed.
checked() {
    [ "$failed" = 0 ] || exit 1
    echo "$package: $(stat -c %s "$package") bytes"
}
