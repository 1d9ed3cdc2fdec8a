#!/usr/bin/env bash
# run.sh [WORK]: a real door and facelatch-link with a real Mosquitto and a real Home
# Assistant. Sets everything up first, see setup.sh; then it takes about two minutes. As
# root. FACELATCH and FACELATCH_LINK name programs to use instead of building them.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
. tools/fetch.sh
work=$(realpath -m "${1:-${XDG_CACHE_HOME:-$HOME/.cache}/facelatch/home_assistant}")
"$here/setup.sh" "$work"
PATH=$PATH:/usr/sbin
if ! command -v mosquitto >/dev/null || ! command -v mosquitto_sub >/dev/null; then
    debian_or_cannot mosquitto mosquitto-clients
fi
target=${CARGO_TARGET_DIR:-target}/release
if [ -z "${FACELATCH:-}" ]; then
    cargo build --release --bin facelatch
fi
if [ -z "${FACELATCH_LINK:-}" ]; then
    cargo build --release -p facelatch-link
fi
exec python3 "$here/play.py" "$work" "${FACELATCH:-$target/facelatch}" \
    "${FACELATCH_LINK:-$target/facelatch-link}"
