"""The scenes of one boot, and of the boot after the power cut.

Each scene starts from the state that the one before it left, with nobody in front of the
camera, and ends that way. Assertions look at the board from outside: levels of lines,
bytes on the serial port, exit codes, and the gallery as the program lists it. The log of
the program only shows when a scene can continue.
"""

import hashlib
import json
import shutil
import time
import tomllib
from pathlib import Path

import lines
from service import (ADMINISTRATOR_AWAITED, CAMERA_AWAY, CAMERA_BACK, CAMERA_HANGS, CONFIG,
                     ENROLLED, FIRST_AWAITED, GRANTED, HELD, LCUS, LINE_AWAY, LINE_BACK, LOCKED_DOWN,
                     NEWCOMER_AWAITED, PROGRAM, RELAY_BACK, SERIAL, STRANGER, Service)

ROOT = Path(__file__).resolve().parents[2]
# As in facelatch.toml.
OPEN_FOR, EXIT_FOR, HELD_OPEN_AFTER = 4.0, 3.0, 8.0
# Tolerance on the length of a pulse, seconds: polling makes it look shorter, and the guest
# commands that read the clock make it look longer.
EARLY, LATE = 0.5, 3.0
# Timeout for events that must happen, seconds: far longer than an idle machine needs.
PATIENCE = 1200
# How long to watch when nothing may happen, seconds.
QUIET = 3.0
# Names of the board's GPIO chip, for programs and for the kernel.
CHIP = "/dev/gpiochip0"
CHIP_DEVICE = "9030000.pl061"
CHIP_DRIVER = "/sys/bus/amba/drivers/pl061_gpio"
# Length of a press by the guest's clock, seconds: long enough to register, too short for a
# hold.
PRESS = 0.5


class Gate:
    """The relay in use, on the GPIO line or the serial port, with one interface."""

    def __init__(self, board, serial: bool):
        self.board, self.serial = board, serial

    def wait(self, state: int, seconds: float) -> float:
        if self.serial:
            return self.board.relay.wait(1, state, seconds)
        return self.board.gpio.wait(lines.RELAY, state, seconds)

    def changes(self, since: float) -> list:
        if self.serial:
            return self.board.relay.changes(1, since)
        return self.board.gpio.changes(lines.RELAY, since)

    def stays_locked(self, since: float, seconds: float = 0.0):
        """Asserts that the relay has not moved since a time, nor does for some more seconds."""
        self.board.guest.sleep(seconds)
        changes = self.changes(since)
        assert not changes, f"the relay moved: {changes}"

    def pulse(self, since: float, length: float):
        """Asserts that the door opens once, for `length` seconds. The guest's clock is never
        ahead of ours, so ours shows a pulse that is too short, and the guest's one that is
        too long."""
        self.wait(1, PATIENCE)
        opened = self.board.guest.uptime()
        self.wait(0, PATIENCE)
        there = self.board.guest.uptime() - opened
        changes = [(at, state) for at, state in self.changes(since)]
        assert [state for _, state in changes] == [1, 0], f"not one pulse: {changes}"
        here = changes[1][0] - changes[0][0]
        assert length - EARLY <= here, f"open for {here:.1f} s, not {length}"
        assert there <= length + LATE, f"open for {there:.1f} s, not {length}"


def gate(board) -> Gate:
    return Gate(board, board.serial)


def start(board, serial: bool):
    board.serial = serial
    board.service.start(SERIAL if serial else None)


def leave(board):
    """The person walks away, for long enough to start a new track next time."""
    board.camera.show("empty")
    board.guest.sleep(QUIET)


def admitted(board, who: str):
    """A person steps in front of the camera, and the door opens for the configured time."""
    begun = time.monotonic()
    board.camera.show(who)
    gate(board).wait(1, PATIENCE)
    board.camera.show("empty")
    gate(board).pulse(begun, OPEN_FOR)
    leave(board)


def refused(board, who: str):
    """A person steps in front of the camera, the buzzer sounds, and the door stays locked."""
    begun, mark = time.monotonic(), board.said.mark()
    board.camera.show(who)
    board.gpio.wait(lines.BUZZER, 1, PATIENCE)
    board.said.wait(STRANGER, PATIENCE, mark)
    gate(board).stays_locked(begun, QUIET)
    leave(board)


def buzzes(board, since: float) -> int:
    return sum(level for _, level in board.gpio.changes(lines.BUZZER, since))


def hold_the_button(board, mark: int, until: str = ADMINISTRATOR_AWAITED):
    board.gpio.drive(lines.BUTTON, 0)
    board.said.wait(until, PATIENCE, mark)
    board.gpio.drive(lines.BUTTON, 1)


