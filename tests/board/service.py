"""The program under test in the guest: start, stop, kill and commands."""

import json
import signal
import time

PROGRAM = "/bin/facelatch"
CONFIG = "/run/facelatch.toml"
# The relay falls back after this time unless the program renews it. Seconds of our time,
# long enough for an emulator that gets little processor time.
FLASH = 15
SERIAL = f"serial:/dev/facelatch/relay?protocol=modbus&channel=1&flash={FLASH}s"
# A relay that keeps its state when the program is killed.
LCUS = "serial:/dev/facelatch/relay?channel=1"

# Log lines that show a scene when to act. Assertions do not depend on them.
READY = r"\d+ people, \d+ templates"
STRANGER = r"refused: (nobody is enrolled|unknown person)"
ADMINISTRATOR_AWAITED = r"enrolling: waiting for an administrator"
FIRST_AWAITED = r"enrolling: waiting for the first person"
NEWCOMER_AWAITED = r"enrolling: allowed by"
ENROLLED = r"enrolled: "
LOCKED_DOWN = r"refused: .*, lockdown"
GRANTED = r"granted: "
CAMERA_AWAY = r"no camera for"
CAMERA_HANGS = r"camera away: its frames are all the same"
CAMERA_BACK = r"the camera works again"
HELD = r'is held by "probe"'
LINE_AWAY = r"request to exit away"
LINE_BACK = r"request to exit back"
RELAY_BACK = r"relay back"


class Service:
    """The program in the guest, with at most one service running."""

    def __init__(self, board):
        self.board = board

    def install(self):
        """Copies the program from the shared folder, which is slow to run from; after each boot."""
        self.board.guest.must(f"cp /mnt/facelatch {PROGRAM} && cp /mnt/facelatch.toml {CONFIG}")

    def command(self, arguments: str, seconds: float = 1200) -> str:
        """Runs a command of the program that must succeed; returns its output."""
        return self.board.guest.must(f"{PROGRAM} {arguments} --config {CONFIG}", seconds)

    def people(self) -> dict:
        """All people in the gallery, by name."""
        lines = self.command("people list --json").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return {person["name"]: person for person in found}

    def start(self, relay: str | None = None):
        """Starts the service and waits until it watches the door."""
        mark = self.board.said.mark()
        option = f"--relay '{relay}'" if relay else ""
        self.board.guest.must(
            "rm -f /run/exit; { "
            f"{PROGRAM} run --config {CONFIG} {option} & echo $! >/run/pid; wait $!;"
            " echo $? >/run/exit; } >/run/log 2>&1 &")
        self.board.said.wait(READY, 1200, mark)

    def running(self) -> bool:
        return self.board.guest.run("kill -0 $(cat /run/pid)")[0] == 0

    def _signal(self, number: int, seconds: float) -> int:
        self.board.guest.must(f"kill -{number} $(cat /run/pid)")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            code, output = self.board.guest.run("cat /run/exit")
            if code == 0 and output.strip():
                return int(output)
            time.sleep(0.2)
        raise TimeoutError(f"still running {seconds:.0f} s after signal {number}")

    def stop(self):
        """Stops the service with SIGTERM, as systemd does."""
        code = self._signal(signal.SIGTERM, 1200)
        assert code == 0, f"exit code {code} after SIGTERM"

    def kill(self):
        """Kills the service with SIGKILL, which it cannot catch."""
        code = self._signal(signal.SIGKILL, 1200)
        assert code == 128 + signal.SIGKILL, f"exit code {code} after SIGKILL"
