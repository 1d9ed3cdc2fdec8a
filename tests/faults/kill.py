#!/usr/bin/env python3
"""Kills every operation with SIGKILL at a random moment, many times, and looks what is left.

    tests/faults/kill.py [--program FILE] [--only NAME]... [--times N] [--seed N]

The moment is anywhere from the start of the program to a little after its usual end; runs
that ended before it are not counted. Exit code 1 if the program's answers afterwards are neither those from before the operation nor
those from after it.
"""

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from operations import PATIENCE, REPOSITORY, Door, Operation, changeable, chosen
from recording import Tree

# Each door whose number is a multiple of this is also changed after it was read.
CHANGED = 8


class Kill:
    """Runs an operation, and kills what it launched after this number of seconds."""

    def __init__(self, door: Door, operation: Operation, after: float):
        self.until = time.monotonic() + after
        self.door, self.said, self.killed = door, [], False
        self.timer = None
        try:
            operation.perform(door, self.launch, self.said.append)
        finally:
            if self.timer:
                self.timer.cancel()
                self.timer.join()

    def left(self) -> float:
        return max(0.0, self.until - time.monotonic())

    def launch(self, command, wait=True):
        child = subprocess.Popen(command, env=self.door.environment, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not wait:
            self.timer = threading.Timer(self.left(), self.kill, [child])
            self.timer.start()
            return child
        try:
            return child.wait(self.left())
        except subprocess.TimeoutExpired:
            self.kill(child)
            return child.wait()

    def kill(self, child):
        self.killed = self.killed or child.poll() is None
        child.kill()


def restored(door: Door, state: Tree):
    shutil.rmtree(door.root, ignore_errors=True)
    door.root.mkdir()
    state.build(door.root)


def attack(door: Door, operation: Operation, arguments) -> int:
    operation.prepare(door)
    before = Tree.of(door.root)
    before_answer = operation.ask(door)
    took = []
    for _ in range(3):
        restored(door, before)
        began = time.monotonic()
        Kill(door, operation, PATIENCE)
        took.append(time.monotonic() - began)
    after_answer = operation.ask(door)
    generator = random.Random(f"{arguments.seed} {operation.name}")
    killed = done = number = 0
    failures = []
    while killed < arguments.times:
        number += 1
        restored(door, before)
        # A busy machine becomes slower and faster.
        moment = generator.uniform(0, statistics.median(took[-15:]) * 1.05)
        began = time.monotonic()
        kill = Kill(door, operation, moment)
        killed += kill.killed
        if not kill.killed:
            took.append(time.monotonic() - began)
        allowed = operation.allowed(before_answer, after_answer, kill.said)
        try:
            answer = operation.ask(door)
            fault = None if answer in allowed else f"says {answer}, allowed {allowed}"
            done += answer != before_answer
            if fault is None and number % CHANGED == 0 and answer != "lost":
                changeable(door)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            fault = str(error)
        if fault:
            failures.append(f"  number {number}, after {moment:.3f} s: "
                            f"{' '.join(fault.split())[:400]}")
    print(f"{operation.name}: {number} times, {killed} killed, {done} with the new state, "
          f"{len(failures)} failures", flush=True)
    print("".join(f"{line}\n" for line in failures[:arguments.show]), end="", flush=True)
    return len(failures)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/release/facelatch")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--times", type=int, default=1000, help="kills per operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=3, help="failures shown per operation")
    arguments = parser.parse_args()
    began, failures, count = time.monotonic(), 0, 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        door = Door(arguments.program, Path(folder))
        for operation in chosen(arguments.only, door):
            failures += attack(door, operation, arguments)
            count += arguments.times
    print(f"{count} kills, {failures} failures, {time.monotonic() - began:.0f} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