def an_administrator_allows_it(board, mark: int):
    board.camera.show("administrator")
    board.said.wait(NEWCOMER_AWAITED, PATIENCE, mark)


def enrolled(board, who: str, mark: int) -> dict:
    """Takes two views of a person, each with a sound. Returns the new, still unnamed person
    in the gallery."""
    before = board.service.people()
    begun = time.monotonic()
    board.camera.show(who)
    board.gpio.wait(lines.BUZZER, 1, PATIENCE)
    board.camera.show(f"{who} turned")
    board.said.wait(ENROLLED, PATIENCE, mark)
    assert buzzes(board, begun) >= 2, "no sound for each view"
    leave(board)
    people = board.service.people()
    [name] = set(people) - set(before)
    assert len(people) == len(before) + 1 and people[name]["templates"] == 2, people
    return people[name]


def checked(board):
    """Before the service starts: `camera list` shows the camera, and `check` finds no fault;
    after the camera is removed, `check` reports that fault only."""
    board.service = Service(board)
    board.service.install()
    board.camera.show("administrator")
    board.guest.sleep(1)
    assert "Door camera" in board.guest.must(f"{PROGRAM} camera list")
    board.service.command("check")
    board.camera.gone()
    code, output = board.guest.run(f"{PROGRAM} check --config {CONFIG} --json", PATIENCE)
    wrong = [line for line in output.splitlines() if '"wrong"' in line]
    assert code == 1 and len(wrong) == 1 and '"camera"' in wrong[0], output


def starts_with_nobody(board):
    """With an empty gallery and the relay on the GPIO line, the door is locked and nobody is
    let in."""
    board.camera.show("empty")
    start(board, serial=False)
    board.gpio.wait(lines.RELAY, 0, PATIENCE)
    assert board.service.people() == {}
    refused(board, "administrator")


def line_held(board):
    """While another program holds the relay's line, the door does not open, and log and check
    name that program; when it releases the line, the service takes it."""
    board.service.stop()
    mark = board.said.mark()
    board.guest.must(f"{{ probe set {CHIP} {lines.RELAY} 0 3600000 & echo $! >/run/holder; }}"
                     " >/dev/null 2>&1")
    begun = time.monotonic()
    start(board, serial=False)
    board.said.wait(HELD, PATIENCE, mark)
    code, output = board.guest.run(f"{PROGRAM} check --config {CONFIG} --json", PATIENCE)
    wrong = [line for line in output.splitlines() if '"wrong"' in line]
    assert code == 1 and len(wrong) == 1 and "held by" in wrong[0] and "probe" in wrong[0], output
    board.gpio.press(lines.EXIT, PRESS, board.guest.sleep)
    gate(board).stays_locked(begun, QUIET)
    mark = board.said.mark()
    board.guest.must("kill $(cat /run/holder)")
    board.said.wait(RELAY_BACK, PATIENCE, mark)
    exit_requested(board)


def chip_gone(board):
    """The GPIO chip disappears with all its lines and comes back; the program opens them
    again, and a request to exit works."""
    mark = board.said.mark()
    board.guest.must(f"echo {CHIP_DEVICE} >{CHIP_DRIVER}/unbind")
    board.said.wait(LINE_AWAY, PATIENCE, mark)
    board.guest.sleep(QUIET)
    assert board.service.running(), "the service did not survive"
    mark = board.said.mark()
    board.guest.must(f"echo {CHIP_DEVICE} >{CHIP_DRIVER}/bind")
    board.said.wait(LINE_BACK, PATIENCE, mark)
    board.said.wait(RELAY_BACK, PATIENCE, mark)
    exit_requested(board)


def the_first_person_is_administrator(board):
    """With an empty gallery the button does nothing before a local reset; after it the first
    person is enrolled as administrator and gets a name."""
    hold_the_button(board, board.said.mark(), "not enrolling: ")
    board.service.command("door local-reset")
    mark = board.said.mark()
    hold_the_button(board, mark, FIRST_AWAITED)
    first = enrolled(board, "administrator", mark)
    assert first["administrator"], first
    board.service.command(f"people rename {first['name']} Administrator")
    assert list(board.service.people()) == ["Administrator"]


def strangers_refused(board):
    """A stranger and the newcomer, who is not enrolled yet, are refused."""
    refused(board, "stranger")
    refused(board, "newcomer")


