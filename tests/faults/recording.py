"""What a program does to a folder, recorded with strace.

Each event is one change or one sync, with the time at which the call began. Files are
numbered like inodes, so that a file keeps its content when its name moves or goes.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

CALLS = ("open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,read,lseek,truncate,ftruncate,"
         "fallocate,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,"
         "symlink,symlinkat,fsync,fdatasync,sync,syncfs,sync_file_range,copy_file_range,sendfile,"
         "mmap,dup,dup2,dup3")
LINE = re.compile(r"^(\d+) +(\d+\.\d+) (.*)$")
CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)")
RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(.*)$")
HEX = re.compile(r"\\x([0-9a-f]{2})")


@dataclass
class Event:
    kind: str
    time: float
    path: str = ""
    to: str = ""
    node: int = -1
    at: int = 0
    data: bytes = b""

    def __str__(self):
        what = {"write": f"{len(self.data)} bytes at {self.at}", "truncate": f"to {self.at} bytes",
                "rename": f"-> {self.to}", "link": f"-> {self.to}"}.get(self.kind, "")
        return f"{self.kind} {self.path} {what}".rstrip()


@dataclass
class Tree:
    """Names and contents of a folder. `None` instead of a number is a folder."""
    names: dict = field(default_factory=dict)
    content: dict = field(default_factory=dict)

    @staticmethod
    def of(root: Path) -> "Tree":
        tree = Tree()
        for folder, folders, files in os.walk(root):
            for name in folders:
                tree.names[os.path.relpath(os.path.join(folder, name), root)] = None
            for name in files:
                path = os.path.join(folder, name)
                # Sockets are no state.
                if os.path.isfile(path) and not os.path.islink(path):
                    node = len(tree.content)
                    tree.names[os.path.relpath(path, root)] = node
                    tree.content[node] = Path(path).read_bytes()
        return tree

    def copy(self) -> "Tree":
        return Tree(dict(self.names), dict(self.content))

    def build(self, root: Path):
        """Makes the folder on disk like this tree. Equal files are left as they are."""
        for path, node in sorted(self.names.items()):
            if node is None:
                (root / path).mkdir(parents=True, exist_ok=True)
        for path, node in self.names.items():
            if node is not None:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(self.content[node])
                os.chmod(root / path, 0o600)

    def key(self):
        return hash(tuple(sorted((path, None if node is None else self.content[node])
                                 for path, node in self.names.items())))

    def apply(self, event: Event, length=None):
        """Carries out an event, of a write only the first `length` bytes."""
        names, content = self.names, self.content
        if event.kind == "create":
            names[event.path] = event.node
            content[event.node] = b""
        elif event.kind == "write":
            data = event.data if length is None else event.data[:length]
            if data:
                old = content.get(event.node, b"")
                old = old.ljust(event.at, b"\0")
                content[event.node] = old[:event.at] + data + old[event.at + len(data):]
        elif event.kind == "truncate":
            content[event.node] = content.get(event.node, b"")[:event.at].ljust(event.at, b"\0")
        elif event.kind == "mkdir":
            names[event.path] = None
        elif event.kind == "link" and event.path in names:
            names[event.to] = names[event.path]
        elif event.kind == "remove":
            names.pop(event.path, None)
        elif event.kind == "rename" and event.path in names:
            below = event.path + "/"
            moved = [path for path in names if path == event.path or path.startswith(below)]
            for path in moved:
                names[event.to + path[len(event.path):]] = names.pop(path)


def text(escaped: str) -> bytes:
    return bytes.fromhex("".join(HEX.findall(escaped)))


def arguments(call: str) -> list:
    """Splits at commas that stand outside quotes, angles and brackets."""
    parts, depth, quoted, start = [], 0, False, 0
    # Strings are hexadecimal, so they hold none of these characters.
    for at in (match.start() for match in re.finditer(r'[",<>\[\]{}]', call)):
        sign = call[at]
        if sign == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif sign in "<[{":
            depth += 1
        elif sign in ">]}":
            depth -= 1
        elif depth == 0:
            parts.append(call[start:at].strip())
            start = at + 1
    parts.append(call[start:].strip())
    return parts


class Reader:
    def __init__(self, root: Path, before: Tree):
        self.root = str(root)
        self.tree = before.copy()
        self.next = len(before.content)
        self.offsets = {}
        self.nodes = {}
        self.appends = set()
        self.events = []

    def inside(self, path: bytes):
        """The path below the root, or `None`."""
        full = os.path.normpath(path.decode(errors="surrogateescape"))
        return full[len(self.root) + 1:] if full.startswith(self.root + "/") else None

    def descriptor(self, argument: str):
        """Number, path below the root and full path of an argument such as 5</a/b>."""
        number, _, path = argument.partition("<")
        path = text(path.removesuffix("(deleted)"))
        return int(number), self.inside(path), path

    def named(self, at: str, path: str):
        """Path below the root, of a path argument."""
        name = text(path)
        if not name.startswith(b"/"):
            folder = text(at.partition("<")[2]) if at else os.fsencode(os.getcwd())
            name = folder + b"/" + name
        return self.inside(name)

    def emit(self, kind, **fields):
        event = Event(kind, self.time, **fields)
        self.tree.apply(event)
        self.events.append(event)

    def open(self, path, flags, number):
        if path is None:
            return
        node = self.tree.names.get(path)
        if path not in self.tree.names:
            if "O_CREAT" not in flags:
                return
            node, self.next = self.next, self.next + 1
            self.emit("create", path=path, node=node)
        elif node is not None and "O_TRUNC" in flags and self.tree.content[node]:
            self.emit("truncate", path=path, node=node, at=0)
        self.nodes[number] = node
        self.offsets[number] = 0
        (self.appends.add if "O_APPEND" in flags else self.appends.discard)(number)

    def node(self, number, path):
        """The file of a descriptor. Another file may have its name by now."""
        return self.nodes[number] if number in self.nodes else self.tree.names.get(path)

    def write(self, number, path, data, at=None):
        node = self.node(number, path)
        if node is None:
            return
        if at is None:
            if number in self.appends:
                self.offsets[number] = len(self.tree.content[node])
            at = self.offsets.get(number, 0)
            self.offsets[number] = at + len(data)
        self.emit("write", path=path, node=node, at=at, data=data)

    def call(self, name, parts, result):
        if name in ("open", "openat", "creat"):
            at = parts.pop(0) if name == "openat" else ""
            flags = parts[1] if name != "creat" else "O_CREAT|O_TRUNC"
            self.open(self.named(at, parts[0]), flags, result)
            return
        if name in ("rename", "renameat", "renameat2"):
            if name == "rename":
                old, new = self.named("", parts[0]), self.named("", parts[1])
            else:
                old, new = self.named(parts[0], parts[1]), self.named(parts[2], parts[3])
            if old is not None:
                self.emit("rename", path=old, to=new)
        elif name in ("unlink", "rmdir", "unlinkat"):
            path = self.named(*parts[:2]) if name == "unlinkat" else self.named("", parts[0])
            if path is not None and path in self.tree.names:
                self.emit("remove", path=path)
        elif name in ("mkdir", "mkdirat"):
            path = self.named(*parts[:2]) if name == "mkdirat" else self.named("", parts[0])
            if path is not None:
                self.emit("mkdir", path=path)
        elif name == "truncate":
            path = self.named("", parts[0])
            if path is not None:
                node = self.tree.names[path]
                self.emit("truncate", path=path, node=node, at=int(parts[1]))
        elif name in ("link", "linkat"):
            if name == "link":
                old, new = self.named("", parts[0]), self.named("", parts[1])
            else:
                old, new = self.named(parts[0], parts[1]), self.named(parts[2], parts[3])
            if old is not None:
                self.emit("link", path=old, to=new)
        elif name in ("symlink", "symlinkat"):
            if any(self.inside(text(part)) is not None for part in parts):
                raise ValueError(f"{name}: not modelled")
        elif name in ("sync", "syncfs"):
            self.emit("sync")
        elif name == "mmap":
            if "MAP_SHARED" in parts[3] and "PROT_WRITE" in parts[2] and "<" in parts[4] \
                    and self.descriptor(parts[4])[1] is not None:
                raise ValueError("a writable mapping of a file: not modelled")
        elif name in ("copy_file_range", "sendfile"):
            source, target = (parts[0], parts[2]) if name == "copy_file_range" else parts[1::-1]
            number, path, _ = self.descriptor(target)
            other, inner, full = self.descriptor(source)
            if path is not None and result:
                at = self.offsets.get((other, full), 0)
                self.offsets[other, full] = at + result
                whole = Path(os.fsdecode(full)).read_bytes() if inner is None \
                    else self.tree.content[self.node(other, inner)]
                self.write(number, path, whole[at:at + result])
        else:
            self.on_descriptor(name, parts, result)

    def on_descriptor(self, name, parts, result):
        if "<" not in parts[0]:
            return
        number, path, _ = self.descriptor(parts[0])
        if path is None:
            return
        if name.startswith("dup"):
            self.nodes[result] = self.nodes.get(number)
            self.offsets[result] = self.offsets.get(number, 0)
        elif name == "read":
            self.offsets[number] = self.offsets.get(number, 0) + result
        elif name == "lseek":
            self.offsets[number] = result
        elif name == "write":
            self.write(number, path, text(parts[1])[:result])
        elif name == "pwrite64":
            self.write(number, path, text(parts[1])[:result], int(parts[3]))
        elif name in ("writev", "pwritev", "pwritev2"):
            data = b"".join(text(part) for part in re.findall(r'iov_base="([^"]*)"', parts[1]))
            at = int(parts[3]) if name != "writev" else None
            self.write(number, path, data[:result], at)
        elif name == "ftruncate":
            self.emit("truncate", path=path, node=self.node(number, path), at=int(parts[1]))
        elif name == "fallocate":
            node = self.node(number, path)
            end = int(parts[2]) + int(parts[3])
            if "KEEP_SIZE" not in parts[1] and end > len(self.tree.content[node]):
                self.emit("truncate", path=path, node=node, at=end)
        elif name in ("fsync", "fdatasync"):
            node = self.node(number, path) if self.tree.names.get(path, 0) is not None else -1
            self.emit("sync", path=path, node=-1 if node is None else node)


def read(trace: Path, root: Path, before: Tree) -> list:
    """The events of a trace, in the order in which the calls ended."""
    reader, begun = Reader(root, before), {}
    with open(trace, errors="replace") as lines:
        for line in lines:
            match = LINE.match(line)
            if not match:
                continue
            thread, time, rest = match.groups()
            time = float(time)
            if rest.endswith("<unfinished ...>"):
                begun[thread] = (time, rest.removesuffix("<unfinished ...>").rstrip())
                continue
            resumed = RESUMED.match(rest)
            if resumed:
                if thread not in begun:
                    continue
                time, start = begun.pop(thread)
                rest = start + resumed.group(1)
            call = CALL.match(rest)
            if not call or call.group(3) == "?" or call.group(3).startswith("-"):
                continue
            reader.time = time
            result = int(call.group(3), 0)
            reader.call(call.group(1), arguments(call.group(2)), result)
    return reader.events
