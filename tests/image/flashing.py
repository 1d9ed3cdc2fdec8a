#!/usr/bin/env python3
"""Tests packaging/flash.sh: what it refuses, and that it verifies. The card is a file, and what
the kernel says of disks and mounts are files too, so this needs no privileges. With --loop it
also writes to a loop device, as root."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLASH = HERE.parents[1] / "packaging/flash.sh"
MIB = 1 << 20
SERIAL = "0x5dbe0fa3"


class Machine:
    """A machine with one card in it."""

    def __init__(self, folder: Path, mib: int = 8):
        self.folder = folder
        self.sys = folder / "sys"
        self.device = folder / "sdx"
        self.device.write_bytes(b"old" + bytes(mib * MIB - 3))
        self.about = self.sys / "class/block/sdx"
        for part in ("", "/sdx1", "/sdx2"):
            (self.about / part.strip("/") / "holders").mkdir(parents=True)
        self.say("dev", "8:16")
        self.say("sdx1/dev", "8:17")
        self.say("sdx2/dev", "8:18")
        self.say("removable", "1")
        self.say("ro", "0")
        self.say("size", str(mib * MIB // 512))
        self.say("device/serial", SERIAL)
        self.say("device/model", "Card Reader")
        self.mounts = folder / "mounts"
        self.mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        self.swaps = folder / "swaps"
        self.swaps.write_text("Filename Type Size Used Priority\n")
        self.image = folder / "door.img"
        self.image.write_bytes(os.urandom(510) + b"\x55\xaa" + os.urandom(3 * MIB - 512))

    def say(self, name: str, text: str):
        file = self.about / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")

    def mount(self, number: str, where: str):
        with open(self.mounts, "a") as file:
            file.write(f"30 22 {number} / {where} rw - vfat /dev/sdx1 rw\n")

    def flash(self, *options: str, answer: str = "", device=None, tools=""):
        """Runs it; returns (exit code, everything it said)."""
        done = subprocess.run(
            ["bash", str(FLASH), str(self.image), str(device or self.device), *options],
            input=answer, capture_output=True, text=True,
            env={"PATH": f"{tools}:{os.environ['PATH']}" if tools else os.environ["PATH"],
                 "FACELATCH_SYS": str(self.sys),
                 "FACELATCH_MOUNTS": str(self.mounts), "FACELATCH_SWAPS": str(self.swaps)})
        return done.returncode, done.stdout + done.stderr

    def refuses(self, why: str, *options: str, answer: str = "sdx\n", device=None):
        before = hashlib.sha256(self.device.read_bytes()).digest()
        code, said = self.flash(*options, answer=answer, device=device)
        assert code == 3, (code, said)
        assert "refused: " in said and why in said, said
        assert hashlib.sha256(self.device.read_bytes()).digest() == before, "it was written to"


def a_card_is_written_and_verified(machine):
    code, said = machine.flash(answer="sdx\n")
    assert code == 0 and "written and verified" in said, (code, said)
    image = machine.image.read_bytes()
    assert machine.device.read_bytes()[:len(image)] == image
    assert SERIAL in said and "sdx1" in said and "lost" in said, said


def a_script_names_the_card(machine):
    code, said = machine.flash("--yes", SERIAL)
    assert code == 0, said


def another_card_is_refused(machine):
    machine.refuses("serial number", "--yes", "0x00000001")


def a_card_without_number_needs_an_answer(machine):
    machine.say("device/serial", "")
    machine.refuses("no serial number", "--yes", SERIAL)


def any_other_answer_writes_nothing(machine):
    for answer in ("", "\n", "y\n", "yes\n", "sdx1\n"):
        machine.refuses("nothing was written", answer=answer)


def what_is_mounted_is_refused(machine):
    machine.mount("8:17", "/media/card")
    machine.refuses("mounted at /media/card")


def the_disk_of_this_machine_is_refused(machine):
    for where in ("/", "/boot/firmware", "/home"):
        machine.mounts.write_text("")
        machine.mount("8:18", where)
        machine.refuses("the disk of this machine")


def swap_is_refused(machine):
    with open(machine.swaps, "a") as file:
        file.write("/dev/sdx2 partition 1 0 -2\n")
    machine.refuses("swap")


def what_a_volume_uses_is_refused(machine):
    (machine.about / "sdx2/holders/dm-0").mkdir()
    machine.refuses("in use by dm-0")


def what_is_not_removable_is_refused(machine):
    machine.say("removable", "0")
    machine.refuses("not removable")
    machine.say("device/type", "MMC")
    machine.refuses("not removable (MMC)")
    machine.say("device/type", "SD")
    assert machine.flash("--yes", SERIAL)[0] == 0, "a card in a slot of its own is a card"


def what_is_too_small_is_refused(machine):
    machine.say("size", str(2 * MIB // 512))
    machine.refuses("too small: 2 MiB")
    machine.say("size", "0")
    machine.refuses("no card")


def what_is_write_protected_is_refused(machine):
    machine.say("ro", "1")
    machine.refuses("write-protected")


def a_part_is_refused(machine):
    machine.say("partition", "1")
    machine.refuses("part of a disk")


def what_is_no_disk_is_refused(machine):
    machine.refuses("no such device", device=machine.folder / "nothing")
    other = machine.folder / "file"
    other.write_bytes(b"")
    machine.refuses("describes no such disk", device=other)


def what_is_no_image_is_wrong_usage(machine):
    machine.image.write_bytes(bytes(4 * MIB))
    assert machine.flash("--yes", SERIAL)[0] == 2


def a_card_that_keeps_something_else_is_found(machine):
    # A card whose byte at 2,000,000 is stuck.
    tools = machine.folder / "tools"
    tools.mkdir()
    (tools / "dd").write_text(
        "#!/bin/sh\n/bin/dd \"$@\" || exit\ncase \"$*\" in *of=*) printf x |"
        f" /bin/dd of={machine.device} bs=1 seek=2000000 conv=notrunc status=none;; esac\n")
    (tools / "dd").chmod(0o755)
    image = bytearray(machine.image.read_bytes())
    image[2000000] = 0
    machine.image.write_bytes(image)
    code, said = machine.flash("--yes", SERIAL, tools=tools)
    assert code == 1 and "reads back something else" in said, (code, said)


TESTS = [a_card_is_written_and_verified, a_script_names_the_card, another_card_is_refused,
         a_card_without_number_needs_an_answer, any_other_answer_writes_nothing,
         what_is_mounted_is_refused, the_disk_of_this_machine_is_refused, swap_is_refused,
         what_a_volume_uses_is_refused, what_is_not_removable_is_refused,
         what_is_too_small_is_refused, what_is_write_protected_is_refused, a_part_is_refused,
         what_is_no_disk_is_refused, what_is_no_image_is_wrong_usage,
         a_card_that_keeps_something_else_is_found]


def loop():
    """A real block device: mounted it is refused, and otherwise written and read back."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        card, image = folder / "card", folder / "door.img"
        card.write_bytes(bytes(32 * MIB))
        image.write_bytes(os.urandom(510) + b"\x55\xaa" + os.urandom(5 * MIB - 512))

        def run(*words, **more):
            return subprocess.run(words, capture_output=True, text=True, **more)
        run("mkfs.ext4", "-q", str(card), check=True)
        device = run("losetup", "--find", "--show", str(card), check=True).stdout.strip()
        try:
            (folder / "mnt").mkdir()
            run("mount", device, str(folder / "mnt"), check=True)
            done = run("bash", str(FLASH), str(image), device, "--yes", "x")
            assert done.returncode == 3 and "is mounted at" in done.stderr, done.stderr
            run("umount", str(folder / "mnt"), check=True)
            done = run("bash", str(FLASH), str(image), device, "--yes", "x")
            assert done.returncode == 3 and "not removable" in done.stderr, done.stderr
            # The kernel says that a loop device is not removable; the rest is real.
            disk = device.rsplit("/", 1)[1]
            about = folder / "sys/class/block" / disk
            (about / "device").mkdir(parents=True)
            for file, text in (("removable", "1"), ("dev", "7:9"), ("device/serial", SERIAL),
                               ("size", Path(f"/sys/class/block/{disk}/size").read_text())):
                (about / file).write_text(text)
            done = run("bash", str(FLASH), str(image), device, "--yes", SERIAL,
                       env={"PATH": os.environ["PATH"], "FACELATCH_SYS": str(folder / "sys")})
            assert done.returncode == 0, done.stdout + done.stderr
            assert card.read_bytes()[:5 * MIB] == image.read_bytes()
        finally:
            run("umount", str(folder / "mnt"))
            run("losetup", "--detach", device)
    print("ok      a loop device is refused while mounted, and written and read back")


def main() -> int:
    for test in TESTS:
        with tempfile.TemporaryDirectory() as folder:
            test(Machine(Path(folder)))
        print(f"ok      {test.__name__.replace('_', ' ')}")
    if "--loop" in sys.argv:
        loop()
    print(f"{len(TESTS)} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
