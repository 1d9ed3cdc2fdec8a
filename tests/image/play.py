#!/usr/bin/env python3
"""Boots images of packaging/image.sh in QEMU and plays what happens to a door's card.

    play.py WORK [--only NAME]... [--cuts N] [--seed N] [--real-time] [--verbose]
                 [--card FILE] [--save FILE] [--log FILE]

WORK is the folder that make.sh made. Exit code: 0 if every scene passed, 1 if one failed.
Scenes build on each other: --save keeps the card after the last scene, and --card begins
with such a card in place of a new one. The log has everything that happened.
"""

import argparse
import json
import random
import shutil
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "board"))

import lines  # noqa: E402
import pictures  # noqa: E402
from board import Log, temporary  # noqa: E402
from card import Card  # noqa: E402
from cuts import power_cuts  # noqa: E402
from machine import Machine  # noqa: E402

MIB = 1 << 20
SIZE = 2048 * MIB
DATA = "/var/lib/facelatch"
# Repeats the frames of a folder for ever, as YUV4MPEG2.
PLAYER = f"""printf 'YUV4MPEG2 W{pictures.WIDTH} H{pictures.HEIGHT} F2:1 Ip A1:1 C420jpeg\\n'
while :; do
    for frame in {DATA}/frames/*; do
        cat "$frame" || exit
        sleep 0.4
    done
done
"""


