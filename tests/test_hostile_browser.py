"""Hostile files in a real browser: opened by a click, and embedded by somebody's page, they run
nothing."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Self
from urllib.parse import quote

import requests

from gateway.clock import SystemClock
from gateway.links import Links
from gateway.store.batcher import Batcher
from gateway.store.database import Database
from gateway.store.reader import Reader
from tests.hostile import that_run
from tests.running import (
    PUBLIC,
    Client,
    eventually,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.test_media import fetched, media_path
from tests.vendors import LoopbackVendor, Reply

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FOLLOWED = re.compile(r'^\w+_count\{[^}]*route="/media/\{id\}"[^}]*\} ([0-9.]+)$', re.MULTILINE)
EMBEDDED = (
    '<script src="{url}"></script>',
    '<link rel=stylesheet href="{url}">',
    '<iframe src="{url}"></iframe>',
    '<embed src="{url}">',
    '<object data="{url}"></object>',
    '<img src="{url}">',
    '<video src="{url}" preload=auto></video>',
)


class Browser:
    """A headless Chromium, told what to open by its DevTools' address."""

    def __init__(self, folder: Path) -> None:
        found = next(filter(None, map(shutil.which, BROWSERS)), None)
        assert found, "these tests open files in Chromium (Debian: apt-get install chromium)"
        self._folder = folder
        self._process = subprocess.Popen(
            [
                found,
                "--headless=new",
                "--no-sandbox",  # of the operating system, which containers do not allow
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        noted = self._folder / "DevToolsActivePort"
        read = lambda: noted.is_file() and noted.read_text().partition("\n")[0]  # noqa: E731
        try:
            port = eventually(read, "the browser", within=60)
        except BaseException:
            self.__exit__()
            raise
        self._tools = f"http://127.0.0.1:{port}/json"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)

    def open(self, url: str) -> None:
        """Opens an address in a tab of its own, as somebody who clicks on a link."""
        requests.put(f"{self._tools}/new?{quote(url, safe='')}", timeout=30).raise_for_status()

    def titles(self) -> list[str]:
        """The titles of all tabs."""
        tabs: list[dict[str, str]] = requests.get(f"{self._tools}/list", timeout=30).json()
        return [tab["title"] for tab in tabs]


def links(database_url: str, ids: list[str]) -> list[str]:
    """Links to files, as the gateway makes them for vendors."""

    async def made() -> list[str]:
        database = Database(database_url)
        reader, batcher = Reader(database), Batcher(database, lambda _: None)
        batcher.start()
        try:
            maker = Links(batcher, reader, SystemClock(), PUBLIC)
            return [await maker.url("default", id_, 3600) for id_ in ids]
        finally:
            await batcher.stop()
            reader.close()
            database.close()

    return asyncio.run(made())


def html(body: str) -> Reply:
    """A page."""
    return Reply(body=body.encode(), headers={"Content-Type": "text/html; charset=utf-8"})


def test_a_browser_that_opens_hostile_files_runs_nothing(
    postgres_url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    with (
        LoopbackVendor() as witness,
        in_thread(variables(tmp_path, postgres_url, **twilio(vendor.url))) as client,
    ):
        files = that_run(witness.url)
        for number, data in enumerate(files.values()):
            served = Reply(body=data, headers={"Content-Type": "image/png"})
            vendor.pages[media_path(number)] = served
        urls = [f"https://api.twilio.com{media_path(n)}" for n in range(len(files))]
        paths = receive_all(client, urls)
        opened = [
            client.url + link.removeprefix(PUBLIC)
            for link in links(postgres_url, [path.rpartition("/")[2] for path in paths])
        ]
        assert {requests.get(url, timeout=20).status_code for url in opened} == {200}
        before = asked(client)
        embedding = "".join(each.format(url=url) for url in opened for each in EMBEDDED)
        loaded = "<script>onload=()=>fetch('/loaded')</script>"
        witness.pages["/attack"] = html(f"<title>attack</title>{embedding}{loaded}")
        witness.pages["/control"] = html(that_run(witness.url)["html"].decode())
        witness.always = Reply(body=b"")

        def visited(path: str) -> bool:
            return path in {request.path for request in witness.requests}

        with Browser(tmp_path / "browser") as browser:
            for url in opened:
                browser.open(url)
            browser.open(f"{witness.url}/attack")
            eventually(lambda: visited("/loaded"), "the attack", within=60)
            eventually(lambda: asked(client) >= before + 2 * len(opened), "the files", within=60)
            assert [r.path for r in witness.requests if r.path.startswith("/ran")] == []
            assert "ran" not in browser.titles()
            # The same as a page of somebody's: it runs, and is noticed.
            browser.open(f"{witness.url}/control")
            eventually(lambda: visited("/ran?html"), "the control", within=60)
            eventually(lambda: "ran" in browser.titles(), "the control's title", within=60)
        ran = {r.path for r in witness.requests if r.path.startswith("/ran")}
        assert ran == {"/ran?html"}


def receive_all(client: Client, urls: list[str]) -> list[str]:
    """A person sends many files, ten a message; their paths, once they are there."""
    for start in range(0, len(urls), 10):
        part = urls[start : start + 10]
        form = inbound_form(sid(start + 1, "MM"), "", NumMedia=str(len(part)))
        for place, url in enumerate(part):
            form |= {f"MediaUrl{place}": url, f"MediaContentType{place}": "image/png"}
        assert client.webhook("/api/webhooks/sms", form).ok
    messages = client.get("/api/messages", direction="inbound")["items"]
    paths = [file["url"] for message in reversed(messages) for file in message["media"]]
    assert len(paths) == len(urls)
    assert {fetched(client, path) for path in paths} == {200}
    return paths


def asked(client: Client) -> int:
    """How often links were followed, as the gateway counts."""
    text = client.call("GET", "/metrics").text
    found = re.findall(
        r'^\w+_count\{[^}]*route="/media/\{id\}"[^}]*\} ([0-9.]+)$', text, re.MULTILINE
    )
    return int(sum(map(float, found)))
