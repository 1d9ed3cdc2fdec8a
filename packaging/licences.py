#!/usr/bin/env python3
"""Prints the notices of all crates that are linked into the binary, each text once.

licences.py TARGET FEATURES [PACKAGE]: Cargo lists the crates; the texts come from their sources."""

import json
import re
import subprocess
import sys
from pathlib import Path

TEXTS = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)

target, features, *rest = sys.argv[1:]
program = rest[0] if rest else "facelatch"
options = ["--locked", *(["--features", features] if features else [])]
metadata = json.loads(
    subprocess.check_output(
        ["cargo", "metadata", "--format-version", "1", "--filter-platform", target, *options]
    )
)
# Only linked crates: no build scripts, tests or proc-macro dependencies.
tree = subprocess.check_output(
    ["cargo", "tree", "--package", program, "--target", target, "--prefix", "none", *options]
    + ["--edges", "normal,no-proc-macro", "--format", "{p}"],
    text=True,
)
linked = {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}

crates, texts, without = [], {}, []
for package in sorted(metadata["packages"], key=lambda package: package["name"]):
    name = f"{package['name']} {package['version']}"
    if (package["name"], f"v{package['version']}") not in linked or package["source"] is None:
        continue
    crates.append(f"{name}: {package['license'] or 'see its text'}")
    folder = Path(package["manifest_path"]).parent
    files = sorted(file for file in folder.iterdir() if file.is_file() and TEXTS.match(file.name))
    if not files:
        without.append(name)
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace").strip()
        texts.setdefault("\n".join(line.rstrip() for line in text.splitlines()), []).append(name)

print(f"Crates linked into {program}, and their licences:\n")
print("\n".join(crates))
if without:
    print("\nWithout a text of their own: " + ", ".join(without))
for text, names in texts.items():
    print("\n" + "-" * 78 + "\n" + ", ".join(sorted(set(names))) + ":\n\n" + text)
