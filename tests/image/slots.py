#!/usr/bin/env python3
"""Tests which slot starts, whatever moment the power fails: packaging/update/boot-slot writes
the decision, and the boot loader's script reads it, modelled here. Needs no privileges.

Every write of one sector may be missing, whole or torn; each such card must start a slot that
holds a whole system, must forget a trial once it was started, and must come to rest."""

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOL = HERE.parents[1] / "packaging/update/boot-slot"
UPDATE = HERE.parents[1] / "packaging/update/facelatch-update"
SECTOR, BLOCK = 512, 4096
GOOD1, GOOD2, TRY = 8, 9, 10


def text(what: str) -> bytes:
    return f"facelatch {what}".encode() * 32


class Card:
    """The first 80 KiB of a card, as a file."""

    def __init__(self, folder: Path, good: str = "A", running: str = "A"):
        self.file, self.cmdline = folder / "disk", folder / "cmdline"
        self.file.write_bytes(bytes(20 * BLOCK))
        self.put(GOOD1, text(f"good {good}"))
        self.put(GOOD2, text(f"good {good}"))
        self.runs(running)

    def runs(self, slot: str):
        self.cmdline.write_text(f"root=x rauc.slot={slot} ro\n")

    def put(self, block: int, sector: bytes):
        with open(self.file, "r+b") as file:
            file.seek(block * BLOCK)
            file.write(sector)

    def get(self, block: int) -> bytes:
        with open(self.file, "rb") as file:
            file.seek(block * BLOCK)
            return file.read(SECTOR)

    def tool(self, *arguments: str) -> str:
        done = subprocess.run(["sh", str(TOOL), *arguments], capture_output=True, text=True,
                              env=self.environment())
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()

    def environment(self) -> dict:
        return {"PATH": "/usr/bin:/bin", "FACELATCH_DISK": str(self.file),
                "FACELATCH_CMDLINE": str(self.cmdline), "FACELATCH_BOOT_SLOT": str(TOOL)}

    def start(self) -> str:
        """What boot.cmd does: returns the slot, and forgets a trial."""
        first, second = self.get(GOOD1), self.get(GOOD2)
        good = "A"
        if first == text("good B"):
            good = "B"
        elif first == text("good A"):
            good = "A"
        elif second == text("good B"):
            good = "B"
        slot = good
        for name in "AB":
            if self.get(TRY) == text(f"try  {name}"):
                slot = name
                self.put(TRY, bytes(SECTOR))
        self.runs(slot)
        return slot


def cut_states(before: bytes, after: bytes):
    """Cards that a power cut may leave between two states of which the tool wrote the sectors
    GOOD1, GOOD2 and TRY in this order: some whole, the next one missing or torn."""
    at = [block * BLOCK for block in (GOOD1, GOOD2, TRY)]
    changed = [place for place in at if before[place:place + SECTOR] != after[place:place + SECTOR]]
    for count in range(len(changed) + 1):
        card = bytearray(before)
        for place in changed[:count]:
            card[place:place + SECTOR] = after[place:place + SECTOR]
        yield bytes(card)
        if count < len(changed):
            place = changed[count]
            for cut, noise in itertools.product((1, 15, 16, 256, 496, 511), (None, 0xFF)):
                torn = bytearray(card)
                torn[place:place + cut] = after[place:place + cut]
                if noise is not None:
                    torn[place + cut:place + SECTOR] = bytes([noise]) * (SECTOR - cut)
                if torn[place:place + SECTOR] not in (before[place:place + SECTOR],
                                                      after[place:place + SECTOR]):
                    yield bytes(torn)


def a_new_card_starts_slot_a(folder):
    card = Card(folder)
    assert (card.tool("get-primary"), card.tool("get-good")) == ("A", "A")
    assert (card.tool("get-state", "A"), card.tool("get-state", "B")) == ("good", "bad")
    assert card.start() == "A"


def a_trial_is_started_once(folder):
    for good, other in ("AB", "BA"):
        card = Card(folder, good, good)
        card.tool("set-primary", other)
        assert card.tool("get-primary") == other and card.tool("get-good") == good
        assert card.start() == other
        assert card.tool("get-primary") == good
        assert card.start() == good, "a trial that nobody keeps ends with the next start"


def what_works_is_kept(folder):
    card = Card(folder)
    card.tool("set-primary", "B")
    assert card.start() == "B"
    card.tool("set-state", "B", "good")
    assert card.tool("get-good") == "B"
    assert [card.start() for _ in range(3)] == ["B"] * 3
    # RAUC marks the other one bad before it writes into it, which changes nothing here.
    card.tool("set-state", "A", "bad")
    assert card.start() == "B"


