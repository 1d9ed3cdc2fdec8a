#!/usr/bin/env bash
# test.sh PACKAGE: installs, runs, kills, removes and purges the link's package on an emulated
# 64-bit board without the door's package, with a link and with the office of a site. Takes
# about six minutes, more on a busy machine, and three more the first time to fetch that
# Debian.
set -euo pipefail
package=$(realpath "${1:?usage: packaging/link/test.sh PACKAGE}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. packaging/test/play.sh
cp packaging/link/test/probe.sh "$share/"
cp "$package" "$share/link.deb"
play packaging/link/test/guest.sh
