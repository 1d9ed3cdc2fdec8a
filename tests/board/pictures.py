"""The people in front of the camera, as clips that the guest's feeder plays.

Two are the portraits in assets/. The third is nobody: the eyes of one above the mouth of
the other, with the nose higher up, which the models recognize as neither. The halves are
blended over many rows, since a sharp seam looks like the edge of a mask. Each is scaled to
320x240 with eyes, nose and mouth in the same place, and shown in a few frames that move
by some pixels and differ in brightness, because live frames are never identical.

The programs of libjpeg read and write JPEG; the rest is Python.
"""

import math
import struct
import subprocess
from pathlib import Path

WIDTH, HEIGHT = 320, 240
# Frames per second; an emulated board cannot process more.
RATE = 5
ASSETS = Path(__file__).resolve().parents[2] / "assets"
# Eyes, nose and corners of the mouth as the detector finds them, pixels.
LANDMARKS = {
    "astronaut": [(140.1, 101.3), (183.7, 103.9), (161.5, 129.1), (137.6, 140.1), (181.7, 142.6)],
    "grace_hopper": [(128.4, 137.1), (199.8, 133.0), (167.4, 174.8), (137.6, 207.7),
                     (198.1, 203.7)],
}
# Their target positions: eyes 54 pixels apart, a face of about 110x145 in the middle.
PLACE = [(133, 95), (187, 95), (160, 125), (137, 152), (183, 152)]
# The row between eyes and mouth at which the two halves meet, the height of the blend, and
# by how much what is halfway between eyes and mouth is moved up, all in pixels.
SEAM, SOFT = 108, 40
HIGHER = 14
# The frames of a clip: pixels to the right, pixels down, brightness added.
FRAMES = [(0, 0, 0), (2, 0, 2), (1, 1, -2), (-1, 1, 0), (-2, 0, 3)]


class Picture:
    """An RGB picture as rows of bytes."""

    def __init__(self, rows: list):
        self.rows = rows

    @staticmethod
    def read(path: Path) -> "Picture":
        ppm = subprocess.run(["djpeg", "-ppm", str(path)], check=True, capture_output=True).stdout
        _, size, _, pixels = ppm.split(b"\n", 3)
        width, height = map(int, size.split())
        return Picture([pixels[at:at + width * 3] for at in range(0, width * height * 3, width * 3)])

    def sampled(self, place) -> "Picture":
        """A 320x240 picture sampled at `place(x, y)`, bilinear, with the border repeated."""
        right, bottom = len(self.rows[0]) // 3 - 1, len(self.rows) - 1
        rows = []
        for y in range(HEIGHT):
            row = bytearray()
            for x in range(WIDTH):
                u, v = place(x, y)
                u, v = min(max(u, 0.0), right - 0.001), min(max(v, 0.0), bottom - 0.001)
                left, top = int(u), int(v)
                across, down = u - left, v - top
                above, below = self.rows[top], self.rows[top + 1]
                for at in (3 * left, 3 * left + 1, 3 * left + 2):
                    upper = above[at] + (above[at + 3] - above[at]) * across
                    lower = below[at] + (below[at + 3] - below[at]) * across
                    row.append(int(upper + (lower - upper) * down + 0.5))
            rows.append(bytes(row))
        return Picture(rows)

    def moved(self, right: int, down: int, brighter: int) -> "Picture":
        """The picture moved by whole pixels, with the border repeated."""
        table = bytes(min(max(value + brighter, 0), 255) for value in range(256))
        rows = []
        for y in range(HEIGHT):
            row = self.rows[min(max(y - down, 0), HEIGHT - 1)]
            if right > 0:
                row = row[:3] * right + row[:-3 * right]
            elif right < 0:
                row = row[-3 * right:] + row[-3:] * -right
            rows.append(row.translate(table))
        return Picture(rows)

    def jpeg(self) -> bytes:
        ppm = b"P6\n%d %d\n255\n" % (WIDTH, HEIGHT) + b"".join(self.rows)
        return subprocess.run(["cjpeg", "-quality", "92", "-sample", "2x1"], input=ppm, check=True,
                              capture_output=True).stdout

    def yuyv(self) -> bytes:
        """YUYV in limited-range BT.601, as cameras send it: Y0 U Y1 V per two pixels."""
        out = bytearray()
        for row in self.rows:
            for at in range(0, len(row), 6):
                r0, g0, b0, r1, g1, b1 = row[at:at + 6]
                r, g, b = r0 + r1, g0 + g1, b0 + b1
                out += bytes((
                    (66 * r0 + 129 * g0 + 25 * b0 + 4224) >> 8,
                    (-38 * r - 74 * g + 112 * b + 65792) >> 9,
                    (66 * r1 + 129 * g1 + 25 * b1 + 4224) >> 8,
                    (112 * r - 94 * g - 18 * b + 65792) >> 9,
                ))
        return bytes(out)


