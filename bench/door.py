#!/usr/bin/env python3
"""Measures the service at a door: processor time, latency, and growth of memory.

    cargo build --release
    bench/door.py                    # CPU shares and latency, about four minutes
    bench/door.py --soak 200000      # memory over this number of frames

The program runs as at a door: a camera program writes YUV4MPEG2 with noise at a fixed
rate, and a relay board is on a pseudo-terminal. Latency is the time from the moment the
first frame with the face has been written completely to the moment the board has received
its command. Needs NumPy and Pillow.
"""

import argparse
import json
import os
import pathlib
import pty
import random
import statistics
import subprocess
import tempfile
import termios
import threading
import time
import tty

import numpy
from PIL import Image

OPEN = bytes.fromhex("a00101a2")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Scene:
    """Frames of a corridor, empty or with a person in it."""

    def __init__(self, portrait, width, height, seed=1):
        self.width, self.height = width, height
        self.chance = numpy.random.default_rng(seed)
        y, x = numpy.mgrid[0:height, 0:width]
        wall = 90 + 60 * y / height + 10 * numpy.sin(x / 37)
        self.empty = numpy.repeat(wall[:, :, None], 3, axis=2)
        self.portrait = portrait.convert("RGB")
        self.noise = [self.chance.normal(0, 2, (height, width, 1)) for _ in range(8)]

    def image(self, somebody, at=0):
        """One picture, HxWx3 RGB bytes; the person sways a little from frame to frame."""
        picture = self.empty.copy()
        if somebody:
            # The portrait's head and shoulders fill the picture's height.
            scale = self.height / self.portrait.height
            size = (int(self.portrait.width * scale), self.height)
            person = numpy.asarray(self.portrait.resize(size, Image.BILINEAR), float)
            left = (self.width - size[0]) // 2 + int(6 * numpy.sin(at / 5))
            picture[:, max(left, 0) : left + size[0]] = person[:, max(-left, 0) :][
                :, : self.width - max(left, 0)
            ]
        return numpy.clip(picture + self.noise[at % len(self.noise)], 0, 255).astype("uint8")

    def yuv(self, somebody, at=0):
        """The same picture as one frame of YUV4MPEG2, 4:2:0."""
        y, cb, cr = (
            numpy.asarray(plane)
            for plane in Image.fromarray(self.image(somebody, at)).convert("YCbCr").split()
        )
        limited = 16 + y.astype(float) * 219 / 255
        chroma = [128 + (p[::2, ::2].astype(float) - 128) * 224 / 255 for p in (cb, cr)]
        planes = [p.astype("uint8").tobytes() for p in (limited, *chroma)]
        return b"FRAME\n" + b"".join(planes)


