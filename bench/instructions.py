#!/usr/bin/env python3
"""Counts ARM instructions for one embedding, one detection and one alignment.

Counts are exact and repeatable, while times on an emulator mean nothing.

    cargo build --release --target aarch64-unknown-linux-gnu --example inferences
    bench/instructions.py

qemu-user logs which blocks of code it translates and which it runs. The count for two
runs of a part minus the count for one is the count of a single run.
"""

import argparse
import collections
import re
import subprocess

BLOCK = re.compile(rb"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/")
CODE = re.compile(rb"^0x([0-9a-f]+):")


def instructions(qemu, cpu, binary, part, count):
    """Number of instructions that a process executes."""
    command = [qemu, "-L", "/usr/aarch64-linux-gnu", "-cpu", cpu]
    command += ["-d", "in_asm,exec,nochain", "-D", "/dev/stderr", binary, part, str(count)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lengths, runs = {}, collections.Counter()
    begin, length = None, 0
    for line in process.stderr:
        if line.startswith(b"Trace"):
            if begin is not None:
                lengths[begin], begin = length, None
            runs[BLOCK.match(line).group(1)] += 1
        elif line.startswith(b"IN:"):
            if begin is not None:
                lengths[begin] = length
            begin, length = None, 0
        elif code := CODE.match(line):
            if begin is None:
                # Executed blocks are logged by this address, without leading zeros.
                begin = code.group(1)
            length += 1
    if process.wait() != 0:
        raise SystemExit(f"{binary} {part}: exit code {process.returncode}")
    by_number = {int(address, 16): length for address, length in lengths.items()}
    return sum(times * by_number[int(address, 16)] for address, times in runs.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = "target/aarch64-unknown-linux-gnu/release/examples"
    parser.add_argument("--binary", default=f"{folder}/inferences")
    parser.add_argument("--qemu", default="qemu-aarch64-static")
    parser.add_argument("--cpu", nargs="*", default=["cortex-a72", "cortex-a76"])
    parser.add_argument("--part", nargs="*", default=["embed", "detect", "align"])
    arguments = parser.parse_args()
    for cpu in arguments.cpu:
        for part in arguments.part:
            once, twice = (
                instructions(arguments.qemu, cpu, arguments.binary, part, count) for count in (1, 2)
            )
            print(f"{cpu:12} {part:7} {(twice - once) / 1e6:8.2f} M", flush=True)


if __name__ == "__main__":
    main()