def portrait(name: str) -> Picture:
    """A portrait rotated, scaled and moved so that its landmarks are at PLACE."""
    source = LANDMARKS[name]
    # Least-squares similarity transform from PLACE to the portrait, as a complex number.
    to = [complex(*point) for point in source]
    at = [complex(*point) for point in PLACE]
    to_mean, at_mean = sum(to) / 5, sum(at) / 5
    scale = (sum((t - to_mean) * (a - at_mean).conjugate() for t, a in zip(to, at))
             / sum(abs(a - at_mean) ** 2 for a in at))

    def place(x, y):
        point = to_mean + scale * (complex(x, y) - at_mean)
        return point.real, point.imag
    return Picture.read(ASSETS / f"{name}.jpg").sampled(place)


def nobody(eyes: Picture, mouth: Picture) -> Picture:
    """A person who does not exist: the eyes of one and the mouth of the other."""
    rows = []
    for y in range(HEIGHT):
        share = min(max((y - SEAM) / SOFT + 0.5, 0.0), 1.0)
        rows.append(bytes(int(a + (b - a) * share + 0.5)
                          for a, b in zip(eyes.rows[y], mouth.rows[y])))
    top, bottom = PLACE[0][1], PLACE[3][1]

    def higher(x, y):
        way = min(max((y - top) / (bottom - top), 0.0), 1.0)
        return x, y + HIGHER * math.sin(way * math.pi)
    return Picture(rows).sampled(higher)


def turned(person: Picture) -> Picture:
    """The face narrowed, as if the head were turned a little: a second view whose cosine to
    the first (0.84) is low enough for enrolment."""
    return person.sampled(lambda x, y: (160 + (x - 160) * 1.12, y))


def people() -> dict:
    """All pictures, by their role in the scenes."""
    hopper, collins = portrait("grace_hopper"), portrait("astronaut")
    empty = Picture([bytes([96, 104, 112]) * WIDTH] * HEIGHT)
    return {"administrator": hopper, "administrator turned": turned(hopper),
            "newcomer": collins, "newcomer turned": turned(collins),
            "stranger": nobody(collins, hopper), "empty": empty}


class Camera:
    """Feeds the camera from the host, with one clip per person and format."""

    FORMATS = {"YUYV": Picture.yuyv, "MJPG": Picture.jpeg}

    def __init__(self, share: Path, log):
        self.clip = share / "clip"
        self.log = log
        self.format = "YUYV"
        self.clips = {}
        self.pictures = people()

    def _made(self, who: str) -> list:
        key = who, self.format
        if key not in self.clips:
            encode = self.FORMATS[self.format]
            frames = [encode(self.pictures[who].moved(*frame)) for frame in FRAMES]
            self.clips[key] = [struct.pack("<I", len(frame)) + frame for frame in frames]
        return self.clips[key]

    def make(self, formats=("YUYV",)):
        """Makes all clips in these formats now, so that scenes need not wait for them."""
        for self.format in reversed(formats):
            for who in self.pictures:
                self._made(who)

    def _play(self, frames: bytes):
        header = f"clip {self.format} {WIDTH} {HEIGHT} {RATE}\n".encode()
        new = self.clip.with_suffix(".new")
        new.write_bytes(header + frames)
        new.rename(self.clip)

    def show(self, who: str):
        """Shows a person; "empty" shows nobody."""
        self._play(b"".join(self._made(who)))
        self.log("host", f"camera sees: {who} ({self.format})")

    def hang(self, who: str):
        """Freezes the camera: it repeats one picture of a person bit for bit."""
        self._play(self._made(who)[0])
        self.log("host", f"camera hangs at: {who} ({self.format})")

    def stall(self):
        """The camera is present but sends no frames."""
        self._play(b"")
        self.log("host", "camera sends nothing")

    def gone(self):
        """The camera is missing."""
        self.clip.unlink(missing_ok=True)
        self.log("host", "camera gone")
