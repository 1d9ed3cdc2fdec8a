#!/usr/bin/env bash
# Installs the CPU build of libtorch 2.11.0, which tch 0.24 links to, from Python wheels.
#
#   tools/setup-libtorch.sh [DEST]      default: .libtorch beside Cargo.toml
#
# Needs python3 with pip, 2 GB of disk while it runs and 0.5 GB afterwards. Does
# nothing if DEST is already complete. With a GPU, set LIBTORCH to the folder of a
# Python torch 2.11.0 instead; it takes precedence over DEST.
set -euo pipefail

version=2.11.0+cpu-from-wheels-1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dest=${1:-$root/.libtorch}
. "$root/tools/fetch.sh"

if [ "$(cat "$dest/build-version" 2>/dev/null || true)" = "$version" ]; then
    exit 0
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "setup-libtorch: only Linux x86_64 is laid out here, this is $(uname -sm); export LIBTORCH with the folder of a libtorch 2.11.0" >&2
    exit 1
fi

# Never remove a folder that this script did not create.
if [ -e "$dest" ] && [ ! -e "$dest/build-version" ] && [ -n "$(ls -A "$dest")" ]; then
    echo "setup-libtorch: $dest is not empty and no libtorch of ours; name another folder" >&2
    exit 1
fi

# In the same folder as the target, so that the last step is a rename: all or nothing.
mkdir -p "$(dirname "$dest")"
work=$(mktemp -d "$(dirname "$dest")/.libtorch-setup.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The wheel's libtorch_cpu.so needs libcudart and libcupti to load, even without
# a GPU. The digests are those of the wheels that were tested.
cat > "$work/requirements.txt" <<'R'
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
R
echo "setup-libtorch: fetching libtorch 2.11.0 (about 550 MB)" >&2
thrice python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir \
    --only-binary=:all: --require-hashes \
    --python-version 3.11 --implementation cp --abi cp311 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --dest "$work/wheels" --requirement "$work/requirements.txt"

python3 - "$work/wheels" "$work/libtorch" <<'P'
import pathlib, shutil, sys, zipfile

wheels, out = map(pathlib.Path, sys.argv[1:])
wanted = {"libtorch_cpu.so", "libtorch.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}
for wheel in sorted(wheels.glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = pathlib.PurePosixPath(member.filename)
            if member.is_dir():
                continue
            if path.parent.name == "lib" and path.name in wanted:
                target = out / "lib" / path.name
            elif path.parts[:2] == ("torch", "include"):
                target = out.joinpath(*path.parts[1:])
            elif path.name in ("LICENSE", "NOTICE") or "licenses" in path.parts:
                target = out / "licenses" / wheel.name.split("-")[0] / path.name
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
missing = wanted - {p.name for p in (out / "lib").iterdir()}
if missing:
    sys.exit(f"setup-libtorch: the wheels lack {', '.join(sorted(missing))}")
P

echo "$version" > "$work/libtorch/build-version"
rm -rf "$dest"
mv "$work/libtorch" "$dest"
echo "setup-libtorch: ready in $dest" >&2
