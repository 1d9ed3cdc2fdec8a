"""The other end of the USB serial relay: a simulated board of eight relays that speaks
LCUS-1 and Modbus RTU like real boards, and records its commands."""

import threading
import time
from pathlib import Path

from qemu import connect

CHANNELS = 8
SLAVE = 1
READ_COILS, WRITE_COIL = 1, 5
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
# Writing a value to this address + coil energises the coil for that many tenths of a
# second, as on boards by Waveshare.
FLASH = 0x0200
LONGEST_FLASH = 0x7FFF
# First byte of an LCUS-1 command, which has four bytes.
LCUS = 0xA0


def crc(message: bytes) -> bytes:
    """CRC-16 of Modbus: reflected 0x8005, initial value all ones, low byte first."""
    value = 0xFFFF
    for byte in message:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value.to_bytes(2, "little")


class SerialRelay:
    """Answers on the emulator's socket while the emulator runs. The coils keep their state
    while the board is unplugged, like a board with its own power supply."""

    def __init__(self, path: Path, log):
        self.link = connect(path)
        self.log = log
        self.coils = [0] * CHANNELS
        self.timers = {}
        # (time, channel from 1, state) per change.
        self.record = []
        # Numbers of messages accepted, rejected for their checksum, and answered.
        self.taken = self.spoiled = self.answered = 0
        # When true, the board carries out commands but does not answer.
        self.mute = False
        self.changed = threading.Condition()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        waiting = b""
        last = 0.0
        while True:
            try:
                part = self.link.recv(256)
            except OSError:
                return
            if not part:
                return
            now = time.monotonic()
            # Silence ends a message, complete or not. The standard says 3.5 characters; the
            # limit is much longer here because the emulator may pause.
            if waiting and now - last > 1.0:
                self._spoil(waiting)
                waiting = b""
            last = now
            waiting = self._take(waiting + part)

    def _spoil(self, message: bytes):
        self.spoiled += 1
        self.log("relay", f"not understood: {message.hex(' ')}")

    def _take(self, waiting: bytes) -> bytes:
        """Carries out complete messages; returns the remaining bytes."""
        while waiting:
            if waiting[0] == LCUS:
                if len(waiting) < 4:
                    break
                self._lcus(waiting[:4])
                waiting = waiting[4:]
            elif waiting[0] == SLAVE:
                # Functions 1 and 5 have eight bytes; no others are supported here.
                if len(waiting) < 8:
                    break
                self._modbus(waiting[:8])
                waiting = waiting[8:]
            else:
                self._spoil(waiting[:1])
                waiting = waiting[1:]
        return waiting

    def _lcus(self, message: bytes):
        _, channel, state, check = message
        if (LCUS + channel + state) & 0xFF != check or not 1 <= channel <= CHANNELS or state > 1:
            return self._spoil(message)
        self.taken += 1
        self._switch(channel, state)

    def _modbus(self, message: bytes):
        body, check = message[:6], message[6:]
        if crc(body) != check:
            return self._spoil(message)
        self.taken += 1
        function = body[1]
        address, value = int.from_bytes(body[2:4], "big"), int.from_bytes(body[4:6], "big")
        if function == WRITE_COIL:
            if FLASH <= address < FLASH + CHANNELS and value <= LONGEST_FLASH:
                self._flash(address - FLASH + 1, value / 10)
                return self._answer(body)
            if address >= CHANNELS:
                return self._refuse(function, ILLEGAL_ADDRESS)
            if value not in (0x0000, 0xFF00):
                return self._refuse(function, ILLEGAL_VALUE)
            self._cancel(address + 1)
            self._switch(address + 1, int(value == 0xFF00))
            return self._answer(body)
        if function == READ_COILS:
            if not 1 <= value <= CHANNELS or address + value > CHANNELS:
                return self._refuse(function, ILLEGAL_ADDRESS)
            bits = sum(state << at for at, state in enumerate(self.coils[address:address + value]))
            return self._answer(bytes([SLAVE, READ_COILS, 1, bits]))
        return self._refuse(function, ILLEGAL_FUNCTION)

    def _refuse(self, function: int, why: int):
        self.log("relay", f"refused: function {function}, exception {why}")
        self._answer(bytes([SLAVE, function | 0x80, why]))

    def _answer(self, body: bytes):
        if not self.mute:
            self.answered += 1
            try:
                self.link.sendall(body + crc(body))
            except OSError:
                pass

    def _cancel(self, channel: int):
        timer = self.timers.pop(channel, None)
        if timer:
            timer.cancel()

    def _flash(self, channel: int, seconds: float):
        self._cancel(channel)
        self._switch(channel, int(seconds > 0))
        timer = threading.Timer(seconds, self._switch, (channel, 0))
        timer.daemon = True
        timer.start()
        self.timers[channel] = timer

    def _switch(self, channel: int, state: int):
        if self.coils[channel - 1] == state:
            return
        self.coils[channel - 1] = state
        self.log("relay", f"channel {channel} {'on' if state else 'off'}")
        with self.changed:
            self.record.append((time.monotonic(), channel, state))
            self.changed.notify_all()

    def changes(self, channel: int, since: float = 0.0) -> list:
        """(time, state) of each change of a channel since a time."""
        with self.changed:
            return [(at, state) for at, which, state in self.record
                    if which == channel and at >= since]

    def wait(self, channel: int, state: int, seconds: float) -> float:
        """Waits until a channel has a state; returns the time at which it was seen."""
        end = time.monotonic() + seconds
        with self.changed:
            while self.coils[channel - 1] != state:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(
                        f"relay channel {channel} was not {state} within {seconds:.0f} s")
                self.changed.wait(left)
        return time.monotonic()
