#!/usr/bin/env python3
"""Compares a training step of facelatch-tools with the same step in Python torch.

    pip install torch==2.11.0 numpy
    cargo build --release -p facelatch-tools
    bench/train.py                          --device cuda on a GPU

The step is MobileFaceNet forward, ArcFace, backward, and SGD with momentum and weight
decay, in 32 bits, with batch normalization in training mode. Both sides use the same
libtorch release, the same number of threads, and pictures that are already in memory.
Python is measured with its default memory layout and with channels last; the faster one
counts. Sides take turns, so that other load on the machine affects all of them; a figure
is the median of the turns, a ratio the median of the turns' ratios.

--python-keeps-memory starts Python with the C library settings that facelatch-tools sets
for itself (tools/src/train/memory.rs), which shows their share of the ratio.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_ARENA_MAX": "1"}
CLASSES = 10
EMBEDDING = 512
SCALE, MARGIN = 64.0, 0.5
STEP = {"lr": 0.01, "momentum": 0.95, "weight_decay": 5e-4}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", default=str(ROOT / "target/release/facelatch-tools"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps a turn")
    parser.add_argument("--python-keeps-memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def python_side(torch, device, batch, channels_last):
    """Returns a function that runs a number of steps and returns images per second."""
    nn, functional = torch.nn, torch.nn.functional

    def block(source, target, side, stride, padding, groups, prelu):
        layers = [
            nn.Conv2d(source, target, side, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(target),
        ]
        return nn.Sequential(*layers, *([nn.PReLU(target)] if prelu else []))

    class Bottleneck(nn.Module):
        def __init__(self, source, wide, target, stride, residual):
            super().__init__()
            self.residual = residual
            self.blocks = nn.Sequential(
                block(source, wide, 1, 1, 0, 1, True),
                block(wide, wide, 3, stride, 1, wide, True),
                block(wide, target, 1, 1, 0, 1, False),
            )

        def forward(self, at):
            out = self.blocks(at)
            return at + out if self.residual else out

    torch.manual_seed(1)
    network = nn.Sequential(
        block(3, 64, 3, 2, 1, 1, True),
        block(64, 64, 3, 1, 1, 64, True),
        Bottleneck(64, 128, 64, 2, False),
        *(Bottleneck(64, 128, 64, 1, True) for _ in range(4)),
        Bottleneck(64, 256, 128, 2, False),
        *(Bottleneck(128, 256, 128, 1, True) for _ in range(6)),
        Bottleneck(128, 512, 128, 2, False),
        *(Bottleneck(128, 256, 128, 1, True) for _ in range(2)),
        block(128, 512, 1, 1, 0, 1, True),
        block(512, 512, 7, 1, 0, 512, False),
        nn.Flatten(),
        nn.Linear(512, EMBEDDING, bias=False),
        nn.BatchNorm1d(EMBEDDING),
    ).to(device)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = network.to(memory_format=layout).train()
    centers = nn.Parameter(torch.randn(CLASSES, EMBEDDING, device=device))
    optimizer = torch.optim.SGD([*network.parameters(), centers], **STEP)
    waiting = torch.randn(batch, 3, 112, 112)
    labels = (torch.arange(batch) % CLASSES).to(device)

    def step():
        pictures = waiting.to(device).contiguous(memory_format=layout)
        optimizer.zero_grad()
        cosines = functional.linear(functional.normalize(network(pictures)), functional.normalize(centers))
        own = cosines.gather(1, labels[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        turned = own * math.cos(MARGIN) - torch.sqrt(1 - own * own) * math.sin(MARGIN)
        straight = own - MARGIN * math.sin(MARGIN)
        own = torch.where(own > math.cos(math.pi - MARGIN), turned, straight)
        loss = functional.cross_entropy(cosines.scatter(1, labels[:, None], own) * SCALE, labels)
        loss.backward()
        optimizer.step()
        # Reading the loss waits for the device, as a training does.
        return loss.item()

    def steps(count):
        before = time.perf_counter()
        for _ in range(count):
            step()
        return count * batch / (time.perf_counter() - before)

    return steps


class Ours:
    """`bench-train`, which runs one turn per line that it receives."""

    def __init__(self, options, batch):
        command = [options.tools, "bench-train", "--json", "--on-request", "--device", options.device]
        command += ["--batch", str(batch), "--steps", str(options.steps), "--threads", str(options.threads)]
        environment = {name: value for name, value in os.environ.items() if name not in KEEP}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, _):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench-train ended: {self.process.wait()}")
        return json.loads(line)["images_per_second"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    options = arguments()
    if options.python_keeps_memory and os.environ.get("MALLOC_MMAP_MAX_") != "0":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP})
    import torch

    torch.set_num_threads(options.threads)
    rows = []
    for batch in options.batch:
        sides = {
            "ours": Ours(options, batch),
            "python": python_side(torch, options.device, batch, False),
            "python, channels last": python_side(torch, options.device, batch, True),
        }
        for side in sides.values():
            side(1)
        turns = {name: [] for name in sides}
        for _ in range(options.turns):
            for name, side in sides.items():
                turns[name].append(side(options.steps))
        sides["ours"].close()
        row = {"batch": batch, "threads": options.threads, "device": options.device, "torch": torch.__version__}
        row["images_per_second"] = {name: statistics.median(figures) for name, figures in turns.items()}
        row["ratio"] = {
            name: statistics.median(ours / theirs for ours, theirs in zip(turns["ours"], figures))
            for name, figures in turns.items()
            if name != "ours"
        }
        row["least_ratio"] = min(row["ratio"].values())
        rows.append(row)
        if not options.json:
            print(f"batch {batch}, {options.threads} threads, {options.device}, images a second:")
            for name, figure in row["images_per_second"].items():
                ratio = f"  ours is {row['ratio'][name]:.2f} of it" if name != "ours" else ""
                print(f"  {name:22} {figure:8.1f}{ratio}")
    if options.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