def the_button_alone_enrolls_nobody(board):
    """The button is held with a stranger in view: nobody is enrolled, and a press cancels."""
    begun, mark = time.monotonic(), board.said.mark()
    hold_the_button(board, mark)
    board.camera.show("stranger")
    board.guest.sleep(3 * QUIET)
    board.gpio.press(lines.BUTTON, PRESS, board.guest.sleep)
    board.said.wait("not enrolled: cancelled", PATIENCE, mark)
    gate(board).stays_locked(begun)
    leave(board)
    assert list(board.service.people()) == ["Administrator"]


def enrolled_by_button(board):
    """Button, administrator and two views enroll the newcomer."""
    mark = board.said.mark()
    hold_the_button(board, mark)
    an_administrator_allows_it(board, mark)
    newcomer = enrolled(board, "newcomer", mark)
    assert not newcomer["administrator"], newcomer
    board.newcomer = newcomer["name"]


def admitted_by_gpio(board):
    """The newcomer is let in: the relay line is high for the configured time, then low."""
    admitted(board, "newcomer")


def admitted_by_serial(board):
    """The newcomer is let in with the relay on the serial port, which answers and is read
    back; the GPIO line does not move."""
    board.service.stop()
    begun = time.monotonic()
    start(board, serial=True)
    answered = board.relay.answered
    admitted(board, "newcomer")
    assert board.relay.answered > answered, "the relay was not asked"
    assert board.relay.spoiled == 0, "messages with a wrong sum"
    assert not board.gpio.changes(lines.RELAY, begun), "the GPIO relay moved too"


def exit_requested(board):
    """A request to exit opens the door without a face."""
    begun = time.monotonic()
    board.gpio.press(lines.EXIT, PRESS, board.guest.sleep)
    gate(board).pulse(begun, EXIT_FOR)


def lockdown(board):
    """The command lockdown keeps everybody out, while people inside can leave; the command
    normal ends it."""
    begun, mark = time.monotonic(), board.said.mark()
    board.service.command("door lockdown")
    board.camera.show("newcomer")
    board.gpio.wait(lines.BUZZER, 1, PATIENCE)
    board.said.wait(LOCKED_DOWN, PATIENCE, mark)
    gate(board).stays_locked(begun, QUIET)
    leave(board)
    exit_requested(board)
    status = json.loads(board.service.command("status --json"))
    assert status["service"]["door"]["mode"] == "lockdown", status
    board.service.command("door normal")
    admitted(board, "newcomer")


def clock_jumps(board):
    """The wall clock is set back and far ahead: the door that is open stays open for its
    usual time, and nothing opens because of the jump."""
    begun = time.monotonic()
    board.camera.show("newcomer")
    gate(board).wait(1, PATIENCE)
    board.camera.show("empty")
    board.guest.must("date -s '2020-02-29 12:00:00'")
    gate(board).pulse(begun, OPEN_FOR)
    leave(board)
    begun = time.monotonic()
    board.guest.must("date -s '2037-12-31 23:59:59'")
    gate(board).stays_locked(begun, QUIET)
    admitted(board, "newcomer")


def camera_stalls(board):
    """The camera stops sending frames: this is logged and the door stays locked; when it
    sends again, the newcomer is let in."""
    begun, mark = time.monotonic(), board.said.mark()
    board.camera.stall()
    board.said.wait(CAMERA_AWAY, PATIENCE, mark)
    gate(board).stays_locked(begun)
    # A request to exit does not need the camera.
    exit_requested(board)
    mark = board.said.mark()
    board.camera.show("empty")
    board.said.wait(CAMERA_BACK, PATIENCE, mark)
    admitted(board, "newcomer")


def camera_hangs(board):
    """The camera freezes on a picture of an enrolled person: this opens nothing and is
    logged. When it recovers, the newcomer is let in."""
    begun, mark = time.monotonic(), board.said.mark()
    board.camera.hang("newcomer")
    board.said.wait(CAMERA_HANGS, PATIENCE, mark)
    gate(board).stays_locked(begun, 2 * QUIET)
    admitted(board, "newcomer")


def camera_gone(board):
    """The camera disappears and comes back in another format."""
    begun, mark = time.monotonic(), board.said.mark()
    board.camera.gone()
    board.said.wait(CAMERA_AWAY, PATIENCE, mark)
    gate(board).stays_locked(begun, QUIET)
    board.camera.format = "MJPG"
    board.camera.show("empty")
    board.said.wait(CAMERA_BACK, PATIENCE, mark)
    admitted(board, "newcomer")


