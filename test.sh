#!/usr/bin/env bash
# Runs all tests of the workspace in one profile. Sets up libtorch if it is missing.
#
#   ./test.sh [ARGUMENTS FOR cargo test]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [ -z "${LIBTORCH:-}" ]; then
    tools/setup-libtorch.sh
fi
exec cargo test --release --workspace "$@"
