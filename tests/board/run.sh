#!/usr/bin/env bash
# run.sh [--probe | --nokhwa] [--only SCENE]... [--verbose] [--program FILE]: the program on an
# emulated ARM64 board, with camera, GPIO, relays and a disk, from set-up to verdict.
# Without --program builds it first, static and with all of a device's edges; with
# --nokhwa, with desktop cameras as well, whose scenes are played instead.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
. tools/fetch.sh
work=${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/board
target=aarch64-unknown-linux-musl

"$here/setup.sh" "$work"
if [[ " $* " != *" --program "* && " $* " != *" --probe "* ]]; then
    # The kernel's headers that the camera's bindings are made from.
    ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 \
        || debian libclang1
    thrice rustup target add "$target"
    features=device
    [[ " $* " != *" --nokhwa "* ]] || features=device,nokhwa
    # With an example cargo takes the features of dependencies that tests have, and so
    # finds them as cross.sh has compiled them.
    cargo build --release -p facelatch --bin facelatch --example inferences \
        --target "$target" --features "$features"
    set -- --program "${CARGO_TARGET_DIR:-target}/$target/release/facelatch" "$@"
fi
exec python3 "$here/play.py" "$work" "$@"