def relay_unplugged(board):
    """While the relay is unplugged the door does not open; plugging it in opens nothing, and
    the next person is let in."""
    begun, mark = time.monotonic(), board.said.mark()
    board.machine.unplug_relay()
    board.camera.show("newcomer")
    board.said.wait(GRANTED, PATIENCE, mark)
    leave(board)
    assert board.service.running(), "the service did not survive"
    # Wait until the grant is over before plugging the relay in again.
    board.guest.sleep(OPEN_FOR)
    board.machine.plug_relay()
    gate(board).stays_locked(begun, 3 * QUIET)
    admitted(board, "newcomer")


def relay_replugged_at_once(board):
    """The relay is unplugged for a moment: its port gets another number because the program
    still holds the old one, and is found by its stable name."""
    begun = time.monotonic()
    board.machine.unplug_relay()
    time.sleep(0.3)
    board.machine.plug_relay()
    gate(board).stays_locked(begun, 3 * QUIET)
    admitted(board, "newcomer")


def held_open(board):
    """A person is let in and the door is not closed: the buzzer sounds repeatedly until it
    is."""
    begun = time.monotonic()
    board.camera.show("newcomer")
    gate(board).wait(1, PATIENCE)
    board.camera.show("empty")
    board.gpio.drive(lines.CONTACT, 1)
    opened = time.monotonic()
    gate(board).wait(0, PATIENCE)
    early = time.monotonic()
    board.gpio.wait(lines.BUZZER, 1, PATIENCE)
    assert time.monotonic() - opened >= HELD_OPEN_AFTER - EARLY, "alarmed too early"
    board.guest.sleep(5)
    assert buzzes(board, early) >= 3, "the alarm does not go on"
    board.gpio.drive(lines.CONTACT, 0)
    board.guest.sleep(2)
    closed = time.monotonic()
    board.guest.sleep(QUIET)
    assert not buzzes(board, closed), "the alarm does not end"
    assert [state for _, state in gate(board).changes(begun)] == [1, 0]


def forced(board):
    """The door is opened although nobody was let in: the alarm sounds at once."""
    begun = time.monotonic()
    board.gpio.drive(lines.CONTACT, 1)
    board.gpio.wait(lines.BUZZER, 1, PATIENCE)
    gate(board).stays_locked(begun)
    board.gpio.drive(lines.CONTACT, 0)
    leave(board)


def killed_while_open(board):
    """The program is killed with the door open: a relay with `flash` falls back after its
    time; a GPIO line keeps its level until the program starts again, which locks first."""
    begun = time.monotonic()
    board.camera.show("newcomer")
    gate(board).wait(1, PATIENCE)
    board.camera.show("empty")
    board.service.kill()
    gate(board).wait(0, PATIENCE)
    assert [state for _, state in gate(board).changes(begun)] == [1, 0]
    start(board, serial=False)
    leave(board)
    begun = time.monotonic()
    board.camera.show("newcomer")
    gate(board).wait(1, PATIENCE)
    board.camera.show("empty")
    board.service.kill()
    start(board, serial=False)
    gate(board).wait(0, PATIENCE)
    leave(board)
    assert [state for _, state in gate(board).changes(begun)] == [1, 0]


def killed_open(board, serial: str | None):
    """Starts the service with this relay, opens the door by a request to exit, and kills the
    service before the door closes."""
    board.serial = serial is not None
    board.service.start(serial)
    board.guest.sleep(QUIET)
    board.gpio.press(lines.EXIT, PRESS, board.guest.sleep)
    gate(board).wait(1, PATIENCE)
    board.service.kill()


def killed_and_misconfigured(board):
    """The program is killed with the door open, and its configuration no longer parses: the
    next start locks first and then reports the fault, on the GPIO line and on a serial relay
    that keeps its state. Without a start, `door release-relay` locks."""
    board.service.stop()
    for serial in (None, LCUS):
        begun = time.monotonic()
        killed_open(board, serial)
        board.guest.must(f"echo '[door' >>{CONFIG}")
        code, output = board.guest.run(f"{PROGRAM} run --config {CONFIG}", PATIENCE)
        assert code == 1 and CONFIG in output and "not valid TOML" in output, output
        # Nothing else runs on the board that could lock it later.
        gate(board).wait(0, QUIET)
        killed = [state for _, state in gate(board).changes(begun)]
        assert killed == [1, 0], killed
        board.guest.must(f"cp /mnt/facelatch.toml {CONFIG}")
        begun = time.monotonic()
        killed_open(board, serial)
        said = board.service.command("door release-relay")
        assert "is off, the door is locked" in said, said
        gate(board).wait(0, QUIET)
        assert [state for _, state in gate(board).changes(begun)] == [1, 0]
    start(board, serial=False)


