#!/usr/bin/env python3
"""Tests that packaging/image.sh refuses what is wrong on its command line before it builds
anything, and names the cure. Needs no privileges and no network."""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGE = HERE.parents[1] / "packaging/image.sh"
DOOR = str(HERE / "door.toml")


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"private": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "text": "something else\n",
                 "usb": "1-1.2 1a86 7523  # relay\n1-1.1 camera\n"}
        for file, text in files.items():
            (folder / file).write_text(text)
        cases = [
            ("--board is pi or virt", ["--board", "toaster", "--config", DOOR]),
            ("--config is missing", ["--board", "pi"]),
            ("cannot be read", ["--board", "pi", "--config", str(folder / "none")]),
            ("names no camera and relay", ["--board", "pi", "--config", str(folder / "text")]),
            ("this is the private key", ["--ssh-key", str(folder / "private")]),
            ("no public key", ["--ssh-key", str(folder / "text")]),
            ("names no network=", ["--wifi", str(folder / "text")]),
            ("line 2 is not like", ["--usb", str(folder / "usb")]),
            ("cannot be read", ["--models", str(folder / "none")]),
            ("no set of models, a tar", ["--models", str(folder / "text")]),
            ("it has no manifest.toml", ["--models", str(folder)]),
            ("no certificate", ["--update-cert", str(folder / "text")]),
            ("--bundle needs", ["--bundle", str(folder / "bundle")]),
            ("--link needs the package", ["--link", str(folder / "text")]),
            ("--hostname Door_1", ["--hostname", "Door_1"]),
            ("--slot-size 5", ["--slot-size", "5"]),
            ("only ds3231", ["--rtc", "clock"]),
            ("there is no option --flash", ["--flash", "yes"]),
            ("value is missing", ["--hostname"]),
        ]
        for wanted, options in cases:
            if "--board" not in options:
                options = ["--board", "pi", "--config", DOOR, *options]
            done = subprocess.run(["bash", str(IMAGE), "--out", str(folder / "door.img"), *options],
                                  capture_output=True, text=True)
            assert done.returncode == 2, (options, done.returncode, done.stderr)
            assert wanted in done.stderr, (wanted, done.stderr)
            assert not (folder / "door.img").exists()
        print(f"ok      {len(cases)} wrong command lines are refused")
    return 0


if __name__ == "__main__":
    sys.exit(main())
