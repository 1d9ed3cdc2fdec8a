"""The scenes of one boot, and of the one after the power cut.

Each takes the board as the one before it left it, with nobody in front of the camera, and
leaves it so. What must be true is asserted from outside: levels of lines, bytes on the
serial port, exit codes, and the gallery as the program's own command lists it. What the
program says in its log only tells when to go on.
"""

import json
import time

import lines
from service import (ADMINISTRATOR_AWAITED, CAMERA_AWAY, CAMERA_BACK, CAMERA_HANGS, CONFIG,
                     ENROLLED, FIRST_AWAITED, GRANTED, HELD, LINE_AWAY, LINE_BACK, LOCKED_DOWN,
                     NEWCOMER_AWAITED, PROGRAM, RELAY_BACK, SERIAL, STRANGER, Service)

# As in facelatch.toml.
OPEN_FOR, EXIT_FOR, HELD_OPEN_AFTER = 4.0, 3.0, 8.0
# A pulse may be seen so much shorter or longer than it was: polling, and commands in the
# guest that tell its time.
EARLY, LATE = 0.5, 3.0
# For whatever comes sooner or later: seconds on an idle machine, much more on a busy one.
PATIENCE = 1200
# Nothing happens within this, where nothing is to happen.
QUIET = 3.0
# The board's GPIO chip, for programs and for the kernel.
CHIP = "/dev/gpiochip0"
CHIP_DEVICE = "9030000.pl061"
CHIP_DRIVER = "/sys/bus/amba/drivers/pl061_gpio"
# A hand on a button, by the guest's clock: long enough to be seen, and no hold.
PRESS = 0.5


class Gate:
    """The relay in use, on its line or its port, all the same to a scene."""

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
        """It has not moved since then, and does not for some more seconds."""
        self.board.guest.sleep(seconds)
        changes = self.changes(since)
        assert not changes, f"the relay moved: {changes}"

    def pulse(self, since: float, length: float):
        """It opens once, for as long as it should, and no longer. The guest's time is
        never ahead of ours, so ours says what is too short, and its what is too long."""
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
    """Whoever is there walks away, for long enough to be somebody new next time."""
    board.camera.show("empty")
    board.guest.sleep(QUIET)


def admitted(board, who: str):
    """Somebody steps in front of the camera and the door opens for as long as it should."""
    begun = time.monotonic()
    board.camera.show(who)
    gate(board).wait(1, PATIENCE)
    board.camera.show("empty")
    gate(board).pulse(begun, OPEN_FOR)
    leave(board)


def refused(board, who: str):
    """Somebody steps in front of the camera, hears so, and the door stays locked."""
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
    """Two views of somebody, each with its sound, and the gallery knows one person more:
    who that is, without a name so far."""
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
    """Before the service is started: the board's camera is on the list, the check finds
    nothing wrong, and then the camera that was taken away."""
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
    """An empty gallery and the relay on the GPIO line: the door is locked, and nobody is
    let in."""
    board.camera.show("empty")
    start(board, serial=False)
    board.gpio.wait(lines.RELAY, 0, PATIENCE)
    assert board.service.people() == {}
    refused(board, "administrator")


def line_held(board):
    """Another program holds the relay's line: the door does not open, log and check say
    who it is, and once it lets go the line is taken."""
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
    """The GPIO chip goes away under the program, with all its lines, and comes back: so do
    they, and whoever is inside gets out."""
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
    """The button does nothing in an empty gallery before a local reset; after it the first
    who stands there is enrolled, as administrator, and gets a name."""
    hold_the_button(board, board.said.mark(), "not enrolling: ")
    board.service.command("door local-reset")
    mark = board.said.mark()
    hold_the_button(board, mark, FIRST_AWAITED)
    first = enrolled(board, "administrator", mark)
    assert first["administrator"], first
    board.service.command(f"people rename {first['name']} Administrator")
    assert list(board.service.people()) == ["Administrator"]


def strangers_refused(board):
    """Nobody known, and the newcomer, who is nobody yet."""
    refused(board, "stranger")
    refused(board, "newcomer")


def the_button_alone_enrolls_nobody(board):
    """Held with a stranger in front: no administrator, nobody enrolled; a press ends it."""
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
    """Button, administrator, two views of the newcomer, and somebody more is known."""
    mark = board.said.mark()
    hold_the_button(board, mark)
    an_administrator_allows_it(board, mark)
    newcomer = enrolled(board, "newcomer", mark)
    assert not newcomer["administrator"], newcomer
    board.newcomer = newcomer["name"]