class Usage:
    """CPU time and memory of a process."""

    def __init__(self, pid):
        self.pid = pid

    def seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self):
        return int(pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def share(self, seconds):
        """Share of one core used over the next seconds."""
        used, began = self.seconds(), time.monotonic()
        time.sleep(seconds)
        return (self.seconds() - used) / (time.monotonic() - began)


class Relay(threading.Thread):
    """A relay board on a pseudo-terminal, which records the times of its commands."""

    def __init__(self):
        super().__init__(daemon=True)
        self.board, port = pty.openpty()
        tty.setraw(self.board, termios.TCSANOW)
        tty.setraw(port, termios.TCSANOW)
        self.port, self.opened = os.ttyname(port), []
        self.start()

    def run(self):
        tail = b""
        while True:
            tail = (tail + os.read(self.board, 64))[-64:]
            if OPEN in tail:
                self.opened.append(time.monotonic())
                tail = b""


class Feed(threading.Thread):
    """Writes frames at the camera's rate, with or without a person."""

    def __init__(self, fifo, scene, rate):
        super().__init__(daemon=True)
        self.fifo, self.period = fifo, 1 / rate
        self.frames = {who: [scene.yuv(who, at) for at in range(32)] for who in (False, True)}
        self.header = f"YUV4MPEG2 W{scene.width} H{scene.height} F{rate}:1 Ip A1:1 C420jpeg\n"
        self.somebody, self.came = False, None
        self.start()

    def run(self):
        with open(self.fifo, "wb", buffering=0) as out:
            out.write(self.header.encode())
            before, at, due = False, 0, time.monotonic()
            try:
                while True:
                    who = self.somebody
                    out.write(self.frames[who][at % 32])
                    if who and not before:
                        self.came = time.monotonic()
                    before, at, due = who, at + 1, due + self.period
                    time.sleep(max(0, due - time.monotonic()))
            except BrokenPipeError:
                pass


def shown(share):
    return f"{100 * share:.1f} % of a core"


def at_the_door(arguments, folder):
    scene = Scene(Image.open(arguments.image), arguments.width, arguments.height)
    config = folder / "facelatch.toml"
    gallery = folder / "gallery.redb"
    config.write_text(
        f'[gallery]\nfile = "{gallery}"\n[recognition]\nagain_after = "0s"\n'
        f'[door]\nopen_for = "1s"\n[service]\nstatus_socket = "{folder}/control.sock"\n'
        + arguments.set.replace(";", "\n")
    )
    enroll = [arguments.program, "enroll", "--config", config, "Somebody"]
    subprocess.run([*enroll, "--image", arguments.image], check=True, stdout=subprocess.DEVNULL)
    fifo = folder / "camera"
    os.mkfifo(fifo)
    relay = Relay()
    command = [arguments.program, "run", "--config", config, "--camera", f"pipe:exec cat {fifo}"]
    command += ["--relay", f"serial:{relay.port}"]
    log = open(folder / "log", "wb")
    door = subprocess.Popen(command, stderr=log, stdout=log)
    feed, usage, figures = Feed(fifo, scene, arguments.rate), Usage(door.pid), {}
    try:
        time.sleep(5)
        figures["idle"] = usage.share(arguments.seconds)
        waits, chance = [], random.Random(1)
        for _ in range(arguments.visits):
            time.sleep(3 + chance.random())
            count, feed.came = len(relay.opened), None
            feed.somebody = True
            until = time.monotonic() + 10
            while len(relay.opened) == count and time.monotonic() < until:
                time.sleep(0.002)
            feed.somebody = False
            if len(relay.opened) > count and feed.came:
                waits.append(relay.opened[count] - feed.came)
        figures["visits"], figures["opened"] = arguments.visits, len(waits)
        feed.somebody = True
        time.sleep(2)
        figures["active"] = usage.share(arguments.seconds)
        figures["rss_mb"] = usage.rss() / 1e6
    finally:
        door.terminate()
        figures["exit code"] = door.wait(20)
    if not waits:
        raise SystemExit(f"nobody was let in:\n{(folder / 'log').read_text()[-2000:]}")
    waits.sort()
    figures["median_ms"] = 1000 * statistics.median(waits)
    figures["p95_ms"] = 1000 * waits[min(len(waits) - 1, int(0.95 * len(waits)))]
    print(f"camera {arguments.width}x{arguments.height} at {arguments.rate} frames a second")
    print(f"empty corridor   {shown(figures['idle'])}")
    print(f"somebody stays   {shown(figures['active'])}")
    print(
        f"first good frame to relay   median {figures['median_ms']:.0f} ms, "
        f"p95 {figures['p95_ms']:.0f} ms, {figures['opened']} of {figures['visits']} visits"
    )
    print(f"memory   {figures['rss_mb']:.1f} MB")
    return figures


def soak(arguments, folder):
    """Memory over many frames in which a person comes and goes."""
    scene = Scene(Image.open(arguments.image), 400, 400)
    frames = folder / "frames"
    frames.mkdir()
    for at in range(240):
        picture = Image.fromarray(scene.image(at % 60 >= 20, at))
        picture.save(frames / f"{at:04}.jpg", quality=90)
    config = folder / "facelatch.toml"
    config.write_text(
        f'[gallery]\nfile = "{folder / "gallery.redb"}"\n'
        f'[service]\nstatus_socket = "{folder}/control.sock"\n'
    )
    enroll = [arguments.program, "enroll", "--config", config, "Somebody"]
    subprocess.run([*enroll, "--image", arguments.image], check=True, stdout=subprocess.DEVNULL)
    command = [arguments.program, "run", "--config", config, "--max-frames", str(arguments.soak)]
    command += ["--camera", f"images:{frames}?loop&fps=10", "--relay", "log:", "--json"]
    began, samples = time.monotonic(), []
    with open(folder / "events", "wb") as events, open(folder / "log", "wb") as log:
        door = subprocess.Popen(command, stdout=events, stderr=log)
        usage = Usage(door.pid)
        while door.poll() is None:
            try:
                samples.append((time.monotonic() - began, usage.rss()))
            except (FileNotFoundError, IndexError):
                break
            time.sleep(1)
    code = door.wait()
    samples = [rss for at, rss in samples if at > 5 and rss]
    quarter = max(1, len(samples) // 4)
    first, last = max(samples[:quarter]), max(samples[-quarter:])
    granted = sum(b'"granted"' in line for line in open(folder / "events", "rb"))
    print((folder / "log").read_text().splitlines()[-1])
    print(
        f"{arguments.soak} frames in {time.monotonic() - began:.0f} s, {granted} times granted, "
        f"exit code {code}\nmost memory in the first quarter {first / 1e6:.2f} MB, "
        f"in the last {last / 1e6:.2f} MB"
    )
    return {"frames": arguments.soak, "first_mb": first / 1e6, "last_mb": last / 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/facelatch")
    parser.add_argument("--image", default="assets/astronaut.jpg")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=int, default=15, help="frames a second")
    parser.add_argument("--visits", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=20, help="for each share of a core")
    parser.add_argument("--set", default="", help="lines for the configuration, apart by ;")
    parser.add_argument("--soak", type=int, metavar="FRAMES", help="memory instead")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = (soak if arguments.soak else at_the_door)(arguments, pathlib.Path(folder))
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
