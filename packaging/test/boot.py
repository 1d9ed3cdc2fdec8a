#!/usr/bin/env python3
"""boot.py FOLDER DISK SHARE SECONDS: boots FOLDER/vmlinuz on an emulated board with DISK
(which is written to) and the shared folder SHARE, and waits until the board switches itself
off. The board requests "plug" or "unplug" of the USB relay through the file SHARE/ask."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

folder, disk, share, seconds = sys.argv[1:]
folder, share = Path(folder), Path(share)
sockets = tempfile.TemporaryDirectory()
monitor = Path(sockets.name, "monitor")
command = [
    *("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a76", "-smp", "2", "-m", "1024"),
    *("-accel", "tcg,thread=multi", "-nodefaults", "-display", "none", "-monitor", "none"),
    *("-kernel", folder / "vmlinuz", "-initrd", folder / "initrd.img"),
    *("-append", "console=ttyAMA0 root=/dev/vda rw panic=-1 systemd.show_status=no"),
    *("-serial", f"file:{share / 'console'}", "-qmp", f"unix:{monitor},server=on,wait=off"),
    *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
    *("-fsdev", f"local,id=share,path={share},security_model=none"),
    *("-device", "virtio-9p-pci,fsdev=share,mount_tag=share", "-device", "qemu-xhci"),
    *("-chardev", "null,id=relay"),
]
board = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)
lines = None


def order(name, **arguments):
    """Sends a QMP command to QEMU, skips events and prints an error."""
    global lines
    if lines is None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(monitor))
        lines = connection.makefile("rw")
        lines.readline()
        order("qmp_capabilities")
    lines.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
    lines.flush()
    while "event" in (answer := json.loads(lines.readline())):
        pass
    if "error" in answer:
        print(f"{name}: {answer['error']['desc']}", file=sys.stderr)


try:
    output, shown = share / "output", 0
    end = time.monotonic() + float(seconds)
    while True:
        over = board.poll() is not None
        text = output.read_text(errors="replace") if output.exists() else ""
        print(text[shown:], end="", flush=True)
        shown = len(text)
        if over:
            break
        if time.monotonic() > end:
            sys.exit(f"the board is not done after {seconds} s; its console: {share / 'console'}")
        asked = (share / "ask").read_text().strip() if (share / "ask").exists() else ""
        if asked == "plug":
            # Without always-plugged the device appears only once its other end is open.
            plug = {"driver": "usb-serial", "chardev": "relay", "always-plugged": True}
            order("device_add", id="relay", **plug)
        elif asked == "unplug":
            order("device_del", id="relay")
        if asked:
            os.truncate(share / "ask", 0)
        time.sleep(0.5)
finally:
    board.kill()
    board.wait()
