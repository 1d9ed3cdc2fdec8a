"""The operations that are interrupted, and what the program says about a door afterwards.

An operation has a door before it, the commands that carry it out, and questions about the
door. After an interruption the answers must be those from before the operation or those
from after it. Once the program has reported success, they must be those from after it.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ADA = REPOSITORY / "assets/astronaut_face.jpg"
PORTRAIT = REPOSITORY / "assets/astronaut.jpg"
GRACE = REPOSITORY / "assets/grace_hopper_face.jpg"
# Grey noise, ten frames per second: nobody in view.
CORRIDOR = ("pipe:printf 'YUV4MPEG2 W64 H48 F10:1 Ip Cmono\\n'; while printf 'FRAME\\n' && "
            "head -c 3072 /dev/urandom; do sleep 0.1; done")
PATIENCE = 60


class Door:
    """A folder with everything that a door keeps, and files beside it that it only reads."""

    def __init__(self, program: Path, where: Path):
        self.program = where / "facelatch"
        shutil.copy(program, self.program)
        self.root = where / "door"
        self.inputs = where / "inputs"
        self.gallery = self.root / "card/gallery.redb"
        self.socket = where / "control.sock"
        self.config = self.inputs / "facelatch.toml"
        self.inputs.mkdir()
        for name, picture, count in (("visitor", GRACE, 60), ("start", ADA, 1)):
            (self.inputs / name).mkdir()
            for number in range(count):
                shutil.copy(picture, self.inputs / name / f"{number:03}.jpg")
        self.config.write_text(
            f'[gallery]\nfile = "{self.gallery}"\n[service]\nstatus_socket = "{self.socket}"\n'
            '[lockout]\ntries = 2\n')
        self.environment = {**os.environ, "XDG_STATE_HOME": str(self.root / "state"),
                            "STATE_DIRECTORY": str(self.root / "relay"), "NO_COLOR": "1"}
        self.environment.pop("RUST_LOG", None)
        self.environment.pop("NOTIFY_SOCKET", None)
        self.help = {}

    def empty(self):
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        # A board's folders are there and on the disk before the program runs.
        for name in ("card", "state", "relay"):
            (self.root / name).mkdir()

    def command(self, *arguments) -> list:
        return [str(self.program), *map(str, arguments), "--config", str(self.config)]

    def run(self, *arguments):
        return subprocess.run(self.command(*arguments), env=self.environment, timeout=PATIENCE,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def must(self, *arguments) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def has(self, command: str, word: str) -> bool:
        """Whether the help of a command has this word."""
        if command not in self.help:
            done = subprocess.run([self.program, *command.split(), "--help"], text=True,
                                  capture_output=True)
            self.help[command] = done.stdout if done.returncode == 0 else ""
        return word in self.help[command]

    def serves(self) -> bool:
        """Whether the service has started. The command `status` may open the gallery."""
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                client.connect(str(self.socket))
                client.sendall(b'{"do":"status"}\n')
                answer = client.makefile().readline()
        except (ConnectionError, FileNotFoundError):
            return False
        return bool(answer) and '"starting"' not in answer

    def enroll(self, name, picture, *more):
        self.must("enroll", name, "--image", picture, *more)

    def model_set(self, version: str) -> Path:
        """A set like the built-in one with another version, and with a self-test."""
        folder = self.inputs / f"set-{version}"
        if folder.exists():
            return folder
        shutil.copytree(REPOSITORY / "models", folder, ignore=shutil.ignore_patterns("float"))
        shutil.copy(PORTRAIT, folder / PORTRAIT.name)

        def measured(*command):
            output = subprocess.run([self.program, *command, "--json", PORTRAIT], check=True,
                                    capture_output=True, text=True).stdout
            return json.loads(output)["faces"][0]

        face = measured("detect")
        vector = {
            "picture": {"file": PORTRAIT.name, "sha256": digest(PORTRAIT)},
            "box": face["box"], "landmarks": face["landmarks"],
            "embedding": measured("embed")["embedding"],
            "tolerance": {"iou": 0.95, "landmarks": 0.5, "cosine": 0.999},
        }
        test = folder / "selftest.json"
        test.write_text(json.dumps({"format": 1, "vectors": [vector]}))
        manifest = folder / "manifest.toml"
        lines = [f'version = "{version}"' if line.startswith("version = ") else line
                 for line in manifest.read_text().splitlines()]
        lines += ["[selftest]", f'file = "{test.name}"', f'sha256 = "{digest(test)}"']
        manifest.write_text("\n".join(lines) + "\n")
        return folder


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# What the program says about a door.

def people(door: Door):
    done = door.run("people", "list", "--json")
    if done.returncode:
        assert "no gallery" in done.stderr, f"people list: {done.stderr}"
        return []
    listed = [json.loads(line) for line in done.stdout.splitlines()]
    for person in listed:
        del person["enrolled_at"]
    return listed


def changeable(door: Door):
    """The gallery can be changed, and keeps the change."""
    before = people(door)
    if before:
        door.must("people", "group", before[0]["name"], "evening")
        before[0]["group"] = "evening"
        assert people(door) == before, (people(door), before)
    verified(door)


def models(door: Door):
    """The set in use, and whether Ada is known with it."""
    output = door.must("models", "list")
    current = [line.split()[0] for line in output.splitlines() if " current " in line]
    door.must("models", "verify", current[0])
    assert "Ada" in door.must("identify", ADA), "Ada is not recognized"
    return current, people(door)


def known(door: Door):
    """The people, and whether Ada is recognized."""
    assert "Ada" in door.must("identify", ADA), "Ada is not recognized"
    return people(door)


# Bytes before the first record of a segment of the audit log.
HEADER = 80


def verified(door: Door):
    """The audit log holds up to its end."""
    segments = (door.root / "card").glob("*.audit/0*.log")
    sizes = [segment.stat().st_size for segment in segments]
    # A log whose first record was never written is none yet.
    if door.has("log verify", "Usage") and any(size > HEADER for size in sizes):
        done = door.run("log", "verify")
        # The first record may be torn.
        none = "no audit log" in done.stderr and all(size < 2 * HEADER for size in sizes)
        assert none or done.returncode == 0, f"log verify: {done.stdout} {done.stderr}"


def start(door: Door):
    """A start of the service: its mode, and whether something is damaged."""
    done = door.run("run", "--camera", f"images:{door.inputs}/start", "--relay", "log:")
    assert done.returncode == 0, f"run: {done.stderr}"
    assert "damaged" not in done.stderr, f"run: {done.stderr}"
    verified(door)
    return "lockdown" if "lockdown holds" in done.stderr else "normal", people(door)


def backup(door: Door):
    """The gallery, and whether the backup is absent, refused or whole."""
    file = door.root / "card/backup.redb"
    state = "absent"
    if file.exists():
        with tempfile.TemporaryDirectory(dir=door.inputs) as folder:
            done = subprocess.run(
                [door.program, "people", "--gallery", f"{folder}/g.redb", "import", file],
                env={**door.environment, "XDG_STATE_HOME": folder}, capture_output=True, text=True)
            state = "whole" if done.returncode == 0 else "refused"
            if state == "whole":
                listed = subprocess.run(
                    [door.program, "people", "--gallery", f"{folder}/g.redb", "list"],
                    env={**door.environment, "XDG_STATE_HOME": folder}, capture_output=True,
                    text=True)
                assert listed.stdout.count("\n") == 2, f"a backup of {listed.stdout!r}"
    # A backup that was not finished is no loss, if it is not taken for one.
    return people(door), state if state == "whole" else "none"


class Operation:
    """Commands on a door. `before` makes the door, `ask` questions it."""

    def __init__(self, name, before, commands, ask=people, needs=None):
        self.name, self.before, self.commands, self.ask = name, before, commands, ask
        self.needs = needs

    def prepare(self, door: Door):
        door.empty()
        self.before(door)

    def perform(self, door: Door, launch, acknowledged):
        """Runs the commands with `launch`, and reports each success."""
        for command in self.commands(door):
            done = launch(door.command(*command))
            if done != 0:
                return False
        acknowledged("done")
        return True

    def allowed(self, before, after, said):
        """What may be answered once `said` was reported."""
        return [after] if "done" in said else [before, after]


class Orders(Operation):
    """Lockdown, normal and lockdown again, ordered from a running service."""

    ORDERS = ("lockdown", "normal", "lockdown")

    def __init__(self):
        super().__init__("orders to the service", two, lambda door: [], start)

    def perform(self, door: Door, launch, acknowledged):
        service = launch(door.command("run", "--camera", CORRIDOR, "--relay", "log:"), wait=False)
        try:
            until = time.monotonic() + PATIENCE
            while not door.serves():
                if service.poll() is not None or time.monotonic() > until:
                    return False
                time.sleep(0.02)
            for number, order in enumerate(self.ORDERS):
                acknowledged(f"sent {number}")
                if door.run("door", order).returncode != 0 or service.poll() is not None:
                    return False
                acknowledged(f"done {number}")
            return True
        finally:
            service.terminate()
            service.wait()

    def allowed(self, before, after, said):
        normal, lockdown = ("normal", before[1]), ("lockdown", before[1])
        done = sum(word.startswith("done") for word in said)
        sent = sum(word.startswith("sent") for word in said)
        states = [normal, lockdown, normal, lockdown]
        # What was acknowledged holds, and what was sent may hold as well.
        return states[done:sent + 1] or [states[done]]


def ada(door: Door):
    door.enroll("Ada", ADA)


def two(door: Door):
    ada(door)
    door.enroll("Grace", GRACE)


def exported(door: Door):
    """Ada is enrolled; Grace is in a backup."""
    two(door)
    file = door.inputs / "grace.redb"
    file.unlink(missing_ok=True)
    door.must("people", "export", file, "Grace", *plain(door))
    door.empty()
    ada(door)


def removed(door: Door):
    """Grace was removed after a backup of both."""
    two(door)
    file = door.inputs / "both.redb"
    file.unlink(missing_ok=True)
    door.must("people", "export", file, *plain(door))
    door.must("people", "remove", "Grace")


def lost(door: Door):
    ada(door)
    shutil.rmtree(door.root / "card")
    (door.root / "card").mkdir()


def locked(door: Door):
    ada(door)
    door.must("door", "lockdown")


def plain(door: Door) -> list:
    """Backups that need no passphrase, where they are not so by default."""
    return ["--unencrypted"] if door.has("people export", "--unencrypted") else []


def unsigned(door: Door, command="models install") -> list:
    return ["--unsigned"] if door.has(command, "--unsigned") else []


def installed(door: Door):
    """Two sets installed, the second in use."""
    ada(door)
    for version in ("2027.01-one", "2027.02-two"):
        door.must("models", "install", door.model_set(version), *unsigned(door))


def commands(*words):
    return lambda door: [words]


def visited(door: Door):
    """A stranger comes again and again, until the door is locked out."""
    return [("run", "--camera", f"images:{door.inputs}/visitor?fps=2", "--relay", "log:")]


OPERATIONS = [
    Operation("first person", lambda door: None, commands("enroll", "Ada", "--image", ADA)),
    Operation("enroll", ada, commands("enroll", "Grace", "--image", GRACE)),
    Operation("rename", two, commands("people", "rename", "Ada", "Augusta")),
    Operation("administrator", two, commands("people", "admin", "Ada")),
    Operation("group", two, commands("people", "group", "Ada", "night")),
    Operation("remove", two, commands("people", "remove", "Ada")),
    Operation("export", two,
              lambda door: [("people", "export", door.root / "card/backup.redb", *plain(door))],
              backup),
    Operation("import", exported, lambda door: [("people", "import", door.inputs / "grace.redb")]),
    Operation("restore", removed, lambda door: [("people", "restore", door.inputs / "both.redb")]),
    Operation("new gallery", lost, commands("people", "new"),
              lambda door: "lost" if "people new" in door.run("people", "list").stderr
              else people(door)),
    Operation("install models", ada,
              lambda door: [("models", "install", door.model_set("2027.01-one"), *unsigned(door))], models),
    Operation("roll back models", installed,
              lambda door: [("models", "rollback", *unsigned(door, "models rollback"))], models),
    Operation("rotate keys", two, commands("key", "rotate"), known, needs=("key rotate", "keys")),
    Operation("rotate templates", two, commands("key", "rotate", "--templates"), known,
              needs=("key rotate", "--templates")),
    Operation("lockdown", ada, commands("door", "lockdown"), start),
    Operation("normal", locked, commands("door", "normal"), start),
    Operation("service with visitors", ada, visited, start),
    Orders(),
]


def chosen(only: list, door: Door) -> list:
    names = [operation.name for operation in OPERATIONS]
    for name in only:
        if name not in names:
            raise SystemExit(f"{name!r}: no such operation; there are {', '.join(names)}")
    return [operation for operation in OPERATIONS
            if (not only or operation.name in only)
            and (operation.needs is None or door.has(*operation.needs))]
