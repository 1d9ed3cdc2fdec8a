#!/usr/bin/env python3
"""play.py WORK DOOR LINK: a person's way through Home Assistant with a door: it appears,
moves, is moved by its buttons, goes away and comes back, and is removed.

Home Assistant runs in WORK/root, in namespaces of its own that end with this program.
Everything else runs here: the door's program with a camera of pictures and a relay that
only logs, facelatch-link, and a Mosquitto. All of them listen on loopback."""

import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib

BROKER, HTTP = 18884, 18123
URL = f"http://127.0.0.1:{HTTP}"
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

CONFIGURATION = f"""homeassistant:
  internal_url: {URL}
http:
  server_host: 127.0.0.1
  server_port: {HTTP}
auth:
api:
config:
logger:
  default: warning
"""

# Runs in the other Debian, whose /proc and /dev end with it.
ENTER = """mount -t proc proc "$0/proc"; mount --rbind /dev "$0/dev"
exec chroot "$0" /usr/bin/env HOME=/root PATH=/ha/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" """


class Failed(Exception):
    pass


class Home:
    """Home Assistant, and its REST interface as a browser uses it."""

    def __init__(self, root, log):
        self.root, self.log, self.token, self.process, self.door = root, log, None, None, None
        config = root / "config"
        shutil.rmtree(config, ignore_errors=True)
        config.mkdir()
        (config / "configuration.yaml").write_text(CONFIGURATION)
        self.inside("hass", "--script", "auth", "-c", "/config", "add", "tester", "tester-pass").wait(120)

    def inside(self, *command):
        return subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "/bin/bash", "-ec", ENTER]
            + [str(self.root), *command], stdout=self.log, stderr=self.log)

    def start(self):
        self.process = self.inside("hass", "-c", "/config")
        flow = wait("Home Assistant is up", 600, lambda: self.ask("/auth/login_flow", {
            "client_id": URL + "/", "handler": ["homeassistant", None], "redirect_uri": URL + "/"}))
        code = self.ask(f"/auth/login_flow/{flow['flow_id']}", {
            "client_id": URL + "/", "username": "tester", "password": "tester-pass"})["result"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": URL + "/"}
        self.token = self.ask("/auth/token", form=form)["access_token"]
        wait("it runs", 300, lambda: self.ask("/api/config")["state"] == "RUNNING")

    def stop(self):
        """Ends it as `systemctl stop` does. unshare waits for its child, and ignores signals."""
        if not self.process or self.process.poll() is not None:
            return
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, path, body=None, form=None):
        headers, data = {}, None
        if form is not None:
            data = urllib.parse.urlencode(form).encode()
        elif body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(URL + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise Failed(f"{path}: {error}: {error.read().decode()}") from error

    def add_broker(self):
        """As Settings, Devices & services, Add integration, MQTT."""
        step = self.ask("/api/config/config_entries/flow", {"handler": "mqtt"})
        answer = {"broker": "127.0.0.1", "port": BROKER}
        # Versions ask for different things.
        for field in step["data_schema"]:
            if field["name"] == "protocol":
                answer["protocol"] = "5"
            elif field.get("type") == "expandable":
                answer[field["name"]] = {
                    "set_client_cert": False, "set_ca_cert": "off", "transport": "tcp"}
        step = self.ask(f"/api/config/config_entries/flow/{step['flow_id']}", answer)
        if step["type"] != "create_entry":
            raise Failed(f"the integration was not added: {step}")

    def states(self):
        """States of the door's entities, by their kind and the end of their name."""
        all_states = self.ask("/api/states")
        locks = [state["entity_id"] for state in all_states if state["entity_id"].startswith("lock.")]
        if locks:
            self.door = locks[0].removeprefix("lock.")
        states = {}
        for state in all_states:
            kind, name = state["entity_id"].split(".")
            if self.door and name.startswith(self.door):
                states[kind + name.removeprefix(self.door)] = state
        return states

    def state(self, name):
        return self.states().get(name, {}).get("state")

    def call(self, service, name):
        kind, rest = (name.split("_", 1) + [""])[:2]
        entity = f"{kind}.{self.door}" + (f"_{rest}" if rest else "")
        self.ask(f"/api/services/{service}", {"entity_id": entity})


def empty_corridor():
    """A PNG without anybody, 96x96 pixels."""
    def part(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = b"".join(b"\0" + bytes((x + y) % 64 + 96 for x in range(96) for _ in "rgb") for y in range(96))
    head = part(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def wait(what, seconds, test):
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if got := test():
                return got
        except (OSError, urllib.error.URLError) as error:
            last = error
        time.sleep(0.2)
    raise Failed(f"not within {seconds} s: {what} {last or ''}")


def play(work, door, link):
    began = time.monotonic()

    def said(text):
        print(f"{time.monotonic() - began:5.0f} s  {text}", flush=True)

    folder = pathlib.Path(tempfile.mkdtemp(prefix="facelatch-home-"))
    log = open(work / "last.log", "w")
    processes = []

    def start(*command, **environment):
        process = subprocess.Popen([str(part) for part in command], cwd=folder, stdout=log,
                                   stderr=log, env={**os.environ, **environment})
        processes.append(process)
        return process

    home = None
    try:
        (folder / "mosquitto.conf").write_text(
            f"listener {BROKER} 127.0.0.1\nallow_anonymous true\nuser root\n")
        start("mosquitto", "-c", folder / "mosquitto.conf")
        (folder / "frames").mkdir()
        shutil.copy(REPOSITORY / "assets/astronaut.jpg", folder / "frames/1.jpg")
        (folder / "nobody").mkdir()
        (folder / "nobody/1.png").write_bytes(empty_corridor())
        (folder / "facelatch.toml").write_text(f"""
[camera]
uri = "images:{folder}/frames?fps=2&loop"
[relay]
uri = "log:"
[gallery]
file = "{folder}/gallery.redb"
[service]
status_socket = "{folder}/control.sock"
[link]
socket = "{folder}/link.sock"
user = "root"
orders = ["open", "lockdown", "normal"]
names = "name"
""")
        (folder / "link.toml").write_text(f"""
door.socket = "{folder}/link.sock"
mqtt.url = "mqtt://127.0.0.1:{BROKER}"
service.state = "{folder}/state"
""")
        environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}

        def watching_for(whom):
            return start(door, "run", "--config", folder / "facelatch.toml", "--camera",
                         f"images:{folder}/{whom}?fps=2&loop", **environment)

        watching = watching_for("frames")

        def linked():
            return start(link, "run", "--config", folder / "link.toml", RUNTIME_DIRECTORY=str(folder))

        program = linked()
        home = Home(work / "root", log)
        home.start()
        said("Home Assistant is up")
        home.add_broker()

        wait("the door appears", 60, lambda: home.state("lock") == "locked")
        states = home.states()
        unknown = {"button_lockdown", "button_normal"}
        for name, state in sorted(states.items()):
            print(f"         {name}: {state['state']}")
            if state["state"] == "unavailable" or (state["state"] == "unknown" and name not in unknown
                                                   and not name.startswith(("event", "sensor_expected"))):
                raise Failed(f"{name} is {state['state']}")
        wanted = {"lock", "event_passage", "sensor_mode", "sensor_people", "update_models",
                  "button_lockdown", "button_normal", "binary_sensor_alarm",
                  "sensor_expected_false_entries_per_year",
                  *(f"binary_sensor_{part}" for part in ("camera", "relay", "clock", "storage", "link"))}
        if missing := wanted - states.keys():
            raise Failed(f"missing: {missing}")
        if home.state("binary_sensor_camera") != "off":
            raise Failed("the camera has a problem")
        said(f"the door has {len(states)} entities")

        def passage(kind):
            state = home.states()["event_passage"]
            return state["attributes"].get("event_type") == kind and state

        wait("a stranger is seen", 60, lambda: passage("stranger"))
        said("a stranger was at the door")
        subprocess.run([door, "enroll", "Ada Lovelace", "--image", folder / "frames/1.jpg", "--config",
                        folder / "facelatch.toml"], check=True, stdout=log, stderr=log,
                       env={**os.environ, **environment})
        state = wait("Ada is admitted", 60, lambda: passage("admitted"))
        if state["attributes"].get("who") != "Ada Lovelace" or state["attributes"].get("late"):
            raise Failed(f"the event is {state}")
        wait("there is one person", 30, lambda: home.state("sensor_people") == "1")
        said("Ada came in, and Home Assistant names her")

        # From here on nobody is there who could open the door.
        watching.terminate()
        watching.wait(30)
        wait("the door is away", 20, lambda: home.state("lock") == "unavailable")
        watching = watching_for("nobody")
        wait("the door is back", 60, lambda: home.state("lock") == "locked")
        said("a restart of the door is seen")

        home.call("button/press", "button_lockdown")
        wait("lockdown", 20, lambda: home.state("sensor_mode") == "lockdown")
        wait("the door is locked", 30, lambda: home.state("lock") == "locked")
        said("the button Lockdown locks the door down")
        home.call("button/press", "button_normal")
        wait("normal", 20, lambda: home.state("sensor_mode") != "lockdown")
        said("the button Normal ends it")
        wait("the door is locked", 30, lambda: home.state("lock") == "locked")
        home.call("lock/open", "lock")
        wait("the door opens", 20, lambda: home.state("lock") == "open")
        said("lock.open opens the door")
        wait("the door locks", 60, lambda: home.state("lock") == "locked")
        said("and it locks by itself")

        # A retained order is not obeyed.
        program.send_signal(signal.SIGTERM)
        program.wait(20)
        wait("unavailable", 10, lambda: home.state("lock") == "unavailable")
        said("a link that ends makes the door unavailable")
        topic = f"facelatch/local/{json.loads((folder / 'state/cursors.json').read_text())['door']}"
        subprocess.run(["mosquitto_pub", "-p", str(BROKER), "-t", topic + "/order", "-m", "lockdown", "-r"],
                       check=True)
        program = linked()
        wait("back", 30, lambda: home.state("lock") == "locked")
        time.sleep(2)
        if home.state("sensor_mode") == "lockdown":
            raise Failed("a retained order was obeyed")
        subprocess.run(["mosquitto_pub", "-p", str(BROKER), "-t", topic + "/order", "-n", "-r"], check=True)
        program.kill()
        at = time.monotonic()
        wait("unavailable by the will", 40, lambda: home.state("lock") == "unavailable")
        said(f"one that is killed does so by its will, after {time.monotonic() - at:.0f} s")
        program = linked()
        wait("back", 30, lambda: home.state("lock") == "locked")

        # An event that the broker retains is none that happens again: the door is away
        # meanwhile, so that none happens.
        watching.terminate()
        watching.wait(30)
        wait("the door is away", 20, lambda: home.state("lock") == "unavailable")
        before = home.states()["event_passage"]
        home.stop()
        home.start()
        wait("the door is known", 60, lambda: home.state("lock") == "unavailable")
        time.sleep(2)
        watching_for("nobody")
        wait("the door is back", 60, lambda: home.state("lock") == "locked")
        after = home.states()["event_passage"]
        if after["state"] not in (before["state"], "unknown"):
            raise Failed(f"an old event happened again: {before} {after}")
        said("a restart of Home Assistant repeats no event")

        program.send_signal(signal.SIGTERM)
        program.wait(20)
        subprocess.run([link, "forget", "--config", folder / "link.toml"], check=True, stdout=log, stderr=log)
        wait("the door is gone", 20, lambda: not home.states())
        said("facelatch-link forget removes the door")

        home.stop()
        # Home Assistant empties the topic of a door that was removed as well, and then
        # remarks that nothing is left.
        complaints = [line for line in (work / "last.log").read_text().splitlines()
                      if ("WARNING" in line or "ERROR" in line) and "mqtt" in line
                      and "No device components to cleanup" not in line]
        if complaints:
            raise Failed("Home Assistant complains:\n" + "\n".join(complaints[:10]))
        said("Home Assistant has nothing to complain about")
        return 0
    except (Failed, subprocess.CalledProcessError) as error:
        print(f"FAILED after {time.monotonic() - began:.0f} s: {error}\n{work / 'last.log'} has all that was said")
        return 1
    finally:
        if home:
            home.stop()
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(play(*(pathlib.Path(argument).resolve() for argument in sys.argv[1:])))
