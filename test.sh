#!/usr/bin/env bash
# Runs all tests of the workspace in one profile. Sets up libtorch and Mosquitto if they are
# missing.
#
#   ./test.sh [ARGUMENTS FOR cargo test]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. tools/fetch.sh
if [ -z "${LIBTORCH:-}" ]; then
    tools/setup-libtorch.sh
fi
# The link is tested against a real broker.
for tool in mosquitto mosquitto_sub openssl; do
    if ! PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$tool" >/dev/null; then
        (debian_or_cannot mosquitto mosquitto-clients openssl) || {
            echo "################################################################################"
            echo "The tests of facelatch-link need $tool and cannot install it: they will FAIL."
            echo "On Debian, as root: apt-get install mosquitto mosquitto-clients openssl"
            echo "################################################################################"
        }
        break
    fi
done
exec cargo test --release --workspace "$@"
