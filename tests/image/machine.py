"""One start of the emulated board with a card of packaging/image.sh."""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "board"))

import lines  # noqa: E402
from qemu import Gpio, Qmp  # noqa: E402


def free_port() -> int:
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        return link.getsockname()[1]


class Machine:
    def __init__(self, folder: Path, card, loader: Path, key: Path, log, cpu: str,
                 real_time: bool = False):
        """Switches the power on. `loader` is U-Boot, `key` the private key of admin.
        `real_time`: two threads and the host's clock, faster where nothing else runs."""
        self.folder, self.key, self.log = folder, key, log
        self.port = free_port()
        self.begun = time.monotonic()
        # The slots that the boot loader started, in their order.
        self.starts = []

        def sock(name: str) -> str:
            path = folder / f"{name}.sock"
            path.unlink(missing_ok=True)
            return f"{path},server=on,wait=off"

        command = [
            # With ACPI and a boot loader this machine would have no GPIO chip.
            "nice", "-n", "10", "qemu-system-aarch64", "-M", "virt,acpi=off", "-cpu", cpu, "-smp", "2",
            "-m", "512",
            # As tests/board: guest time is instructions, so a busy machine times nothing out.
            *(["-accel", "tcg,thread=multi"] if real_time else
              ["-accel", "tcg,thread=single", "-icount", "shift=0"]), "-nodefaults", "-display", "none",
            "-monitor", "none", "-bios", str(loader),
            "-drive", f"if=pflash,unit=1,format=raw,readonly=on,file={loader.with_suffix('.env')}",
            "-serial", "stdio",
            "-qmp", f"unix:{sock('qmp')}",
            "-qtest", f"unix:{sock('qtest')}", "-qtest-log", "/dev/null",
            *card.arguments(),
            "-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            # By the host's clock it would bite a guest that waits for a processor.
            *([] if real_time else ["-device", "i6300esb", "-watchdog-action", "reset"]),
        ]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        threading.Thread(target=self._console, daemon=True).start()
        try:
            self.qmp = Qmp(folder / "qmp.sock")
            chips = self.qmp.ask("qom-list", path="/machine/unattached")
            chip = next(entry["name"] for entry in chips if entry["type"] == "child<pl061>")
            self.gpio = Gpio(folder / "qtest.sock", f"/machine/unattached/{chip}", log)
        except BaseException:
            self.cut()
            raise

    def _console(self):
        for line in self.process.stdout:
            text = "".join(c for c in line.decode("utf-8", "replace") if c.isprintable())
            if text.strip():
                self.log("console", text.rstrip())
            if text.rstrip() in ("slot A", "slot B"):
                self.starts.append(text.rstrip()[-1])
            # A reset of the emulated chip forgets its inputs; real switches do not.
            if "U-Boot" in text and getattr(self, "gpio", None):
                for line, level in lines.INPUTS.items():
                    self.gpio.drive(line, level)

    def age(self) -> float:
        return time.monotonic() - self.begun

    def cut(self):
        """Everything stops at once."""
        self.process.kill()
        self.process.wait()

    def command(self, text: str, stdin: bytes = b"", seconds: float = 600) -> tuple:
        """Runs a command as admin; returns (exit code, output). 255: there was no answer."""
        control = f"{self.folder}/ssh-{os.getpid()}-{self.port}"
        try:
            done = subprocess.run(
                ["ssh", "-q", "-i", str(self.key), "-p", str(self.port), "-o", "BatchMode=yes",
                 "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                 "-o", "ConnectTimeout=120", "-o", "ControlMaster=auto", "-o", "ControlPersist=yes",
                 "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
                 "-o", f"ControlPath={control}", "admin@127.0.0.1", text],
                input=stdin, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            # A connection to a board that has restarted since, which nobody closed.
            subprocess.run(["ssh", "-q", "-O", "exit", "-o", f"ControlPath={control}", "admin@127.0.0.1"],
                           capture_output=True, check=False)
            return 255, "no answer"
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        if done.returncode != 255:
            self.log("admin", f"{text[:150]} -> {done.returncode}: {said.strip()[:600]}")
        return done.returncode, said

    def must(self, text: str, stdin: bytes = b"", seconds: float = 600) -> str:
        code, said = self.command(text, stdin, seconds)
        if code:
            raise RuntimeError(f"{text}: {code}: {said.strip()}")
        return said

    def root(self, text: str, stdin: bytes = b"", seconds: float = 600) -> str:
        return self.must(f"sudo sh -c {shlex.quote(text)}", stdin, seconds)

    def status(self) -> dict | None:
        """What the door's service says; None while it does not answer."""
        try:
            code, said = self.command("facelatch status --json 2>/dev/null", seconds=60)
            service = json.loads(said).get("service") if code == 0 else None
        except ValueError:
            return None
        return service or None

    def up(self, seconds: float = 3600) -> float:
        """Waits until the door is locked and its relay answers; returns the age at that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError("the emulator ended")
            service = self.status()
            if service and service["relay"]["state"] == "answering":
                return self.age()
            time.sleep(1)
        raise TimeoutError(f"the door was not up within {seconds:.0f} s")
