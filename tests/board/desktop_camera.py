"""Scenes with `nokhwa:` cameras, which no board's build has.

The program under test is another one than is flashed: built with the feature `nokhwa` as
well. So these scenes have their own command, `run.sh --nokhwa`.
"""

import json

SHOT = "/tmp/shot.png"


def shot(board, uri: str) -> dict:
    """Takes a picture with the camera; returns what the program says of it."""
    output = board.guest.must(f"/mnt/facelatch camera shot {SHOT} --camera '{uri}' --frames 3 --json")
    lines = [line for line in output.splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


def a_desktop_camera_is_read(board):
    """A frame of camera 0 arrives in its size, in YUYV and in Motion JPEG."""
    for kind in ("YUYV", "MJPG"):
        board.camera.format = kind
        board.camera.show("administrator")
        board.guest.sleep(2)
        said = shot(board, "nokhwa:0?width=320&height=240&fps=5")
        assert (said["width"], said["height"]) == (320, 240), said
        assert 20 < said["brightness"] < 235, said


def another_camera_number_is_an_error(board):
    """A camera that does not exist is named, and the program ends."""
    code, output = board.guest.run(f"/mnt/facelatch camera shot {SHOT} --camera nokhwa:7")
    assert code == 1 and "nokhwa:7" in output, output


SCENES = [a_desktop_camera_is_read, another_camera_number_is_an_error]