def y4m(picture) -> bytes:
    """A frame of 4:2:0 in full range."""
    luma, blue, red = bytearray(), bytearray(), bytearray()
    for y, row in enumerate(picture.rows):
        for x in range(0, len(row), 3):
            r, g, b = row[x:x + 3]
            luma.append((77 * r + 150 * g + 29 * b) >> 8)
            if y % 2 == 0 and x % 2 == 0:
                blue.append(max(0, min(255, (-43 * r - 85 * g + 128 * b) // 256 + 128)))
                red.append(max(0, min(255, (128 * r - 107 * g - 21 * b) // 256 + 128)))
    return b"FRAME\n" + luma + blue + red


class Door:
    """The door through several starts, with one card."""

    def __init__(self, work: Path, folder: Path, log, cpu: str, seed: int, real_time: bool,
                 card: Path | None = None):
        self.work, self.folder, self.log, self.cpu = work, folder, log, cpu
        self.chance, self.real_time = random.Random(seed), real_time
        self.card = Card(folder, card or work / "door.img", SIZE)
        self.machine = None
        self.notes = []
        self.frames = {}
        people = pictures.people()
        for who in ("administrator", "stranger", "empty"):
            self.frames[who] = [y4m(people[who].moved(*frame)) for frame in pictures.FRAMES]
        self.photo = people["administrator"].jpeg()
        self.newcomer = people["newcomer"].jpeg()
        self.turned = people["administrator turned"].jpeg()
        if not card:
            self.before_first_start()

    def before_first_start(self):
        """Puts the camera's frames onto the data partition, as the first start finds them."""
        stage = self.folder / "stage"
        stage.mkdir(exist_ok=True)
        (stage / "play").write_text(PLAYER)
        commands = ["mkdir facelatch/frames", f"write {stage}/play facelatch/play"]
        for number, frame in enumerate(self.frames["empty"]):
            (stage / f"{number}").write_bytes(frame)
            commands.append(f"write {stage}/{number} facelatch/frames/{number}")
        with open(self.card.image, "rb") as file:
            file.seek(446 + 3 * 16 + 8)
            start = struct.unpack("<I", file.read(4))[0] * 512
        done = subprocess.run(["debugfs", "-w", "-f", "-", f"{self.card.image}?offset={start}"],
                              input="\n".join(commands), capture_output=True, text=True)
        if "Allocated inode" not in done.stdout:
            raise RuntimeError(f"debugfs: {done.stdout} {done.stderr}")

    def note(self, text: str):
        self.notes.append(text)
        self.log("test", text)

    def start(self) -> Machine:
        self.machine = Machine(self.folder, self.card, self.work / "u-boot.bin",
                               self.work / "admin", self.log, self.cpu, self.real_time)
        return self.machine

    def cut(self) -> dict:
        """Cuts the power."""
        self.machine.cut()
        left = self.card.keep(self.chance)
        self.log("host", f"power cut after {self.machine.age():.0f} s: {left['kept']} writes on the"
                         f" card, {left['lost']} lost")
        return left

    def off(self):
        """Shuts the board down in order."""
        self.machine.command("sudo systemctl poweroff")
        self.machine.process.wait(600)
        self.card.keep(None)

    def show(self, who: str):
        """Shows somebody to the camera."""
        for number, frame in enumerate(self.frames[who]):
            self.machine.root(f"cat >{DATA}/frames/{number}.new && chmod 644 {DATA}/frames/{number}.new"
                              f" && mv {DATA}/frames/{number}.new {DATA}/frames/{number}", frame)

    def people(self) -> dict:
        said = self.machine.root("facelatch people list --json")
        found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        return {person["name"]: person for person in found}

    def slot(self) -> str:
        return self.machine.must("sudo facelatch-update status | sed -n 's/^running: //p'").strip()

    def restart(self, seconds: float = 3600) -> float:
        """Restarts the board and waits until the door is up."""
        begun, before = time.monotonic(), len(self.machine.starts)
        self.machine.command("sudo systemctl reboot", seconds=60)
        while len(self.machine.starts) == before:
            if time.monotonic() > begun + seconds:
                raise TimeoutError("the board did not restart")
            time.sleep(1)
        self.machine.up(seconds)
        return time.monotonic() - begun

    @property
    def boot(self) -> str:
        return self.machine.must("cat /proc/sys/kernel/random/boot_id").strip()


def first_start(door):
    """A new card starts into a locked door, makes its keys and takes the rest of the card."""
    machine = door.start()
    seconds = machine.up()
    door.note(f"first start to a locked door: {seconds:.0f} s")
    assert machine.gpio.level(lines.RELAY) == 0, "the relay is on"
    # The first entry is the level at power on.
    assert not any(level for _, level in machine.gpio.changes(lines.RELAY)), "the relay was on"
    service = machine.status()
    assert service["door"]["state"] == "locked", service["door"]
    assert door.slot() == "A"
    size = int(machine.must("df --output=size -B1M /data | tail -1"))
    assert size > 700, f"/data has {size} MiB"
    machine.root("test -s /data/ssh/ssh_host_ed25519_key && test -s /data/register/door.key")


def another_start(door):
    """A card of another play starts into a locked door."""
    door.note(f"start to a locked door: {door.start().up():.0f} s")


def hardened(door):
    """Nothing of the system is written, nobody has a password, nothing but ssh listens."""
    machine = door.machine
    wrong = []

    def check(right: bool, text):
        if not right:
            wrong.append(str(text))

    for path in ("/", "/etc", "/usr", "/var/lib", "/etc/facelatch"):
        code, _ = machine.command(f"sudo touch {path}/probe")
        check(code, f"{path} can be written")
    shadow = machine.root("cut -d: -f1,2 /etc/shadow").split()
    check(len(shadow) > 10 and all(line.split(":")[1] in ("*", "!", "!*", "!!") for line in shadow), shadow)
    # Masked units may be listed; none may run or wait for somebody.
    units = machine.must("systemctl list-units --all --plain --no-legend | awk '{ print $1, $2, $3 }'").splitlines()
    check("ssh.service loaded active" in units, units)
    for unit in units:
        name, loaded, active = unit.split()
        if any(part in name for part in ("getty", "debug-shell", "sshd-", "ssh.socket", "rescue", "emergency")):
            check(active == "inactive", unit)
    generated = machine.root("find /run/systemd/generator* -name '*getty*' -o -name '*ssh*'").split()
    check(not generated, generated)
    # Sockets: of IP only ssh, the DHCP client, and the resolver on this machine.
    for kind, state, allowed in (("tcp", "0A", {"0016"}), ("udp", "07", {"0044", "0222"})):
        bound = machine.root(f"cat /proc/net/{kind} /proc/net/{kind}6 | awk '$4 == \"{state}\" {{ print $2 }}'").split()
        outside = {line.rsplit(":", 1)[1] for line in bound
                   if not line.startswith(("0100007F", "3500007F", "3600007F"))}
        check(outside <= allowed and (kind == "udp" or outside), (kind, bound))
    check(len(machine.must("cat /proc/swaps").splitlines()) == 1, "there is swap")
    check(machine.must("cat /sys/module/usbcore/parameters/authorized_default").strip() == "0", "USB is authorized")
    journal = machine.must("ls -d /run/log/journal /var/log/journal 2>/dev/null || true").split()
    check(journal == ["/run/log/journal"], journal)
    watchdog = machine.must("systemctl show --property RuntimeWatchdogUSec")
    check("14s" in watchdog, watchdog)
    failed = machine.must("systemctl --failed --plain --no-legend | cut -d' ' -f1").split()
    check(not failed, failed)
    memory = machine.must("free -m | awk '/Mem/ { print $3 \" of \" $2 \" MiB used\" }'").strip()
    door.note(f"systemd-analyze: {machine.must('systemd-analyze time').splitlines()[0]}")
    door.note(f"memory: {memory}")
    masked = [unit.split()[0] for unit in units if " masked " in unit and ("getty" in unit or "ssh" in unit)]
    door.note(f"{len(units)} units; of ssh and getty masked: {' '.join(masked) or 'none loaded'}")
    assert not wrong, wrong


def enrolled_and_let_in(door):
    """Somebody is enrolled, and the door opens for them and for nobody else."""
    machine = door.machine
    machine.root("cat >/var/lib/facelatch/a.jpg", door.photo)
    machine.root("cat >/var/lib/facelatch/b.jpg", door.turned)
    machine.root("chown facelatch /var/lib/facelatch/*.jpg; runuser -u facelatch --"
                 " facelatch enroll 'Grace Hopper' --image /var/lib/facelatch/a.jpg /var/lib/facelatch/b.jpg")
    assert "Grace Hopper" in door.people()
    door.show("stranger")
    time.sleep(20)
    assert machine.gpio.level(lines.RELAY) == 0
    begun = time.monotonic()
    door.show("administrator")
    machine.gpio.wait(lines.RELAY, 1, 300)
    door.note(f"from the face to the open lock: {time.monotonic() - begun:.0f} s")
    # Each recognition of a face that stays opens again.
    door.show("empty")
    machine.gpio.wait(lines.RELAY, 0, 300)


def decides_after_start(door):
    """After a restart the first decision is made without anybody's help."""
    door.show("administrator")
    door.off()
    machine = door.start()
    machine.gpio.wait(lines.RELAY, 1, 900)
    door.note(f"start to first decision: {machine.age():.0f} s")
    machine.up()
    door.show("empty")


def good_update(door):
    """A signed update is installed, started, and kept once the door works."""
    machine = door.machine
    machine.root("cat >/data/good.raucb", (door.work / "good.raucb").read_bytes())
    boot = door.boot
    begun = time.monotonic()
    machine.must("sudo facelatch-update install --no-restart /data/good.raucb", seconds=1200)
    door.note(f"installing an update: {time.monotonic() - begun:.0f} s")
    assert door.boot == boot
    door.restart()
    assert door.slot() == "B"
    kept(door, "B")


def kept(door, slot: str):
    """Waits until a slot is kept."""
    end = time.monotonic() + 600
    while f"kept: {slot}" not in door.machine.must("sudo facelatch-update status"):
        assert time.monotonic() < end, f"slot {slot} was not kept"
        time.sleep(3)


def foreign_update(door):
    """An update that somebody else signed, or that was changed, is refused."""
    machine = door.machine
    for name in ("foreign.raucb", "changed.raucb"):
        machine.root("cat >/data/bad.raucb", (door.work / name).read_bytes())
        code, said = machine.command("sudo facelatch-update install --no-restart /data/bad.raucb")
        assert code == 1 and "was not installed" in said, (name, code, said)
        assert "next start: B" in machine.must("sudo facelatch-update status"), name


def goes_back(door, name: str):
    machine = door.machine
    slot = door.slot()
    machine.root("cat >/data/bad.raucb", (door.work / name).read_bytes())
    machine.must("sudo facelatch-update install --no-restart /data/bad.raucb", seconds=1200)
    begun, before = time.monotonic(), len(machine.starts)
    machine.command("sudo systemctl reboot", seconds=60)
    # The trial, and the way back from it.
    while len(machine.starts) < before + 2:
        assert time.monotonic() < begun + 3600, "the board did not go back"
        time.sleep(1)
    machine.up()
    door.note(f"{name}: locked again {time.monotonic() - begun:.0f} s after the restart into it")
    other = {"A": "B", "B": "A"}[slot]
    assert machine.starts[before:] == [other, slot], machine.starts
    assert door.slot() == slot
    said = machine.must("sudo facelatch-update status")
    assert f"kept: {slot}" in said and f"next start: {slot}" in said, said


def update_that_does_not_start(door):
    """An update whose system cannot be mounted: the board goes back by itself."""
    goes_back(door, "broken.raucb")


def update_without_a_door(door):
    """An update whose door never becomes ready: the board goes back by itself."""
    goes_back(door, "silent.raucb")


def update_that_is_cut(door):
    """The power fails while an update is written: the old system starts, and it can be repeated."""
    for _ in range(2):
        machine = door.machine
        slot = door.slot()
        machine.root("cat >/data/good.raucb && sync", (door.work / "good.raucb").read_bytes())
        process = subprocess.Popen(
            ["ssh", "-q", "-i", str(machine.key), "-p", str(machine.port), "-o", "BatchMode=yes",
             "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
             "admin@127.0.0.1", "sudo facelatch-update install --no-restart /data/good.raucb"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = door.card.log.stat().st_size
        # Some of the system's 200 MB are written.
        amount = door.chance.randrange(5, 120) * MIB
        end = time.monotonic() + 600
        while door.card.log.stat().st_size < before + amount and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.1)
        written = (door.card.log.stat().st_size - before) // MIB
        assert process.poll() is None, f"the update ended after {written} MiB"
        door.cut()
        process.kill()
        process.wait()
        door.start().up()
        assert door.slot() == slot, "a half-written system was started"
        door.note(f"cut after {written} MiB of an update: slot {slot} starts")
    good = {"A": "B", "B": "A"}[slot]
    machine = door.machine
    machine.must("sudo facelatch-update install --no-restart /data/good.raucb", seconds=1200)
    door.restart()
    assert door.slot() == good
    kept(door, good)


def everything_given(door):
    """A card with every option: models, Wi-Fi, USB devices, servers of time, link."""
    if door.machine:
        door.machine.cut()
    door.card = Card(door.folder, door.work / "everything.img", SIZE)
    door.before_first_start()
    machine = door.start()
    seconds = machine.up()
    assert machine.must("uname -n").strip() == "everything"

    def installed(state: str) -> str:
        end = time.monotonic() + 1800
        while state != machine.must("systemctl show --value --property ActiveState door-models").strip() or \
                machine.command("sudo test -e /data/settings/models.tar")[0] == 0:
            assert time.monotonic() < end, "the set of models is not installed"
            time.sleep(2)
        return machine.root("runuser -u facelatch -- facelatch models list")

    listed = installed("inactive")
    door.note(f"first start with models: locked after {seconds:.0f} s, installed after {machine.age():.0f} s")
    current, rest = listed.splitlines()[0], listed.split("built-in")[0]
    assert "current" in current and "signed by office" in rest, listed
    assert '"event":"models"' in machine.root("facelatch log show --kind models --json")
    used = machine.status()["models"], machine.status()["model_set"]
    assert "office" in str(used), used
    machine.root("cat >/data/settings/models.tar", (door.work / "foreign-set.tar").read_bytes())
    machine.command("sudo systemctl restart door-models")
    assert installed("failed") == listed
    machine.root("test -e /data/settings/models.refused")
    assert "was refused" in machine.root("journalctl --unit door-models")
    machine.root("systemctl reset-failed door-models")
    assert machine.status()["relay"]["state"] == "answering"

    rules = machine.must("cat /run/udev/rules.d/61-door-usb.rules")
    assert 'KERNEL=="1-1", ATTR{idVendor}=="1a86", ATTR{idProduct}=="7523", ATTR{authorized}="1"' in rules, rules
    assert "ID_USB_INTERFACES" not in rules, rules
    sources = machine.root("chronyc -N sources -n 2>/dev/null; cat /data/settings/time/door.sources")
    assert "time.example" in sources, sources

    # A radio that the kernel emulates, which finds no network.
    machine.root("modprobe mac80211_hwsim radios=1; udevadm settle; systemctl restart wpa_supplicant@wlan0")
    running = machine.must("systemctl is-active wpa_supplicant@wlan0; ps -C wpa_supplicant -o args=")
    assert "active" in running.split() and "-c/data/settings/wifi.conf" in running, running
    # It has switched the radio on; without a network there is no more to see.
    assert int(machine.must("cat /sys/class/net/wlan0/flags"), 16) & 1, "the radio is off"

    if machine.command("test -e /usr/bin/facelatch-link")[0] == 0:
        machine.must("systemctl is-active facelatch-link")
        owner = machine.must("stat -c %U:%G:%a /etc/facelatch/link.toml /etc/facelatch/link").split()
        assert owner == ["root:facelatch-link:640", "root:facelatch-link:2750"], owner
        said = machine.root("systemctl show --property ExecMainStatus,NRestarts,ActiveEnterTimestampMonotonic facelatch-link;"
                            " ls -ld /var/lib/facelatch-link; journalctl --unit facelatch-link | tail -5")
        assert "NRestarts=0" in said, said
        door.note("facelatch-link is active")
    failed = machine.must("systemctl --failed --plain --no-legend | cut -d' ' -f1").split()
    assert not failed, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu", default="cortex-a76")
    parser.add_argument("--real-time", action="store_true",
                        help="two threads and the host's clock: faster where nothing else runs")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--card", type=Path, help="begin with a card that --save kept")
    parser.add_argument("--save", type=Path, help="keep the card after the last scene")
    parser.add_argument("--log", type=Path, help="[WORK/last.log]")
    args = parser.parse_args()
    scenes = [first_start, hardened, enrolled_and_let_in, decides_after_start, good_update,
              foreign_update, update_that_does_not_start, update_without_a_door,
              update_that_is_cut, lambda door: power_cuts(door, args.cuts), everything_given]
    scenes[-2].__name__, scenes[-2].__doc__ = "power_cuts", power_cuts.__doc__
    if args.only:
        scenes = [scene for scene in scenes if scene.__name__ in args.only or scene is first_start]
    if args.only == ["everything_given"]:
        scenes = [everything_given]
    elif args.card:
        scenes = [another_start, *(scene for scene in scenes if scene is not first_start)]
    folder = temporary("facelatch-image")
    log = Log(args.log or args.work / "last.log", args.verbose)
    door, failed = None, 0
    try:
        door = Door(args.work, folder, log, args.cpu, args.seed, args.real_time, args.card)
        for scene in scenes:
            begun = time.monotonic()
            log("test", f"scene: {scene.__name__}: {scene.__doc__}")
            notes = len(door.notes)
            try:
                scene(door)
                wrong = None
            except Exception as error:  # the summary must be printed
                wrong = f"{type(error).__name__}: {error}"
                log("test", traceback.format_exc())
            log.say(f"  {'FAILED' if wrong else 'ok    '} {time.monotonic() - begun:6.0f} s "
                    f" {scene.__name__.replace('_', ' ')}{': ' + wrong if wrong else ''}")
            for text in door.notes[notes:]:
                log.say(f"                    {text}")
            if wrong:
                failed = 1
                break
        if args.save and not failed:
            door.off()
            subprocess.run(["cp", "--sparse=always", door.card.image, args.save], check=True)
    finally:
        if door and door.machine:
            door.machine.cut()
        shutil.rmtree(folder, ignore_errors=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