def killed_while_enrolling(board):
    """The program is killed between two views of an enrolment: after its restart the gallery
    is unchanged."""
    before = board.service.people()
    begun, mark = time.monotonic(), board.said.mark()
    hold_the_button(board, mark)
    an_administrator_allows_it(board, mark)
    board.camera.show("stranger")
    board.gpio.wait(lines.BUZZER, 1, PATIENCE)
    board.service.kill()
    board.camera.show("empty")
    gate(board).stays_locked(begun)
    start(board, serial=False)
    assert board.service.people() == before
    refused(board, "stranger")
    admitted(board, "newcomer")


def power_cut(board):
    """The newcomer gets a name, and the power is cut as soon as the command reports success,
    with the service running. After the boot the gallery is complete and has the name."""
    before = board.service.people()
    board.service.command(f"people rename {board.newcomer} 'Ada Lovelace'")
    board.cut_power()
    board.camera.gone()
    board.boot()
    board.camera.show("empty")
    board.service.install()
    after = board.service.people()
    expected = {"Administrator": before["Administrator"],
                "Ada Lovelace": {**before[board.newcomer], "name": "Ada Lovelace"}}
    assert after == expected, f"{after} instead of {expected}"
    start(board, serial=False)
    refused(board, "stranger")
    admitted(board, "newcomer")


def upgraded(board):
    """The disk has a gallery and a set of models of earlier versions, neither sealed nor
    signed: both stay in use, the gallery is sealed, and its unsealed file goes with the next
    start."""
    board.service.stop()
    state = "/var/lib/facelatch"
    old_set = board.share / "old-set"
    shutil.copytree(ROOT / "models", old_set, ignore=shutil.ignore_patterns("float", "README.md"))
    digest = hashlib.sha256((old_set / "manifest.toml").read_bytes()).hexdigest()[:8]
    version = tomllib.loads((old_set / "manifest.toml").read_text())["version"]
    shutil.copy(ROOT / "tests/data/gallery-with-crops-of-112.redb", board.share / "old.redb")
    board.guest.must(
        f"rm -rf {state}/gallery.* {state}-register/* {state}/models; mkdir {state}/models"
        f" && cp -r /mnt/old-set {state}/models/{version}+{digest}"
        f" && echo 'current = \"{version}+{digest}\"' >{state}/models/current.toml"
        f" && cp /mnt/old.redb {state}/gallery.redb && chmod 600 {state}/gallery.redb"
        f" && grep -q 'Eileen Collins' {state}/gallery.redb")
    start(board, serial=False)
    listed = [json.loads(line) for line in board.service.command("models list --json").splitlines()
              if line.startswith("{")]
    [used] = [one for one in listed if one["state"] == "current"]
    assert (used["set"], used["trusted"]) == (f"{version}+{digest}", False), listed
    status = json.loads(board.service.command("status --json"))
    assert status["models_warning"], status
    assert set(board.service.people()) == {"Eileen Collins", "Grace Hopper"}
    board.guest.must(f"! grep -q 'Eileen Collins' {state}/gallery.redb"
                     f" && ls {state}/gallery.redb.unsealed")
    # The newcomer is Eileen Collins, whose old picture gives a template of these models.
    admitted(board, "newcomer")
    refused(board, "stranger")
    board.service.stop()
    start(board, serial=False)
    board.guest.must(f"! ls {state}/gallery.redb.unsealed")
    admitted(board, "newcomer")
    opened = [json.loads(line) for line in
              board.service.command("log show --json --kind granted").splitlines()]
    board.log("log", board.service.command(f"log explain {opened[-1]['id']}"))
    board.log("log", board.service.command("log verify"))


def stopped(board):
    """SIGTERM with the door open: the relay is de-energised before the service ends."""
    begun = time.monotonic()
    board.camera.show("newcomer")
    gate(board).wait(1, PATIENCE)
    board.service.stop()
    assert [state for _, state in gate(board).changes(begun)] == [1, 0]


SCENES = [checked, starts_with_nobody, line_held, chip_gone,
          the_first_person_is_administrator, strangers_refused,
          the_button_alone_enrolls_nobody, enrolled_by_button, admitted_by_gpio,
          admitted_by_serial, exit_requested, lockdown, clock_jumps, camera_stalls,
          camera_hangs, camera_gone, relay_unplugged, relay_replugged_at_once, held_open,
          forced, killed_while_open, killed_and_misconfigured, killed_while_enrolling, power_cut,
          upgraded, stopped]
