"""The states that a power cut may leave, from the events before it.

`prefix`: everything before the cut is on disk, and of the write at the cut a part.
`journal`: a disk with a journal, like ext4 with data=ordered. Names and sizes are lost from
some event on, in order. Of the writes that were not synced any pages of 4096 bytes may be
lost; what extends a file is there as far as its size. A sync of a file or folder whose name
or size changed makes all names and sizes before it durable.
`harsh`: what POSIX allows. A sync makes durable the content of one file, or the names in one
folder, and nothing else. Everything else is lost or kept independently: names, sizes, and
sectors of 512 bytes, in any order.
"""

from recording import Event, Tree

PAGE, SECTOR = 4096, 512
NAMES = ("create", "rename", "link", "remove", "mkdir")


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def prefix(before: Tree, events: list, count: int, part) -> Tree:
    tree = before.copy()
    for event in events[:count]:
        tree.apply(event)
    if part is not None:
        tree.apply(events[count], part)
    return tree


def pieces(event: Event, size: int):
    """A write in pieces that end at multiples of `size`."""
    at, end = event.at, event.at + len(event.data)
    while at < end:
        to = min(end, (at // size + 1) * size)
        data = event.data[at - event.at:to - event.at]
        yield Event("write", event.time, path=event.path, node=event.node, at=at, data=data)
        at = to


def journal(before: Tree, events: list, count: int, keep) -> Tree:
    """`keep(of)` says whether to keep something that was not synced."""
    events = events[:count]
    # Names and sizes up to here are durable.
    durable, pending, synced, sizes = 0, set(), {}, {}
    lengths = {node: len(content) for node, content in before.content.items()}
    for at, event in enumerate(events):
        if event.kind == "sync":
            everything = event.path == ""
            key = event.node if event.node >= 0 else event.path
            if event.node >= 0 or everything:
                for node in list(lengths) if everything else [event.node]:
                    synced[node] = at
            if everything or key in pending:
                durable = at
                pending.clear()
        elif event.kind in NAMES:
            pending.add(parent(event.path))
            if event.to:
                pending.add(parent(event.to))
            if event.node >= 0:
                pending.add(event.node)
                lengths[event.node] = 0
        else:
            end = event.at + len(event.data)
            if event.kind == "truncate" or end > lengths.get(event.node, 0):
                lengths[event.node] = end
                pending.add(event.node)
        sizes[at] = lengths.get(event.node, 0)
    # The journal ends somewhere after that.
    last = durable
    while last < count and keep("journal"):
        last += 1
    tree, ended = before.copy(), set()
    for at, event in enumerate(events):
        safe = at < synced.get(event.node, -1)
        if event.kind in NAMES or event.kind == "truncate":
            if at < max(last, durable) or (event.kind == "truncate" and safe):
                tree.apply(event)
        elif event.kind == "write":
            if safe:
                tree.apply(event)
                continue
            for piece in pieces(event, PAGE):
                extends = piece.at + len(piece.data) > len(tree.content.get(piece.node, b""))
                if extends and (piece.node in ended or at >= last and not keep("size")):
                    ended.add(piece.node)
                elif extends or keep("page"):
                    tree.apply(piece)
    return tree


def harsh(before: Tree, events: list, count: int, keep) -> Tree:
    events = events[:count]
    synced = {}
    for at, event in enumerate(events):
        if event.kind == "sync":
            if event.path == "":
                synced[None] = at
            else:
                synced[event.node if event.node >= 0 else event.path] = at

    def safe(at, key):
        return at < max(synced.get(key, -1), synced.get(None, -1))

    tree = before.copy()
    # Where a lost change left each name; contents are kept by number.
    for at, event in enumerate(events):
        if event.kind == "create":
            tree.content.setdefault(event.node, b"")
        if event.kind in NAMES:
            folder = parent(event.path)
            both = safe(at, folder) and (not event.to or safe(at, parent(event.to)))
            if not both and not keep("name"):
                continue
            if event.kind == "create":
                tree.names[event.path] = event.node
            else:
                tree.apply(event)
        elif event.kind == "truncate":
            if safe(at, event.node) or keep("size"):
                tree.apply(event)
        elif event.kind == "write":
            if safe(at, event.node):
                tree.apply(event)
            else:
                for piece in pieces(event, SECTOR):
                    if keep("sector"):
                        tree.apply(piece)
    # What lies in a folder that was lost is lost.
    for path in list(tree.names):
        above = parent(path)
        while above:
            if tree.names.get(above, 0) is not None:
                tree.names.pop(path, None)
            above = parent(above)
    return tree
