#!/usr/bin/env bash
# Kernel and stage tests as ARM boards run them, on emulated processors: 64 bits with
# dot products of bytes (Cortex-A76: Pi 5) and without (Cortex-A72: Pi 4), 32 bits
# (Cortex-A7: Pi 2), whose kernels are plain Rust.
# Installs what it needs from Debian's packages where that is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v arm-linux-gnueabihf-gcc >/dev/null \
    || ! command -v qemu-aarch64-static >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
        gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static
fi

# tests TARGET CPU STAGE...
tests() {
    local target=$1 cpu=$2
    shift 2
    echo "$cpu"
    for stage in "$@"; do
        QEMU_CPU=$cpu cargo test --quiet --release --target "$target" -p facelatch --lib -- "$stage"
    done
}

for target in aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf; do
    rustup target add "$target"
    cargo test --release --target "$target" -p facelatch --lib --no-run
done
for cpu in cortex-a72 cortex-a76; do
    tests aarch64-unknown-linux-gnu "$cpu" nn:: detect:: resample:: align::
done
tests armv7-unknown-linux-gnueabihf cortex-a7 nn::kernels resample:: align::
