#!/usr/bin/env python3
"""demo.py PROGRAM [FILE]: writes a picture of `facelatch demo` as FILE, docs/demo.svg by
default.

Runs PROGRAM, such as target/release/facelatch, with colours and draws its output as a
terminal window. Two runs give the same file: lines with measured times are left out. So are
the parts of an approach in which nothing happened, to keep the picture short.
"""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

# Font size, width of a column (of the widest of the fonts below) and line height, pixels.
SIZE, COLUMN, LINE = 13, 7.85, 18
BAR, MARGIN = 34, 16
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
# One dark window for readers in light and in dark mode.
WINDOW, TITLE_BAR, EDGE, TEXT = "#16191f", "#23272f", "#3d434e", "#d5d9e0"
# Colours of the ANSI codes, in the order 30 to 37.
COLOURS = ("#3d434e", "#f2787f", "#7fd08a", "#e0c070", "#79b0f2", "#cf9be8", "#6fc7cf", "#d5d9e0")
FAINT = "#8a919e"
ESCAPE = re.compile(r"\x1b\[([\d;]*)m")
# Lines that differ between two runs.
MEASURED = re.compile(r"ready in|slowest frame")


def plain(line):
    return ESCAPE.sub("", line)


def is_faint(line):
    return line.strip().startswith("\x1b[2m")


def shortened(lines):
    """Leaves out measured times, and parts of an approach without an event."""
    lines = [line for line in lines if not MEASURED.search(line)]
    kept = []
    for line, following in zip(lines, lines[1:] + [""]):
        if is_faint(line) and (is_faint(following) or not following.strip()):
            continue
        if line.strip() or kept and kept[-1].strip():
            kept.append(line)
    return kept


def style(codes):
    """SVG attributes of the ANSI codes in force."""
    fill, weight = TEXT, ""
    for code in codes:
        if code == 1:
            weight = ' font-weight="bold"'
        elif code == 2:
            fill = FAINT
        elif 30 <= code <= 37:
            fill = COLOURS[code - 30]
    return (f' fill="{fill}"' if fill != TEXT else "") + weight


def spans(line):
    """A line, from its first letter on, as SVG text spans."""
    parts, codes, at = [], [], 0
    for match in [*ESCAPE.finditer(line), None]:
        text = line[at : match.start() if match else len(line)]
        text = text if parts else text.lstrip()
        if text:
            # Several spaces would become one.
            text = html.escape(text, quote=False).replace(" ", "\u00a0")
            look = style(codes)
            parts.append(f"<tspan{look}>{text}</tspan>" if look else text)
        if match:
            at = match.end()
            for code in match[1].split(";"):
                codes = codes + [int(code)] if code not in ("", "0") else []
    return "".join(parts)


def picture(lines):
    columns = max(len(plain(line)) for line in lines)
    width = round(2 * MARGIN + columns * COLUMN)
    height = BAR + 2 * MARGIN + len(lines) * LINE
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="facelatch demo">',
        "<title>facelatch demo: who is refused and who is let in, with similarity and threshold"
        "</title>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="9" '
        f'fill="{WINDOW}" stroke="{EDGE}"/>',
        f'<path d="M1 {BAR}V9.5A8.5 8.5 0 0 1 9.5 1H{width - 9.5}A8.5 8.5 0 0 1 {width - 1} 9.5'
        f'V{BAR}Z" fill="{TITLE_BAR}"/>',
        *(f'<circle cx="{18 + 18 * n}" cy="17" r="5" fill="{EDGE}"/>' for n in range(3)),
        f'<g font-family="{FONTS}" font-size="{SIZE}" fill="{TEXT}">',
        f'<text x="{width / 2:g}" y="21.5" text-anchor="middle" fill="{FAINT}">facelatch demo</text>',
    ]
    for number, line in enumerate(lines):
        if line.strip():
            y = BAR + MARGIN + number * LINE + SIZE
            text = plain(line)
            x = MARGIN + (len(text) - len(text.lstrip())) * COLUMN
            out.append(f'<text x="{x:g}" y="{y}">{spans(line)}</text>')
    return "\n".join([*out, "</g>", "</svg>", ""])


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).with_name("demo.svg")
    environment = {**os.environ, "CLICOLOR_FORCE": "1", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    done = subprocess.run(
        [sys.argv[1], "demo"], env=environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{sys.argv[1]} demo: exit code {done.returncode}; the picture stays as it was")
    lines = ["\x1b[2m$\x1b[0m facelatch demo", *shortened(done.stdout.splitlines())]
    target.write_text(picture(lines), encoding="utf-8")
    print(f"{target}: {len(lines)} lines")


if __name__ == "__main__":
    main()
