"""The page: served to anybody, strict about what it may load, and in step with the gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import requests

from gateway import segments
from gateway.api.routes import OPERATIONS
from gateway.domain import Channel, Status
from gateway.web.page import FOLDER, TYPES
from tests.databases import sqlite_copy
from tests.running import Client, in_thread, variables

FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in TYPES)
SCRIPTS = [name for name in FILES if name.endswith(".js")]
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg"'  # a name that an SVG file must have; never loaded
VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta"})
OUTSIDE = re.compile(r"(?:\b(?:https?|wss?|ftp):)?//[a-z0-9.-]+\.[a-z]{2,}", re.IGNORECASE)
FROM_MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|DOMParser"
    r"|createContextualFragment|setHTML|\beval\(|new Function|setAttribute\(\"style\"|javascript:"
)

each_file = pytest.mark.parametrize("name", FILES)
each_script = pytest.mark.parametrize("name", SCRIPTS)


def text_of(name: str) -> str:
    """A file of the page."""
    return (FOLDER / name).read_text(encoding="utf-8")


class Shell(HTMLParser):
    """The elements of index.html, with the text inside each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.inside_label: list[dict[str, str | None]] = []
        self.feed(text_of("index.html"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        element = (tag, dict(attrs), list[str]())
        self.found.append(element)
        if any(outer[0] == "label" for outer in self.open):
            self.inside_label.append(element[1])
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        """Closes an element; one that is closed out of turn is a mistake in the file."""
        assert self.open.pop()[0] == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        """Gives text to every element that it stands in."""
        for _, _, texts in self.open:
            texts.append(data.strip())

    def all(self, *tags: str) -> Iterator[tuple[dict[str, str | None], str]]:
        """Attributes and text of the elements of some kinds."""
        return ((given, "".join(texts)) for tag, given, texts in self.found if tag in tags)

    @property
    def ids(self) -> list[str]:
        """Every id, in order."""
        return [given["id"] or "" for _, given, _ in self.found if "id" in given]


SHELL = Shell()


@pytest.fixture(scope="module")
def gateway(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A running gateway."""
    folder = tmp_path_factory.mktemp("page")
    with in_thread(variables(folder, sqlite_copy(sqlite_file, folder))) as client:
        yield client


@each_file
def test_every_file_is_served_without_a_key(gateway: Client, name: str) -> None:
    path = "/" if name == "index.html" else f"/{name}"
    answer = requests.get(gateway.url + path, timeout=10)
    assert answer.status_code == 200
    assert answer.content == (FOLDER / name).read_bytes()
    assert answer.headers["content-type"].partition(";")[0] == TYPES[Path(name).suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


def test_what_the_page_shows_needs_a_key(gateway: Client) -> None:
    answer = requests.get(gateway.url + "/api/conversations", timeout=10)
    assert answer.status_code == 401
    assert answer.json()["detail"]


@each_file
def test_the_policy_lets_in_nothing_from_elsewhere(gateway: Client, name: str) -> None:
    path = "/" if name == "index.html" else f"/{name}"
    sent = requests.get(gateway.url + path, timeout=10).headers["content-security-policy"]
    policy = dict(part.strip().partition(" ")[::2] for part in sent.split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    allowed = {source for sources in policy.values() for source in sources.split()}
    assert allowed <= {"'none'", "'self'", "blob:", "data:"}


@each_file
def test_no_file_names_another_host(name: str) -> None:
    text = text_of(name)
    text = text.replace(NAMESPACE, "") if name.endswith(".svg") else text
    assert OUTSIDE.findall(text) == []


def test_the_shell_has_no_inline_script_style_or_handler() -> None:
    for tag, given, texts in SHELL.found:
        assert tag not in ("style", "base", "iframe", "object", "embed")
        assert not [name for name in given if name.startswith("on") or name in ("style", "nonce")]
        if tag == "script":
            assert given.get("src")
            assert not "".join(texts)


@each_script
def test_no_script_makes_markup_of_text(name: str) -> None:
    assert FROM_MARKUP.findall(text_of(name)) == []


def test_everything_that_the_shell_names_is_there() -> None:
    served = {*FILES, "docs"}
    for given, _ in SHELL.all("script", "link", "img", "a"):
        name = given.get("src") or given.get("href")
        assert name is None or name in served or name.startswith("#"), name
    for given, _ in SHELL.all("use"):
        assert (given["href"] or "").removeprefix("#") in SHELL.ids
    for name in ("for", "aria-describedby", "aria-labelledby", "data-opens", "data-copies"):
        for _, attributes, _ in SHELL.found:
            assert set((attributes.get(name) or "").split()) <= set(SHELL.ids)
    assert len(SHELL.ids) == len(set(SHELL.ids))


def test_everything_that_the_scripts_name_is_there() -> None:
    for name in SCRIPTS:
        text = text_of(name)
        assert set(re.findall(r'from "\./([^"]+)"', text)) <= set(SCRIPTS), name
        assert set(re.findall(r'byId\("([^"]+)"\)', text)) <= set(SHELL.ids), name
        icons = re.findall(r'\bicon(?:: |\()"([a-z]+)"', text)
        assert {f"i-{icon}" for icon in icons} <= set(SHELL.ids), name


def test_every_script_is_used() -> None:
    named = {name for script in SCRIPTS for name in re.findall(r'from "\./(.+?)"', text_of(script))}
    entries = {given["src"] for given, _ in SHELL.all("script")}
    assert named | entries == set(SCRIPTS)


def test_every_control_has_a_name() -> None:
    labelled = {given.get("for") for given, _ in SHELL.all("label")}
    for given, _ in SHELL.all("input", "textarea", "select"):
        assert given.get("id") in labelled or given in SHELL.inside_label, given
    for given, text in SHELL.all("button"):
        later = given.get("id") == "latest"  # its words tell how many messages are new
        assert text or given.get("aria-label") or later, given
    for given, _ in SHELL.all("img"):
        assert "alt" in given, given


def test_the_page_calls_only_what_the_api_has() -> None:
    known = {re.sub(r"\{\w+\}", "{}", operation.path) for operation in OPERATIONS}
    called = set()
    for name in SCRIPTS:
        for path in re.findall(r"[\"`](/(?:api|health)/[^\"`]*)[\"`]", text_of(name)):
            plain = re.sub(r"\$\{[^}]*\}", "{}", path.partition("?")[0])
            called.add(re.sub(r"(?<=[a-z])\{\}$", "", plain))
    assert "/api/conversations/{}/messages" in called
    assert called <= known | {"/health/ready"}


def test_the_page_has_words_for_every_status_and_channel() -> None:
    words = text_of("words.js")
    assert set(re.findall(r'^  "(\w+)": \{ word: ', words, re.MULTILINE)) == set(Status)
    channels = re.search(r"const CHANNELS = \{(.+?)\}", words)
    assert channels is not None
    assert set(re.findall(r"(\w+):", channels[1])) == set(Channel)


def test_the_page_counts_segments_in_the_alphabet_of_the_gateway() -> None:
    text = text_of("segments.js")
    sets = dict(re.findall(r"^const (\w+) = new Set\((\".*\")\);$", text, re.MULTILINE))
    assert set(json.loads(sets["BASIC"])) == segments.GSM_BASIC
    assert set(json.loads(sets["EXTENSION"])) == segments.GSM_EXTENSION
    pairs = re.findall(r", (\d+), (\d+)\);$", text, re.MULTILINE)
    sizes = [int(number) for pair in pairs for number in pair]
    assert sizes == [
        segments.GSM_SINGLE,
        segments.GSM_PART,
        segments.UCS2_SINGLE,
        segments.UCS2_PART,
    ]


def test_a_page_that_has_seen_nothing_is_told_where_the_feed_stands(gateway: Client) -> None:
    beyond = re.search(r'const BEYOND = "(\d+)";', text_of("stream.js"))
    assert beyond is not None
    sent = gateway.send(to="+15550100001", body="before the page was opened")
    gateway.until(sent["id"], "delivered")
    with gateway.call(
        "GET", "/api/events", headers={"Last-Event-ID": beyond[1]}, stream=True
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
        number = next(line for line in lines if line.startswith("id: "))
        assert next(lines) == "event: feed.reset"
    assert int(number.removeprefix("id: ")) > 0
