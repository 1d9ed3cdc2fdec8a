#!/usr/bin/env bash
# Kernel and stage tests as a 64-bit ARM board runs them, on emulated processors
# with dot products of bytes (Cortex-A76: Pi 5) and without (Cortex-A72: Pi 4).
# Installs what it needs from Debian's packages where that is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
target=aarch64-unknown-linux-gnu

if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static
fi
rustup target add "$target"
cargo test --release --target "$target" -p facelatch --lib --no-run
for cpu in cortex-a72 cortex-a76; do
    echo "$cpu"
    for stage in nn:: detect:: resample:: align::; do
        QEMU_CPU=$cpu cargo test --quiet --release --target "$target" -p facelatch --lib -- "$stage"
    done
done
