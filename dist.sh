#!/usr/bin/env bash
# Builds the programs for 64-bit boards: the door as one static file with the models in it,
# and the link, with link-time optimization. Takes about ten minutes. Prints their sizes and
# tries them on an emulated processor.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/fetch.sh
target=aarch64-unknown-linux-musl

# The camera bindings are generated from the kernel's headers with libclang.
if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null \
    || ! ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1; then
    debian gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static libclang1
fi
thrice rustup target add "$target"
cargo build --profile dist --target "$target" --features device
binary=${CARGO_TARGET_DIR:-target}/$target/dist/facelatch
echo "$binary: $(stat -c %s "$binary") bytes"
qemu-aarch64-static -cpu cortex-a76 "$binary" detect assets/astronaut.jpg
cargo build --profile dist --target "$target" --package facelatch-link
link=${CARGO_TARGET_DIR:-target}/$target/dist/facelatch-link
echo "$link: $(stat -c %s "$link") bytes"
qemu-aarch64-static -cpu cortex-a76 "$link" config example >/dev/null
