"""Commands in the guest, and the log of the program under test."""

import base64
import re
import socket
import threading
import time
from pathlib import Path

from qemu import connect


class Guest:
    """The agent in the guest, which runs one command at a time."""

    def __init__(self, path: Path, seconds: float = 1200):
        self.link = connect(path)
        self.buffer = b""
        self.number = 0
        # The agent sends the kernel release as soon as the board is up.
        self.release = self._answer(0, seconds)[1].strip()

    def _line(self, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            self.link.settimeout(max(0.01, end - time.monotonic()))
            try:
                part = self.link.recv(65536)
            except socket.timeout:
                raise TimeoutError(f"the guest did not answer within {seconds:.0f} s") from None
            if not part:
                raise ConnectionError("the guest is gone")
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def _answer(self, number: int, seconds: float) -> tuple:
        while True:
            fields = self._line(seconds).split()
            # Skip late answers to commands that timed out.
            if len(fields) >= 2 and int(fields[0]) == number:
                output = base64.b64decode(fields[2]) if len(fields) > 2 else b""
                return int(fields[1]), output.decode(errors="replace")

    def run(self, command: str, seconds: float = 1200) -> tuple:
        """Runs a command; returns its exit code and its output, both streams together."""
        self.number += 1
        self.link.sendall(f"{self.number} {command}\n".encode())
        return self._answer(self.number, seconds)

    def must(self, command: str, seconds: float = 1200) -> str:
        """Runs a command that must succeed; returns its output."""
        code, output = self.run(command, seconds)
        if code != 0:
            raise RuntimeError(f"{command}: exit code {code}: {output.strip()}")
        return output

    def sleep(self, seconds: float):
        """Sleeps by the guest's clock, which is slower than ours on a busy machine. Seconds."""
        self.must(f"sleep {seconds}")

    def uptime(self) -> float:
        """Seconds since boot by the guest's clock."""
        return float(self.must("cat /proc/uptime").split()[0])


class ServiceLog:
    """The log lines of the program since boot."""

    def __init__(self, path: Path, log):
        self.link = connect(path)
        self.lines = []
        self.log = log
        self.more = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b""
        while True:
            try:
                part = self.link.recv(65536)
            except OSError:
                part = b""
            if not part:
                return
            *whole, rest = (rest + part).split(b"\n")
            for line in whole:
                text = line.decode(errors="replace").rstrip()
                self.log("program", text)
                with self.more:
                    self.lines.append((time.monotonic(), text))
                    self.more.notify_all()

    def mark(self) -> int:
        """The current end of the log, as a position for `said` and `wait`."""
        with self.more:
            return len(self.lines)

    def said(self, pattern: str, since: int = 0) -> str | None:
        with self.more:
            return next((text for _, text in self.lines[since:] if re.search(pattern, text)), None)

    def wait(self, pattern: str, seconds: float, since: int = 0) -> str:
        """Waits for a line that matches after position `since`; returns the line."""
        end = time.monotonic() + seconds
        with self.more:
            seen = since
            while True:
                for _, text in self.lines[seen:]:
                    if re.search(pattern, text):
                        return text
                seen = len(self.lines)
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"nothing like /{pattern}/ within {seconds:.0f} s")
                self.more.wait(left)
