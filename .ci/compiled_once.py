#!/usr/bin/env python3
"""Runs a cargo command that must find every third-party crate compiled already.

    .ci/compiled_once.py build --release
"""

import json
import subprocess
import sys

command = ["cargo", *sys.argv[1:], "--message-format", "json"]
done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
messages = [json.loads(line) for line in done.splitlines() if line.startswith("{")]
artifacts = [m for m in messages if m["reason"] == "compiler-artifact"]
foreign = [m for m in artifacts if not m["package_id"].startswith("path+")]
again = sorted({m["package_id"].split("#")[-1] for m in foreign if not m["fresh"]})
if again:
    sys.exit(f"{' '.join(command)}: compiled again: {', '.join(again)}; see features/Cargo.toml")
print(f"{' '.join(sys.argv[1:])}: {len(foreign)} artifacts of other crates, none compiled again")
