"""Scenes without the program, which check the emulated board itself.

If these pass and others fail, the fault is in the program or in the other scenes.
"""

import re
import threading
import time

import lines
from relay import crc

CHIP = "/dev/gpiochip0"
PORT = "/dev/ttyUSB0"


def later(seconds: float, action, *arguments):
    timer = threading.Timer(seconds, action, arguments)
    timer.daemon = True
    timer.start()


def camera_raw(board):
    """YUYV frames arrive complete, and change when the picture is swapped."""
    board.camera.show("administrator")
    board.guest.sleep(1.5)
    output = board.guest.must("probe frames /dev/video0 4")
    assert "YUYV 320x240" in output, output
    one = set(re.findall(r"frame (\d+) (\w+)", output))
    assert {size for size, _ in one} == {str(320 * 240 * 2)}, output
    board.camera.show("newcomer")
    board.guest.sleep(1.5)
    other = set(re.findall(r"frame (\d+) (\w+)", board.guest.must("probe frames /dev/video0 4")))
    # The buffers may still hold frames of the previous picture once.
    assert other - one, "the picture was not swapped"


def camera_stalls_and_goes(board):
    """No frames while it stalls, no camera while it is gone, frames again afterwards."""
    board.camera.stall()
    board.guest.sleep(1.5)
    code, output = board.guest.run("probe frames /dev/video0 20")
    assert code == 1 and "no frame" in output, output
    board.camera.gone()
    board.guest.sleep(1.5)
    code, output = board.guest.run("probe frames /dev/video0 1")
    assert code == 1 and "captures nothing" in output, output
    board.camera.show("newcomer")
    board.guest.sleep(1.5)
    board.guest.must("probe frames /dev/video0 4")


def camera_jpeg(board):
    """JPEG frames arrive, each with its own length."""
    board.camera.format = "MJPG"
    board.camera.show("administrator")
    board.guest.sleep(2)
    output = board.guest.must("probe frames /dev/video0 5")
    assert "MJPG 320x240" in output, output
    # The first buffer of v4l2loopback may be one that was never written.
    sizes = {int(size) for size, _ in re.findall(r"frame (\d+) (\w+)", output)[1:]}
    assert len(sizes) > 1 and max(sizes) < 100_000, output
    board.camera.format = "YUYV"
    board.camera.show("empty")


def button(board):
    """The guest sees both edges of a press, with kernel timestamps."""
    later(1.5, board.gpio.press, lines.BUTTON, 0.5)
    output = board.guest.must(f"probe edges {CHIP} {lines.BUTTON} 2 60000")
    falling, rising = map(int, re.findall(r"ing (\d+) ms", output)[:2])
    assert "falling" in output.splitlines()[1], output
    # By the guest's clock, which may run slower than ours but never faster.
    assert 0 < rising - falling <= 900, f"pressed for {rising - falling} ms instead of 500"


def relay_line(board):
    """A one-second pulse on the relay line is seen from outside."""
    begun = time.monotonic()
    board.guest.must(f"probe set {CHIP} {lines.RELAY} 1 1000; probe set {CHIP} {lines.RELAY} 0 10")
    board.guest.sleep(0.1)
    changes = board.gpio.changes(lines.RELAY, begun)
    assert [level for _, level in changes] == [1, 0], changes
    assert 0.8 < changes[1][0] - changes[0][0], changes


def relay_lcus(board):
    """The LCUS-1 board switches on and off."""
    begun = time.monotonic()
    board.guest.must(f"probe serial {PORT} A00101A2 0 0; sleep 1; probe serial {PORT} A00100A1 0 0")
    board.relay.wait(1, 0, 5)
    assert [state for _, state in board.relay.changes(1, begun)] == [1, 0]


def ask(board, body: str, count: int) -> bytes:
    message = bytes.fromhex(body)
    output = board.guest.must(
        f"probe serial {PORT} {(message + crc(message)).hex()} {count} 3000").strip()
    return bytes.fromhex(output)


def relay_modbus(board):
    """Modbus RTU: a write is answered and read back, an illegal coil is refused, and a message
    with a wrong checksum is ignored."""
    body = bytes.fromhex("01050000ff00")
    assert ask(board, body.hex(), 8) == body + crc(body)
    assert board.relay.coils[0] == 1
    assert ask(board, "010100000001", 6)[3] == 1
    ask(board, "010500000000", 8)
    assert board.relay.coils[0] == 0
    assert ask(board, "01050009ff00", 5)[1:3] == bytes([0x85, 2])
    spoiled = board.relay.spoiled
    code, _ = board.guest.run(f"probe serial {PORT} 01050000ff000000 1 1500")
    assert code == 1 and board.relay.spoiled == spoiled + 1


def replug(board):
    """An unplugged board disappears; plugged in again it answers."""
    board.machine.unplug_relay()
    board.guest.sleep(2)
    code, _ = board.guest.run(f"test -e {PORT}")
    assert code == 1, f"{PORT} is still there"
    board.machine.plug_relay()
    board.guest.must(f"for i in $(seq 50); do test -e {PORT} && exit 0; sleep 0.2; done; exit 1")
    assert ask(board, "010100000001", 6)[3] == 0


def power_cut(board):
    """After a power cut flushed writes are present, later writes are lost, and the file
    system is intact."""
    folder = "/var/lib/facelatch"
    board.guest.must(f"echo kept >{folder}/flushed; sync")
    # Written to the disk but not flushed, as in the cache of a disk.
    board.guest.must(f"dd if=/dev/zero of={folder}/zeros bs=4k count=64 2>/dev/null; sync;"
                     f" dd if=/dev/urandom of={folder}/zeros bs=4k count=64 conv=notrunc"
                     " oflag=direct 2>/dev/null")
    board.guest.must(f"echo lost >{folder}/unflushed")
    left = board.cut_power()
    assert left["kept"] > 0 and left["lost"] > 0, left
    board.boot()
    output = board.guest.must(f"cat {folder}/flushed; ls {folder}")
    assert output.startswith("kept") and "unflushed" not in output, output
    # Overwritten after the flush, so the zeros are back.
    assert board.guest.must(f"tr -d '\\000' <{folder}/zeros | wc -c").strip() == "0"


SCENES = [camera_raw, camera_stalls_and_goes, camera_jpeg, button, relay_line, relay_lcus,
          relay_modbus, replug, power_cut]