def admitted_by_gpio(board):
    """The newcomer comes in: the line is high for the time set, and low after it."""
    admitted(board, "newcomer")


def admitted_by_serial(board):
    """The same with the relay on the serial port, which answers and is read back; the
    GPIO line does not move."""
    board.service.stop()
    begun = time.monotonic()
    start(board, serial=True)
    answered = board.relay.answered
    admitted(board, "newcomer")
    assert board.relay.answered > answered, "the relay was not asked"
    assert board.relay.spoiled == 0, "messages with a wrong sum"
    assert not board.gpio.changes(lines.RELAY, begun), "the GPIO relay moved too"


def exit_requested(board):
    """A press inside opens without any face."""
    begun = time.monotonic()
    board.gpio.press(lines.EXIT, PRESS, board.guest.sleep)
    gate(board).pulse(begun, EXIT_FOR)


def lockdown(board):
    """By command nobody comes in any more, and whoever is inside still gets out; by
    command it ends."""
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
    """The wall clock is set while the door is open, back and far ahead: it is open for as
    long as always, and nothing opens after it."""
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
    """The camera sends nothing: it is told, the door stays as it is; it sends again and
    the newcomer comes in."""
    begun, mark = time.monotonic(), board.said.mark()
    board.camera.stall()
    board.said.wait(CAMERA_AWAY, PATIENCE, mark)
    gate(board).stays_locked(begun)
    # The door is more than its camera.
    exit_requested(board)
    mark = board.said.mark()
    board.camera.show("empty")
    board.said.wait(CAMERA_BACK, PATIENCE, mark)
    admitted(board, "newcomer")


def camera_hangs(board):
    """It hangs at a picture of somebody enrolled: that opens nothing, and is told. Once it
    goes on, whoever stands there comes in."""
    begun, mark = time.monotonic(), board.said.mark()
    board.camera.hang("newcomer")
    board.said.wait(CAMERA_HANGS, PATIENCE, mark)
    gate(board).stays_locked(begun, 2 * QUIET)
    admitted(board, "newcomer")


def camera_gone(board):
    """The same with a camera that is no longer there, and comes back in another format."""
    begun, mark = time.monotonic(), board.said.mark()
    board.camera.gone()
    board.said.wait(CAMERA_AWAY, PATIENCE, mark)
    gate(board).stays_locked(begun, QUIET)
    board.camera.format = "MJPG"
    board.camera.show("empty")
    board.said.wait(CAMERA_BACK, PATIENCE, mark)
    admitted(board, "newcomer")


def relay_unplugged(board):
    """Without its relay the door does not open; plugged in again nothing opens by itself,
    and the next who comes is let in."""
    begun, mark = time.monotonic(), board.said.mark()
    board.machine.unplug_relay()
    board.camera.show("newcomer")
    board.said.wait(GRANTED, PATIENCE, mark)
    leave(board)
    assert board.service.running(), "the service did not survive"
    # The grant is over before the plug is back.
    board.guest.sleep(OPEN_FOR)
    board.machine.plug_relay()
    gate(board).stays_locked(begun, 3 * QUIET)
    admitted(board, "newcomer")


def relay_replugged_at_once(board):
    """A plug that is out for a moment: the port gets another number where the program
    still holds the old one, and is found by the name that stays."""
    begun = time.monotonic()
    board.machine.unplug_relay()
    time.sleep(0.3)
    board.machine.plug_relay()
    gate(board).stays_locked(begun, 3 * QUIET)
    admitted(board, "newcomer")


def held_open(board):
    """Somebody comes in and the door is not closed: the buzzer says so, again and again,
    until it is."""
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
    """The door opens though nobody was let in: alarmed at once."""
    begun = time.monotonic()
    board.gpio.drive(lines.CONTACT, 1)
    board.gpio.wait(lines.BUZZER, 1, PATIENCE)
    gate(board).stays_locked(begun)
    board.gpio.drive(lines.CONTACT, 0)
    leave(board)


def killed_while_open(board):
    """Killed with the door open: a relay that is told to be on for so long falls back by
    itself, a line stays as it is until the program is started again, which locks first."""
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


def killed_while_enrolling(board):
    """Killed between the first view and the second: started again, everybody from before
    is known and nobody else."""
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
    """The newcomer gets a name, and the power is cut as soon as that is said to be done,
    with the service running. After the boot the gallery is as it was, with that name."""
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


def stopped(board):
    """SIGTERM with the door open: the relay goes off before the service ends."""
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
          forced, killed_while_open, killed_while_enrolling, power_cut, stopped]
