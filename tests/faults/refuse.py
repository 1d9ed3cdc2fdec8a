#!/usr/bin/env python3
"""The disk refuses a write: full, read-only or broken, at every call of every operation.

    tests/faults/refuse.py [--program FILE] [--only NAME]... [--error NAME]... [--every N]

Runs each operation under strace, which lets the N-th call that changes the disk fail, and
all later ones as well, for each N. Afterwards the disk works again. Exit code 1 if the
program's answers are then neither those from before the operation nor those from after it,
if it reported success and lost the change, if it failed without a message, or if it panicked.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from operations import PATIENCE, REPOSITORY, Door, Orders, changeable, chosen
from recording import Tree

# Calls that change the disk. `write` would also refuse what is printed, and is told apart by
# the descriptor only; so files that are written with it are refused at their sync.
CALLS = ("pwrite64,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,mkdir,"
         "unlink,unlinkat")
ERRORS = ("ENOSPC", "EROFS", "EIO")
PANICKED = 101


def run(door: Door, command, inject: str, log: Path):
    strace = ["strace", "-f", "-qq", "-e", f"trace={CALLS}", "-o", str(log), *inject.split(),
              *command]
    return subprocess.run(strace, env=door.environment, stdin=subprocess.DEVNULL,
                          timeout=PATIENCE, capture_output=True, text=True)


def refuse(door: Door, operation, arguments) -> tuple:
    operation.prepare(door)
    before = Tree.of(door.root)
    before_answer = operation.ask(door)
    log = door.inputs / "calls"

    def restored():
        shutil.rmtree(door.root)
        door.root.mkdir()
        before.build(door.root)

    restored()
    for command in operation.commands(door):
        done = run(door, door.command(*command), "", log)
        assert done.returncode == 0, f"{operation.name} fails under strace: {done.stderr}"
    calls = sum(" = " in line for line in log.read_text().splitlines())
    after_answer = operation.ask(door)
    tried, failures = 0, []
    for error in arguments.error or ERRORS:
        for number in range(1, calls + 1, arguments.every):
            restored()
            tried += 1
            fault = None
            for command in operation.commands(door):
                inject = f"-e inject={CALLS}:error={error}:when={number}+"
                done = run(door, door.command(*command), inject, log)
            try:
                answer = operation.ask(door)
                if answer not in [before_answer, after_answer]:
                    fault = f"says {answer}"
                elif done.returncode == PANICKED or "panicked" in done.stderr:
                    fault = f"panics: {done.stderr}"
                elif done.returncode == 0 and answer != after_answer:
                    fault = f"reported success, says {answer}"
                elif done.returncode != 0 and not done.stderr.strip():
                    fault = f"failed with {done.returncode} and said nothing"
                elif tried % 8 == 0 and answer != "lost":
                    changeable(door)
            except (AssertionError, subprocess.TimeoutExpired) as trouble:
                fault = str(trouble)
            if fault:
                failures.append(f"  {error} from call {number} of {calls}: "
                                f"{' '.join(fault.split())[:400]}")
    print(f"{operation.name}: {calls} calls, {tried} runs, {len(failures)} failures", flush=True)
    print("".join(f"{line}\n" for line in failures[:arguments.show]), end="", flush=True)
    return tried, len(failures)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/release/facelatch")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--error", action="append", default=[], choices=ERRORS)
    parser.add_argument("--every", type=int, default=1, help="only every N-th call")
    parser.add_argument("--show", type=int, default=3, help="failures shown per operation")
    arguments = parser.parse_args()
    if not shutil.which("strace"):
        sys.exit("strace is missing; install it with: . tools/fetch.sh && debian strace")
    began, tried, failures = time.monotonic(), 0, 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        door = Door(arguments.program, Path(folder))
        for operation in chosen(arguments.only, door):
            if not isinstance(operation, Orders):
                runs, failed = refuse(door, operation, arguments)
                tried, failures = tried + runs, failures + failed
    print(f"{tried} runs, {failures} failures, {time.monotonic() - began:.0f} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
