#!/usr/bin/env bash
# What is flashed on a 64-bit board: one static file with the models in it, optimized as
# a whole. Takes some ten minutes. Prints its size and shows that it runs, on an emulated
# board.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/fetch.sh
target=aarch64-unknown-linux-musl

# The bindings of cameras are made from the kernel's headers, which libclang reads.
if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null \
    || ! ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1; then
    debian gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static libclang1
fi
thrice rustup target add "$target"
cargo build --profile dist --target "$target" --features device
binary=${CARGO_TARGET_DIR:-target}/$target/dist/facelatch
echo "$binary: $(stat -c %s "$binary") bytes"
qemu-aarch64-static -cpu cortex-a76 "$binary" detect assets/astronaut.jpg
