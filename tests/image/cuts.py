"""Power cuts at random moments, and what a door must still have after each of them."""

import subprocess
import time

DATA = "/var/lib/facelatch"
FACELATCH = "runuser -u facelatch -- facelatch"


class State:
    """What the door was asked to change, and what of that it has confirmed."""

    def __init__(self, staff: str, group: str):
        self.staff, self.group = staff, group
        # Commands that were sent together: (what is printed once it is done, the change).
        self.sent = []

    def script(self, number: int) -> str:
        """The next changes, as a command of a shell. Each prints a line once it is done."""
        steps = [
            (f"{FACELATCH} people group 'Grace Hopper' group-{number}", {"group": f"group-{number}"}),
            (f"{FACELATCH} people remove '{self.staff}'" if self.staff else "true", {"staff": ""}),
            (f"{FACELATCH} enroll 'Staff {number}' --image {DATA}/c.jpg", {"staff": f"Staff {number}"}),
            (f"{FACELATCH} people group 'Grace Hopper' again-{number}", {"group": f"again-{number}"}),
        ]
        self.sent = [change for _, change in steps]
        return " && ".join(f"{command} >&2 && echo confirmed" for command, _ in steps)

    def check(self, confirmed: int, people: dict):
        """The door has what it confirmed, and of the rest what it was doing at most."""
        allowed = []
        state = {"staff": self.staff, "group": self.group}
        for at, change in enumerate([{}, *self.sent]):
            state = {**state, **change}
            if confirmed <= at <= confirmed + 1:
                allowed.append(state)
        now = {"staff": next((name for name in people if name.startswith("Staff")), ""),
               "group": people.get("Grace Hopper", {}).get("group")}
        assert now in allowed, f"the door has {now}, and should have one of {allowed}"
        self.staff, self.group, self.sent = now["staff"], now["group"], []


def keys(machine) -> str:
    return machine.root("sha256sum /data/ssh/ssh_host_ed25519_key /data/register/door.key"
                        " /data/config/facelatch.toml /data/settings/update.pem")


def changed(door, number: int, state: State) -> int:
    """Cuts the power while people are changed; returns how many changes were confirmed."""
    machine = door.machine
    process = subprocess.Popen(
        ["ssh", "-q", "-i", str(machine.key), "-p", str(machine.port), "-o", "BatchMode=yes",
         "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
         "admin@127.0.0.1", f"sudo sh -c \"{state.script(number)}\""],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(door.chance.uniform(0, 15))
    machine.process.kill()
    process.kill()
    said, wrong = process.communicate()
    door.log("admin", f"changes {number}: {said} {wrong}")
    return said.count(b"confirmed\n")


def power_cuts(door, count: int):
    """The power fails at random moments; what was confirmed stays, and the door comes up each time."""
    machine = door.machine
    machine.root(f"cat >{DATA}/c.jpg && chown facelatch {DATA}/c.jpg", door.newcomer)
    people, made, slot = door.people(), keys(machine), door.slot()
    state = State("", people["Grace Hopper"]["group"])
    times, lost, starting, confirmed, done = [], 0, 0, 0, 0
    # Confirmed changes since the state was last read.
    since = 0

    def examine():
        """Waits until the door is up and compares it with what it must have."""
        nonlocal since, confirmed
        machine = door.machine
        times.append(machine.up())
        state.check(since, door.people())
        confirmed, since = confirmed + since, 0
        assert keys(machine) == made, "keys or settings are not the same"
        assert door.slot() == slot
        machine.root("facelatch log verify")
        options = machine.must("findmnt --noheadings --output OPTIONS /data")
        assert options.startswith("rw"), options
        failed = machine.must("systemctl --failed --plain --no-legend | cut -d' ' -f1").split()
        assert not failed, failed

    def typical() -> float:
        return sorted(times)[len(times) // 2] if times else 60.0

    try:
        while done < count:
            # The first one finds a board that is up already.
            if done and door.chance.random() < 0.5:
                wait = door.chance.uniform(1, typical())
                while door.machine.age() < wait:
                    time.sleep(0.1)
                starting += 1
                what = "while it starts"
            else:
                examine()
                since = changed(door, done, state)
                what = f"after {since} of 4 changes"
            left = door.cut()
            lost += left["lost"]
            done += 1
            door.log.say(f"          cut {done} of {count}, {what}: {left['kept']} writes kept,"
                         f" {left['lost']} lost")
            door.start()
        examine()
    finally:
        door.note(f"{done} power cuts, {starting} of them while starting: {lost} writes lost,"
                  f" {confirmed} confirmed changes kept, {len(times)} times up and compared; start to a"
                  f" locked door: median {typical():.0f} s")
