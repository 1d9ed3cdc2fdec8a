#!/usr/bin/env python3
"""Plays a site of two doors with the real programs: Mosquitto, an office, and at each door
`facelatch run` and `facelatch-link run`. Somebody who is enrolled at one door is let in at
the other, also after the broker was killed, and at neither once the office locked them out.

    cargo build --release --workspace
    tests/site_of_doors/play.py [--programs FOLDER] [--keep FOLDER]
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ADA = REPOSITORY / "assets/astronaut.jpg"
# Long enough for a busy machine.
PATIENCE = 90


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what, question, patience=PATIENCE):
    """Waits until the question has an answer, and returns it with the seconds."""
    began = time.monotonic()
    while time.monotonic() - began < patience:
        answer = question()
        if answer:
            return answer, time.monotonic() - began
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {what}")


class Site:
    """Broker, office and doors, in one folder."""

    def __init__(self, programs: Path, where: Path):
        self.programs, self.where = programs, where
        self.port = free_port()
        self.running = {}
        (where / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            "max_queued_messages 10000\n")
        (where / "office.toml").write_text(
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.port}"\n'
            f'[service]\nstate = "{where}/office-state"\n')
        (where / "office-state").mkdir()

    def start(self, name, command, environment=None):
        log = open(self.where / f"{name}.log", "ab")
        out = open(self.where / f"{name}.out", "ab")
        self.running[name] = subprocess.Popen(
            command, stdout=out, stderr=log, stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})})

    def broker(self):
        self.start("broker", ["mosquitto", "-c", self.where / "mosquitto.conf"])
        until("the broker listens", lambda: self.listens())

    def listens(self):
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self, name):
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def command(self, *words):
        return [self.programs / "facelatch-link", "site", *words, "--office",
                self.where / "office", "--config", self.where / "office.toml", "--json"]

    def office(self, *words):
        done = subprocess.run(self.command(*words), capture_output=True, text=True,
                              timeout=PATIENCE)
        assert done.returncode == 0, f"site {words}: {done.stdout} {done.stderr}"
        return json.loads(done.stdout.splitlines()[-1])

    def signed_set(self):
        """A signed set of models as set.tar; returns its key."""
        done = subprocess.run([REPOSITORY / "tests/sets/signed.py", self.where / "set",
                               self.where / "set.key", self.programs / "facelatch"],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        subprocess.run(["tar", "-cf", self.where / "set.tar", "-C", self.where / "set", "."],
                       check=True)
        return f"{done.stdout.strip()} office"

    def end(self):
        for process in self.running.values():
            process.send_signal(signal.SIGTERM)
        for name, process in self.running.items():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                print(f"{name} did not end", file=sys.stderr)


class Door:
    """A door with its link. Ada always stands in front of it."""

    def __init__(self, site: Site, name: str, key: str, trusted: list):
        self.site, self.name = site, name
        self.folder = site.where / name
        (self.folder / "frames").mkdir(parents=True)
        (self.folder / "link-state").mkdir()
        for number in range(8):
            shutil.copy(ADA, self.folder / f"frames/{number}.jpg")
        self.gallery = self.folder / "gallery.redb"
        self.config = self.folder / "facelatch.toml"
        self.config.write_text(
            f'[camera]\nuri = "images:{self.folder}/frames?fps=4&loop"\n'
            '[relay]\nuri = "log:"\n'
            f'[gallery]\nfile = "{self.gallery}"\n'
            f'[service]\nstatus_socket = "{self.folder}/control.sock"\npower_saving = false\n'
            '[recognition]\nagain_after = "1s"\n[schedule]\nclock = "trusted"\n'
            f'[models]\ntrusted_keys = {json.dumps(trusted)}\n'
            f'[link]\nsocket = "{self.folder}/link.sock"\n'
            f'[site]\nkey = "{key}"\ndoor = "{name}"\non_lease_end = "refuse-site-people"\n')
        (self.folder / "link.toml").write_text(
            f'[door]\nsocket = "{self.folder}/link.sock"\n'
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{site.port}"\n'
            f'[service]\nstate = "{self.folder}/link-state"\n')

    def environment(self):
        return {"XDG_STATE_HOME": str(self.folder / "state"), "STATE_DIRECTORY": "",
                "RUNTIME_DIRECTORY": str(self.folder)}

    def start(self):
        self.site.start(self.name, [self.site.programs / "facelatch", "run", "--json",
                                    "--config", self.config], self.environment())
        until(f"{self.name} has its socket", lambda: (self.folder / "link.sock").exists())
        self.site.start(f"{self.name}-link", [self.site.programs / "facelatch-link", "run",
                                              "--config", self.folder / "link.toml"],
                        self.environment())

    def run(self, *words):
        done = subprocess.run([self.site.programs / "facelatch", *words, "--config", self.config],
                              capture_output=True, text=True, timeout=PATIENCE,
                              env={**os.environ, **self.environment()})
        return done

    def must(self, *words):
        done = self.run(*words)
        assert done.returncode == 0, f"{self.name}: {words}: {done.stdout} {done.stderr}"
        return done.stdout

    def status(self):
        return json.loads(self.must("status", "--json"))["service"]

    def events(self, kind, after=0):
        """Events of a kind after this byte of the output."""
        with open(self.site.where / f"{self.name}.out", "rb") as out:
            out.seek(after)
            lines = out.read().split(b"\n")[:-1]
        return [event for event in map(json.loads, lines) if event.get("event") == kind]

    def now(self):
        return (self.site.where / f"{self.name}.out").stat().st_size

    def stop(self):
        for name in (f"{self.name}-link", self.name):
            process = self.site.running.pop(name)
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def join(self):
        office = self.site.command("admit", "--door", self.name, "--groups", "staff")
        admits = subprocess.Popen(office, stdout=subprocess.PIPE, text=True)
        code = json.loads(admits.stdout.readline())["code"]
        self.must("site", "join", code)
        assert admits.wait(PATIENCE) == 0, f"{self.name} was not admitted"
        return until(f"{self.name} is admitted",
                     lambda: "admitted as" in self.must("site", "show"))[1]


def play(site: Site):
    site.broker()
    key = site.office("init")["key"]
    site.start("office", [site.programs / "facelatch-link", "site", "keep", "--office",
                          site.where / "office", "--config", site.where / "office.toml"])
    trusted = site.signed_set()
    front, back = Door(site, "front", key, [trusted]), Door(site, "back", key, [])
    for door in (front, back):
        door.start()
        print(f"{door.name}: admitted after {door.join():.1f} s")
    for door in (front, back):
        until(f"{door.name} has a lease", lambda: "lease holds" in door.must("site", "show"))
        until(f"{door.name} refuses a stranger", lambda: door.events("refused"))
        assert not door.events("granted"), f"{door.name} opened for a stranger"

    before = back.now()
    front.must("enroll", "Ada", "--image", str(ADA))
    began = time.monotonic()
    until("front lets Ada in", lambda: front.events("granted"))
    granted, _ = until("back lets Ada in", lambda: back.events("granted", before))
    print(f"back: lets Ada in {time.monotonic() - began:.1f} s after she was enrolled at front")
    assert granted[0]["name"] == "Ada", granted[0]

    def times():
        return [door.gallery.stat().st_mtime_ns for door in (front, back)]

    def rests():
        before = times()
        time.sleep(3)
        return times() == before

    # A card wears out by writes that change nothing.
    until("galleries that nobody changes are not written", rests)

    # A set of models is installed where its key is trusted, whatever the office says.
    site.office("models", site.where / "set.tar", "--version", "offered")

    def in_use():
        sets = map(json.loads, front.must("models", "list", "--json").splitlines())
        return any(one["state"] == "current" and one["set"] != "built-in" for one in sets)

    _, took = until("front uses the set that the office offers", in_use)
    until("back refuses it", lambda: "offered of the site are not installed" in
          back.must("site", "show"))
    assert "built-in" in back.must("models", "list").split("current")[0], "back took the set"
    before = front.now()
    until("front lets Ada in with it", lambda: front.events("granted", before))
    print(f"front: uses the offered set after {took:.1f} s")

    # Her last day is over, and then it is not.
    until("the office knows Ada", lambda: "Ada" in json.dumps(site.office("people")))
    site.office("person", "Ada", "--until", "2026-01-01")
    for door in (front, back):
        before = door.now()
        until(f"{door.name} refuses Ada after her last day",
              lambda: [event for event in door.events("refused", before)
                       if event.get("reason") == "no longer valid"])
        before = door.now()
        time.sleep(2)
        assert not door.events("granted", before), f"{door.name} opened after her last day"
    site.office("person", "Ada", "--always")
    for door in (front, back):
        before = door.now()
        until(f"{door.name} lets Ada in again", lambda: door.events("granted", before))

    # Without a broker the doors go on until their lease ends.
    (site.where / "rules.toml").write_text("")
    site.office("policy", site.where / "rules.toml", "--lease", "1m")
    until("the lease is short", lambda: 0 < back.status()["site"]["lease_s"] <= 60)
    site.kill("broker")
    before = back.now()
    until("back lets Ada in without a broker", lambda: back.events("granted", before))
    until("the lease of back ends", lambda: back.status()["site"]["lease_s"] <= 0)
    time.sleep(2)
    before = back.now()
    until("back refuses Ada, whom it may have to keep out by now",
          lambda: back.events("refused", before))
    assert not back.events("granted", before), "back opened after its lease"
    site.broker()
    for door in (front, back):
        until(f"{door.name}'s link is back", lambda: door.status()["link"]["reaches"])
        before = door.now()
        until(f"{door.name} lets Ada in with a new lease", lambda: door.events("granted", before))
    site.office("policy", site.where / "rules.toml", "--lease", "7d")

    # Who came in at one door comes in again only after leaving by the other.
    for door, role in ((front, "in"), (back, "out")):
        door.stop()
        door.config.write_text(door.config.read_text()
                               + f'[door]\nrole = "{role}"\nanti_passback = "hard"\n')
        door.start()
    passed = []
    for _ in range(3):
        for door in (front, back):
            before = door.now() if passed else 0
            until(f"{door.name} lets Ada pass", lambda: door.events("granted", before))
            passed.append(door.name)
    twice = [event for door in (front, back) for event in door.events("refused")
             if event.get("reason") == "passed already"]
    refused = len(twice)
    assert refused, "nobody was refused"
    print(f"Ada went in and out three times, and was refused {refused} times in between")

    site.office("revoke", "--person", "Ada")
    began = time.monotonic()
    for door in (front, back):
        until(f"{door.name} has nobody", lambda: "Ada" not in door.must("people", "list"))
    print(f"both: Ada is out {time.monotonic() - began:.1f} s after the office said so")
    for door in (front, back):
        # What was decided before is told by then.
        before = door.now()
        until(f"{door.name} refuses her", lambda: door.events("refused", before))
        before = door.now()
        time.sleep(3)
        assert not door.events("granted", before), f"{door.name} opened for Ada"
        done = door.run("log", "verify")
        assert done.returncode == 0, f"{door.name}: {done.stdout} {done.stderr}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--programs", type=Path, default=REPOSITORY / "target/release")
    parser.add_argument("--keep", type=Path, help="folder that is kept, for looking at logs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        where = arguments.keep or Path(temporary)
        where.mkdir(parents=True, exist_ok=True)
        site = Site(arguments.programs.resolve(), where.resolve())
        try:
            play(site)
        except AssertionError as error:
            print(f"FAILED: {error}", file=sys.stderr)
            for log in sorted(where.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            sys.exit(1)
        finally:
            site.end()
    print("a site of two doors: passed")


main()