def only_what_runs_is_kept(folder):
    card = Card(folder)
    card.tool("set-state", "B", "good")
    assert card.tool("get-good") == "A"


def the_good_slot_is_not_given_up_during_a_trial(folder):
    card = Card(folder)
    card.tool("set-primary", "B")
    card.start()
    try:
        card.tool("set-state", "A", "bad")
    except RuntimeError as error:
        assert "stays so" in str(error)
    else:
        raise AssertionError("an update during a trial would overwrite the way back")


def every_power_cut_leaves_a_card_that_starts(folder):
    counted = 0
    for good, other in ("AB", "BA"):
        for running, order in ((good, ["set-primary", other]), (good, ["set-state", other, "bad"]),
                               (other, ["set-state", other, "good"]), (good, ["repair"])):
            for tried in (None, other):
                card = Card(folder, good, running)
                if tried and running == good:
                    card.put(TRY, text(f"try  {tried}"))
                before = card.file.read_bytes()
                card.tool(*order)
                after = card.file.read_bytes()
                # A trial is allowed to start only where one was ordered.
                allowed = {good}
                if order[0] == "set-primary" or tried or order[-1] == "good":
                    allowed.add(other)
                for state in cut_states(before, after):
                    counted += 1
                    card.file.write_bytes(state)
                    first = card.start()
                    assert first in allowed, (good, order, tried, first)
                    kept = card.tool("get-good")
                    # The next start without anything else comes to rest at what is kept.
                    assert card.start() == kept
                    card.tool("repair")
                    assert card.get(GOOD1) == card.get(GOOD2) == text(f"good {kept}")
                    assert card.start() == kept
    assert counted > 100, counted


def two_damaged_copies_still_start(folder):
    card = Card(folder, "B", "B")
    card.put(GOOD1, bytes(SECTOR))
    assert card.start() == "B", "the second copy counts where the first is damaged"
    card.put(GOOD2, b"\xff" * SECTOR)
    assert card.start() == "A", "slot A where nothing is known; the loader takes B if A is broken"


def confirm(card, answers: str, patience: int = 30):
    """Runs `facelatch-update confirm` with a door that answers like this."""
    done = subprocess.run(
        ["sh", str(UPDATE), "confirm"], capture_output=True, text=True,
        env={**card.environment(), "FACELATCH_STATUS": answers, "FACELATCH_REBOOT": "echo REBOOT",
             "FACELATCH_PATIENCE": str(patience), "FACELATCH_PAUSE": "0.02",
             "FACELATCH_ANYBODY": "1"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def the_update_is_kept_only_if_the_door_works(folder):
    ready = ('echo {"service":{"door":{"state":"locked"},"relay":{"state":"answering","since_s":1}}}')
    silent = ('echo {"service":{"door":{"state":"locked"},"relay":{"state":"away","since_s":1}}}')
    for answer, kept in ((ready, "B"), (silent, "A"), ("echo {}", "A"), ("false", "A"),
                         ('echo {"service":null}', "A")):
        card = Card(folder)
        card.tool("set-primary", "B")
        assert card.start() == "B"
        said = confirm(card, answer)
        assert card.tool("get-good") == kept, (answer, said)
        assert ("REBOOT" in said) == (kept == "A"), (answer, said)
        assert card.start() == kept


def nothing_is_confirmed_where_nothing_is_on_trial(folder):
    card = Card(folder)
    card.put(GOOD2, bytes(SECTOR))
    assert confirm(card, "false") == ""
    assert card.get(GOOD2) == text("good A"), "the second copy is repaired"


def another_system_is_named(folder):
    done = subprocess.run(["sh", str(UPDATE), "status"], capture_output=True, text=True,
                          env={"PATH": "/usr/bin:/bin", "FACELATCH_DISK": str(folder / "none")})
    assert done.returncode == 3 and "image.sh" in done.stderr


TESTS = [a_new_card_starts_slot_a, a_trial_is_started_once, what_works_is_kept,
         only_what_runs_is_kept, the_good_slot_is_not_given_up_during_a_trial,
         every_power_cut_leaves_a_card_that_starts, two_damaged_copies_still_start,
         the_update_is_kept_only_if_the_door_works,
         nothing_is_confirmed_where_nothing_is_on_trial, another_system_is_named]


def main() -> int:
    for test in TESTS:
        with tempfile.TemporaryDirectory() as folder:
            test(Path(folder))
        print(f"ok      {test.__name__.replace('_', ' ')}")
    print(f"{len(TESTS)} passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
