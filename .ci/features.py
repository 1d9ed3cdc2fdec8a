#!/usr/bin/env python3
"""Fails where `cargo run` and the tests would compile one dependency twice.

Cargo builds a package once per set of features. This compares the sets that the door's
program gets by itself with those that it gets in the whole workspace, tests and benches
included; `features/Cargo.toml` is where they are made equal.
"""

import collections
import re
import subprocess
import sys


def features(*arguments):
    """The sets of features of each package, by name and version."""
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "--prefix", "none", "--format", "{p} [{f}]", *arguments],
        check=True, capture_output=True, text=True,
    ).stdout
    sets = collections.defaultdict(set)
    for line in tree.splitlines():
        found = re.match(r"(\S+ v\S+).*? \[(.*)\]", line)
        if found:
            sets[found[1]].add(found[2])
    return sets


door = features("--package", "facelatch", "--edges", "normal,build")
workspace = features("--workspace", "--edges", "normal,build,dev")
wrong = 0
for package, sets in sorted(door.items()):
    for missing in sorted(sets - workspace[package]):
        wrong += 1
        print(f"{package}: has [{missing}] in the door's program and", file=sys.stderr)
        for other in sorted(workspace[package]):
            print(f"    [{other}] in the workspace", file=sys.stderr)
if wrong:
    sys.exit(f"{wrong} dependencies would be compiled twice; see features/Cargo.toml")
print(f"{len(door)} packages of the door's program have one set of features each")
