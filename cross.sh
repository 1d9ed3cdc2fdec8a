#!/usr/bin/env bash
# Runs kernel and stage tests on emulated ARM processors: 64-bit with byte dot products
# (Cortex-A76: Pi 5) and without (Cortex-A72: Pi 4), and 32-bit (Cortex-A7: Pi 2), whose
# kernels are plain Rust. The 64-bit tests also cover cameras, GPIO and relays, and use
# the flashed target and features, so that tests/board/run.sh finds everything but the
# program itself compiled. Installs missing Debian packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/fetch.sh

if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v arm-linux-gnueabihf-gcc >/dev/null \
    || ! command -v qemu-aarch64-static >/dev/null \
    || ! ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1; then
    debian gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
        gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static libclang1
fi

# Emulated system calls do not report a terminal's unsent bytes (TIOCOUTQ). The kernel of
# tests/board/run.sh does.
skipped=(--skip relay::lcus1::tests::a_board_on_a_terminal_gets_its_commands
    --skip last_relay::tests::the_relay_of_the_last_start_is_switched_off_whatever_its_lock)

# tests CPU STAGE...: runs each stage's tests for the target built last; each must have some.
tests() {
    local cpu=$1 said failed
    shift
    echo "$cpu"
    for stage in "$@"; do
        failed=
        said=$(QEMU_CPU=$cpu cargo test --quiet "${build[@]}" -- "$stage" "${skipped[@]}" 2>&1) || failed=1
        echo "$said"
        [ -z "$failed" ] || exit 1
        if ! grep -qE '^test result: ok\. [1-9]' <<<"$said"; then
            echo "$cpu: no test of $stage has passed; is it named so still?" >&2
            exit 1
        fi
    done
}

# builds TARGET PACKAGE [OPTIONS FOR cargo test]: builds the tests of a library.
builds() {
    build=(--release --target "$1" -p "$2" "${@:3}" --lib)
    thrice rustup target add "$1"
    cargo test "${build[@]}" --no-run
}

builds aarch64-unknown-linux-musl facelatch --features device
for cpu in cortex-a72 cortex-a76; do
    tests "$cpu" nn:: detect:: resample:: align::
done
tests cortex-a72 camera:: gpio:: relay::
builds aarch64-unknown-linux-musl facelatch-kernels
for cpu in cortex-a72 cortex-a76; do
    tests "$cpu" tests::
done
# 32-bit boards have the scalar kernels, which need no tract.
builds armv7-unknown-linux-gnueabihf facelatch-kernels
tests cortex-a7 tests::
