"""HTML of mail, made harmless by `nh3` (an allow-list), and its text for people.

Nothing of it calls anybody: pictures from elsewhere are taken out and counted, and what the email
brought itself is named `media:<place>`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from typing import NoReturn

LONGEST = 500_000  # characters
SECONDS, CPU_SECONDS = 3.5, 2  # of the five that an email has
# The cleaner takes the square of the depth.
DEEPEST = 5000
TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
VOID = frozenset({
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
    "wbr",
})  # fmt: skip
BLOCKS = frozenset(
    {"p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "table", "ul", "ol", "hr"}
)
SCHEMES = {"http", "https", "mailto", "tel", "cid"}


@dataclass(frozen=True, slots=True)
class Cleaned:
    """HTML that can be shown, and how many pictures of others it would have fetched."""

    html: str
    remote_images: int


def cleaned(html: str, files: Mapping[str, int]) -> Cleaned | None:
    """The HTML without what runs, posts, loads or hides; None: it is too long or too deep to be
    looked at, or too long once it is clean, as what is not closed is opened again in each block.
    `files` has the place of each file by its content id."""
    if len(html) > LONGEST or _depth(html) > DEEPEST:
        return None
    import nh3

    remote = 0

    def kept(tag: str, attribute: str, value: str) -> str | None:
        nonlocal remote
        if tag != "img" or attribute != "src":
            return value
        scheme, _, rest = value.strip().partition(":")
        if scheme.lower() == "cid":
            place = files.get(rest.strip("<>"))
            return f"media:{place}" if place is not None else None
        remote += 1
        return None

    allowed = {tag: set(names) for tag, names in nh3.ALLOWED_ATTRIBUTES.items()}
    made = nh3.clean(
        html,
        tags=nh3.ALLOWED_TAGS,
        attributes=allowed,
        attribute_filter=kept,
        url_schemes=SCHEMES,
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
        clean_content_tags={"script", "style", "title", "template", "noscript"},
    )
    return Cleaned(made, remote) if len(made) <= LONGEST else None


def in_time(html: str, files: Mapping[str, int]) -> Cleaned | None:
    """The same in a process of its own, for what is small and takes long: None after a while, and
    the rest of the email is read all the same. For a program that has one thread."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        _clean_into(into, html, files)
    os.close(into)
    made = _read(out, SECONDS)
    os.close(out)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if made is None:
        return None
    try:
        told = json.loads(made)
    except ValueError:
        return None
    return Cleaned(str(told["html"]), int(told["remote_images"])) if told else None


def _clean_into(into: int, html: str, files: Mapping[str, int]) -> NoReturn:
    """What the process does; whatever happens, it ends here."""
    try:
        os.close(0)
        os.close(1)  # whoever waits for what is said there does not wait for this
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        made = cleaned(html, files)
        with os.fdopen(into, "wb") as pipe:
            pipe.write(json.dumps(asdict(made) if made is not None else None).encode())
        os._exit(0)
    finally:
        os._exit(1)


def _read(pipe: int, seconds: float) -> bytes | None:
    """What a process says until it ends; None: it does not in time."""
    made, end = bytearray(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        piece = os.read(pipe, 1 << 16)
        if not piece:
            return bytes(made)
        made += piece
    return None


def _depth(html: str) -> int:
    """How deep it nests at most, roughly, and never less: what is not closed stays open."""
    depth = deepest = 0
    for closing, name in TAG.findall(html):
        if closing:
            depth = max(0, depth - 1)
        elif name.lower() not in VOID:
            depth += 1
            deepest = max(deepest, depth)
    return deepest


def plain(html: str) -> str:
    """What a person would read of cleaned HTML."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Reader(HTMLParser):
    """Collects the text, with a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begins a line."""
        if tag in BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Ends it."""
        if tag in BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Keeps what is read."""
        self.pieces.append(data)
