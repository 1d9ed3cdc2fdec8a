#!/usr/bin/env python3
"""Boots the emulated board, plays scenes on it and reports the result of each.

    play.py WORK [--probe | --nokhwa] [--only NAME]... [--cpu CPU] [--verbose]

WORK is the folder that setup.sh made. Exit code: 0 if every scene passed, 1 if a scene
failed, 2 if the board did not boot. Scenes build on each other, so the first failure ends
the run. WORK/last.log has everything that happened.
"""

import argparse
import shutil
import sys
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True

import board as boards  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--program", type=Path, help="facelatch for arm64, static")
    parser.add_argument("--probe", action="store_true", help="try the board without the program")
    parser.add_argument("--nokhwa", action="store_true", help="scenes of desktop cameras")
    parser.add_argument("--only", action="append", help="scenes to play, by name")
    parser.add_argument("--cpu", default="cortex-a76", help="processor to emulate")
    parser.add_argument("--verbose", action="store_true", help="print the log as it grows")
    parser.add_argument("--list", action="store_true", help="name the scenes, and play none")
    return parser.parse_args()


def play(board, scenes, log) -> list:
    """Plays scenes; returns (name, seconds, error or None) per scene played."""
    results = []
    for scene in scenes:
        name = scene.__name__.replace("_", " ")
        log("test", f"scene: {name}: {scene.__doc__}")
        begun = time.monotonic()
        wrong = None
        try:
            scene(board)
        except Exception as error:  # any error: the summary must be printed
            wrong = f"{type(error).__name__}: {error}"
            log("test", traceback.format_exc())
        seconds = time.monotonic() - begun
        results.append((name, seconds, wrong))
        log.say(f"  {'ok    ' if wrong is None else 'FAILED'} {seconds:6.1f} s  {name}"
                + (f": {wrong}" if wrong else ""))
        if wrong:
            break
    return results


def main() -> int:
    args = arguments()
    if args.probe:
        from probing import SCENES as scenes
    elif args.nokhwa:
        from desktop_camera import SCENES as scenes
    else:
        from scenes import SCENES as scenes
    if args.only:
        scenes = [scene for scene in scenes if scene.__name__ in args.only]
    if args.list:
        for scene in scenes:
            print(f"{scene.__name__}: {' '.join(scene.__doc__.split())}")
        return 0
    begun = time.monotonic()
    folder = boards.temporary("facelatch-board")
    log = boards.Log(args.work / "last.log", args.verbose)
    board = None
    try:
        board = boards.Board(args.work, folder, log, args.cpu)
        if args.program:
            shutil.copy(args.program, board.share / "facelatch")
            shutil.copy(boards.HERE / "facelatch.toml", board.share)
        board.camera.make(("YUYV", "MJPG"))
        board.boot()
        log.say(f"  up     {time.monotonic() - begun:6.1f} s  Linux {board.guest.release}, {args.cpu}")
        results = play(board, scenes, log)
    except Exception as error:
        log("test", traceback.format_exc())
        log.say(f"the board did not come up: {error}; see {args.work / 'last.log'}")
        return 2
    finally:
        if board:
            board.off()
        shutil.rmtree(folder, ignore_errors=True)
    failed = sum(wrong is not None for _, _, wrong in results)
    skipped = len(scenes) - len(results)
    print(f"{len(results) - failed} passed, {failed} failed, {skipped} skipped"
          f" in {time.monotonic() - begun:.0f} s; {args.work / 'last.log'}")
    return 1 if failed or skipped else 0


if __name__ == "__main__":
    sys.exit(main())
