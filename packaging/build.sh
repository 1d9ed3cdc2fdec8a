#!/usr/bin/env bash
# build.sh [--binary FILE]: builds the Debian package for 64-bit boards from FILE, or from
# a binary built by dist.sh. Checks the package and prints where it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/fetch.sh
target=aarch64-unknown-linux-musl
features=device
cache=${XDG_CACHE_HOME:-$HOME/.cache}/facelatch
made=$PWD/target/package

binary=
case "${1:-}" in
--binary) binary=$(realpath "$2") ;;
"") ;;
*)
    sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

for tool in dpkg-deb lintian qemu-aarch64-static; do
    if ! command -v "$tool" >/dev/null; then
        debian --no-install-recommends dpkg-dev lintian qemu-user-static
    fi
done
if ! cargo deb --version >/dev/null 2>&1; then
    CARGO_TARGET_DIR=$cache/cargo-deb thrice cargo install --locked --version 3.8.0 cargo-deb
fi
if [ -z "$binary" ]; then
    ./dist.sh
    binary=$(realpath "${CARGO_TARGET_DIR:-target}/$target/dist/facelatch")
fi

rm -rf "$made"
mkdir -p "$made/$target/dist"
cp "$binary" "$made/$target/dist/facelatch"
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

# /etc/facelatch/facelatch.toml is the program's own example, so that it lists every key of
# this version. FACELATCH_EXAMPLE names a file to use instead.
if [ -n "${FACELATCH_EXAMPLE:-}" ]; then
    cp "$FACELATCH_EXAMPLE" "$made/facelatch.toml"
else
    qemu-aarch64-static "$binary" config example >"$made/facelatch.toml"
fi

cat >"$made/changelog" <<CHANGES
facelatch ($version-1) unstable; urgency=medium

  * See changelog.gz.

 -- Facelatch authors <authors@facelatch.example>  $(git log -1 --format=%cD 2>/dev/null || date -R)
CHANGES
gzip -9nc CHANGELOG.md >"$made/changelog.gz"
python3 packaging/licences.py "$target" "$features" | gzip -9n >"$made/licences.gz"

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
CARGO_TARGET_DIR=$made cargo deb --quiet --no-build --no-strip --target "$target" \
    --profile dist --output "$made/" >/dev/null
package=$(ls "$made"/facelatch_*_arm64.deb)

dpkg-deb --info "$package"
contents=$(dpkg-deb --contents "$package")
echo "$contents"
failed=0
# has PATH MODE: fails unless the package has this file, owned by root.
has() {
    if ! grep -qE "^$2 (root/root|0/0) .* \./$1$" <<<"$contents"; then
        echo "$package: no $1 of $2, owned by root" >&2
        failed=1
    fi
}
has usr/bin/facelatch -rwxr-xr-x
has usr/lib/facelatch/configured -rwxr-xr-x
has usr/bin/facelatch-update -rwxr-xr-x
has usr/lib/facelatch/boot-slot -rwxr-xr-x
has 'usr/lib/systemd/system/facelatch\.service' -rw-r--r--
has 'usr/lib/sysusers\.d/facelatch\.conf' -rw-r--r--
has 'usr/lib/tmpfiles\.d/facelatch\.conf' -rw-r--r--
has 'usr/lib/udev/rules\.d/70-facelatch\.rules' -rw-r--r--
has 'etc/facelatch/facelatch\.toml' -rw-r--r--
for document in copyright changelog.gz changelog.Debian.gz licences.gz models.md install.md audit.md image.md wiring.svg; do
    has "usr/share/doc/facelatch/${document//./\\.}" -rw-r--r--
done
if [ "$(dpkg-deb --field "$package" Architecture)" != arm64 ] ||
    [ "$(dpkg-deb --info "$package" conffiles)" != /etc/facelatch/facelatch.toml ]; then
    echo "$package: not for arm64, or its configuration is no conffile" >&2
    failed=1
fi
for script in postinst prerm postrm; do
    dpkg-deb --info "$package" "$script" | sh -n || failed=1
done
lintian --fail-on error,warning "$package" || failed=1
[ "$failed" = 0 ] || exit 1
echo "$package: $(stat -c %s "$package") bytes"
