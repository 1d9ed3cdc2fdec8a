#!/usr/bin/env python3
"""Cuts the power at every write of every operation, and looks what is left.

    tests/faults/power_cut.py [--program FILE] [--only NAME]... [--random N] [--most N]

Runs each operation once under strace, rebuilds the states that a power cut may leave
(cuts.py), starts the program on each of them, and compares its answers with those from
before and after the operation. Exit code 1 if a state gave another answer; it is kept.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cuts
from operations import PATIENCE, REPOSITORY, Door, Operation, changeable, chosen
from recording import CALLS, Tree, read

# Each state whose number is a multiple of this is also changed after it was read.
CHANGED = 8


class Recorded:
    """An operation with its events, the door before it, and what was acknowledged when."""

    def __init__(self, door: Door, operation: Operation, trace: Path):
        operation.prepare(door)
        self.before = Tree.of(door.root)
        self.before_answer = operation.ask(door)
        shutil.rmtree(door.root)
        door.root.mkdir()
        self.before.build(door.root)
        self.said = []
        trace.write_text("")
        parts, children = [], []

        def launch(command, wait=True):
            parts.append(trace.with_suffix(f".{len(parts)}"))
            # With -D the program is our child, and gets our signals.
            strace = ["strace", "-D", "-f", "-ttt", "-y", "-xx", "-s", str(1 << 28), "-e",
                      f"trace={CALLS}", "-o", str(parts[-1]), *command]
            child = subprocess.Popen(strace, env=door.environment, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            children.append(child)
            return child.wait() if wait else child

        done = operation.perform(door, launch, lambda word: self.said.append((time.time(), word)))
        assert done, f"{operation.name} fails under strace"
        self.events, so_far = [], self.before
        for part, child in zip(parts, children):
            finished(part, child)
            self.events += read(part, door.root, so_far)
            so_far = cuts.prefix(self.before, self.events, len(self.events), None)
            part.unlink()
        trace.unlink()
        found = Tree.of(door.root)
        wrong = set(found.names) ^ set(so_far.names) | {
            name for name, node in found.names.items() if node is not None
            and name in so_far.names and found.content[node] != so_far.content[so_far.names[name]]}
        assert not wrong, f"{operation.name}: the recording differs from the disk: {wrong}"
        self.after_answer = operation.ask(door)

    def said_before(self, count: int) -> list:
        if count == len(self.events):
            return [word for _, word in self.said]
        # An order counts as sent from before the first write that it causes.
        time = self.events[count].time
        return [word for at, word in self.said if at <= time]


def finished(trace: Path, child):
    """Waits until strace has written that the program ended."""
    child.wait()
    ended = re.compile(rf"^{child.pid} .*\+\+\+ (exited|killed)", re.MULTILINE)
    until = time.monotonic() + PATIENCE
    while not ended.search(trace.read_text(errors="replace")[-4096:]):
        assert time.monotonic() < until, f"{trace}: strace does not end"
        time.sleep(0.02)


def states(recorded: Recorded, seed: str, randoms: int, most: int):
    """Model, number of events before the cut and state."""
    events = recorded.events
    generator = random.Random(seed)
    places = list(range(len(events) + 1))
    if len(places) > most:
        # All but writes, and some of the writes.
        rare = {at for at in places if at == len(events) or events[at].kind != "write"}
        writes = [at for at in places if at not in rare]
        places = sorted(rare | set(generator.sample(writes, max(0, most - len(rare)))))
    for count in places:
        yield "prefix", count, cuts.prefix(recorded.before, events, count, None)
        if count < len(events) and events[count].kind == "write":
            length = len(events[count].data)
            parts = {generator.randrange(length + 1), min(length, cuts.SECTOR)}
            for part in parts - {0, length}:
                yield "prefix", count, cuts.prefix(recorded.before, events, count, part)
        for model in (cuts.journal, cuts.harsh):
            name = model.__name__
            yield name, count, model(recorded.before, events, count, lambda of: False)
            for kind in ("journal", "page", "size", "name", "sector"):
                yield name, count, model(recorded.before, events, count,
                                         lambda of, kind=kind: of != kind)
            for _ in range(randoms):
                chance = generator.random()
                yield name, count, model(recorded.before, events, count,
                                         lambda of: generator.random() < chance)


def cut(door: Door, operation: Operation, arguments, keep: Path):
    recorded = Recorded(door, operation, door.inputs / "trace")
    writes = sum(event.kind == "write" for event in recorded.events)
    syncs = sum(event.kind == "sync" for event in recorded.events)
    seen, tried, failures = set(), {}, []
    for model, count, state in states(recorded, f"{arguments.seed} {operation.name}",
                                      arguments.random, arguments.most):
        said = recorded.said_before(count)
        key = (state.key(), tuple(said))
        if key in seen:
            continue
        seen.add(key)
        tried[model] = tried.get(model, 0) + 1
        shutil.rmtree(door.root)
        door.root.mkdir()
        state.build(door.root)
        allowed = operation.allowed(recorded.before_answer, recorded.after_answer, said)
        try:
            answer = operation.ask(door)
            fault = None if answer in allowed else f"says {answer}, allowed {allowed}"
            if fault is None and sum(tried.values()) % CHANGED == 0 and answer != "lost":
                changeable(door)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            fault = str(error)
        if fault:
            at = recorded.events[count] if count < len(recorded.events) else "the end"
            failures.append((model, count, str(at), fault))
            if len(failures) <= 10:
                folder = keep / f"{operation.name.replace(' ', '-')}-{len(failures)}"
                shutil.rmtree(folder, ignore_errors=True)
                state.build(folder)
                (folder / "fault.txt").write_text(f"{model}, before event {count}: {at}\n{fault}\n")
    counts = ", ".join(f"{model} {number}" for model, number in tried.items())
    print(f"{operation.name}: {len(recorded.events)} events ({writes} writes, {syncs} syncs), "
          f"{sum(tried.values())} states ({counts}), {len(failures)} failures", flush=True)
    for model, count, at, fault in failures[:arguments.show]:
        print(f"  {model}, before event {count}, {at}: {' '.join(fault.split())[:400]}")
    return sum(tried.values()), len(failures)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target/release/facelatch")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--random", type=int, default=4, help="random states per cut and model")
    parser.add_argument("--most", type=int, default=400, help="most cuts per operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=3, help="failures shown per operation")
    parser.add_argument("--keep", type=Path, default=Path("/tmp/facelatch-power-cut"),
                        help="where states that failed are kept")
    arguments = parser.parse_args()
    if not shutil.which("strace"):
        sys.exit("strace is missing; install it with: . tools/fetch.sh && debian strace")
    began, states_tried, failures = time.monotonic(), 0, 0
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        door = Door(arguments.program, Path(folder))
        for operation in chosen(arguments.only, door):
            tried, failed = cut(door, operation, arguments, arguments.keep)
            states_tried, failures = states_tried + tried, failures + failed
    print(f"{states_tried} states, {failures} failures, "
          f"{time.monotonic() - began:.0f} s; failures are in {arguments.keep}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
