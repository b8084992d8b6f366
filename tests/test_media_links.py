"""Uploads in what is sent: the vendor pulls them by a link that is signed and ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from gateway.links import LEAST, MOST, Links, Verdict
from gateway.store import keys
from gateway.store.batcher import Batcher
from gateway.store.database import Database
from gateway.store.reader import Reader
from tests.aws_servers import LoopbackAws
from tests.running import PUBLIC, Client, eventually, in_thread, twilio, variables
from tests.stored import Store
from tests.test_media_places import amazon
from tests.test_media_uploads import HTML, PNG, archive, post
from tests.vendors import LoopbackVendor

PERSON = "+15550100001"


def pulled(vendor: LoopbackVendor, place: int = -1) -> str:
    """The address of a file that a vendor was given."""
    (url,) = vendor.requests[place].form["MediaUrl"]
    return str(url)


def visit(client: Client, url: str, method: str = "GET", **headers: str) -> requests.Response:
    """What a vendor sees that follows a link; the proxy is left out."""
    assert url.startswith(f"{PUBLIC}/media/med_")
    there = client.url + url.removeprefix(PUBLIC)
    return requests.request(method, there, headers=headers, timeout=20, allow_redirects=False)


def test_a_vendor_pulls_an_upload_without_a_key(client: Client, vendor: LoopbackVendor) -> None:
    made = post(client, PNG, "image/png", "?filename=cat.png").json()
    sent = client.send(to=PERSON, body="Look", media=[made["url"]])
    assert sent["media"] == [
        {"url": made["url"], "content_type": "image/png", "filename": "cat.png"}
    ]
    assert sent["type"] == "image"
    assert client.until(sent["id"], "accepted")["media"] == sent["media"]
    url = pulled(vendor)
    answer = visit(client, url)
    assert answer.status_code == 200 and answer.content == PNG
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert visit(client, url, "HEAD").headers["content-length"] == str(len(PNG))
    assert visit(client, url, Range="bytes=0-3").content == PNG[:4]
    assert visit(client, url, "POST").status_code == 405


def test_a_link_is_for_one_file_and_holds_no_other_way(
    client: Client, vendor: LoopbackVendor
) -> None:
    made, other = (post(client, data).json() for data in (PNG, PNG + b"x"))
    client.until(client.send(to=PERSON, media=[made["url"]])["id"], "accepted")
    url = pulled(vendor)
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    forged = [
        url.replace(made["id"], other["id"]),
        url.replace(made["id"], "med_nothing"),
        url.replace(query["expires"], str(int(query["expires"]) + 1)),
        url.replace(query["signature"], "0" * 64),
        url.replace(query["signature"], query["signature"].upper()),
        url.replace(query["signature"], ""),
        url.partition("?")[0],
        url.partition("&")[0],
        url.replace("expires=", "expires=0"),
    ]
    assert {visit(client, each).status_code for each in forged} == {403}
    assert visit(client, url).status_code == 200


@pytest.mark.parametrize("public", ["http://127.0.0.1:9", f"{PUBLIC}/gateway"])
def test_the_link_stands_under_the_public_address(
    sqlite_url: str, tmp_path: Path, vendor: LoopbackVendor, public: str
) -> None:
    more = {**twilio(vendor.url), "PUBLIC_URL": public}
    with in_thread(variables(tmp_path, sqlite_url, **more)) as client:
        made = post(client, PNG).json()
        sent = client.send(to=PERSON, media=[{"url": public + made["url"], "filename": "a.png"}])
        assert sent["media"][0]["url"] == made["url"]
        assert sent["media"][0]["filename"] == "a.png"
        client.until(sent["id"], "accepted")
    assert pulled(vendor).startswith(f"{public}/media/{made['id']}?expires=")


def test_who_owns_no_such_file_cannot_send_it(url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, url)) as client:
        made = post(client, PNG).json()
        database = Database(url)
        with database.write() as tx:
            key = keys.make(tx, tenant_id="other", name="theirs")
        database.close()
        theirs = Client(client.url, key)
        assert theirs.call("GET", made["url"]).status_code == 404
        for who, path in ((theirs, made["url"]), (client, "/api/media/med_nothing")):
            body = {"to": PERSON, "media": [path]}
            answer = who.call("POST", "/api/messages", json=body)
            assert answer.status_code == 422
            (error,) = answer.json()["errors"]
            assert error["field"] == "media.0.url" and "no file of yours" in error["message"]


def test_a_file_that_the_channel_does_not_carry_is_not_accepted(idle: Client) -> None:
    zipped = post(idle, archive("a")).json()
    body: dict[str, Any] = {"to": PERSON, "media": [zipped["url"]]}
    answer = idle.call("POST", "/api/messages", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {
            "field": "media.0.url",
            "message": "is of the type application/zip, which sms does not carry",
        }
    ]


@pytest.mark.parametrize("path", ["/api/media/", "/api/media/../messages", "/api/media/msg_1"])
def test_what_only_looks_like_a_file_of_ours_is_refused(idle: Client, path: str) -> None:
    answer = idle.call("POST", "/api/messages", json={"to": PERSON, "media": [path]})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "media.0.url"


def test_a_file_that_somebody_sent_can_be_passed_on(client: Client, vendor: LoopbackVendor) -> None:
    from tests.test_media import fetched, media_path, receive
    from tests.vendors import Reply

    vendor.pages[media_path(1)] = Reply(body=PNG, headers={"Content-Type": "image/png"})
    (path,) = receive(client, [(f"https://api.twilio.com{media_path(1)}", "image/png")])
    assert fetched(client, path) == 200
    client.until(client.send(to=PERSON, media=[path])["id"], "accepted")
    assert visit(client, pulled(vendor)).content == PNG


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws() as made:
        yield made


def test_an_upload_is_copied_where_its_vendor_reads_it(
    sqlite_url: str, tmp_path: Path, aws: LoopbackAws
) -> None:
    more = {**amazon(aws), "PUBLIC_URL": "http://127.0.0.1:9"}  # nobody could fetch it there
    with in_thread(variables(tmp_path, sqlite_url, **more)) as client:
        made = post(client, PNG, "image/png").json()
        sent = client.send(to=PERSON, body="Look", media=[made["url"]])
        client.until(sent["id"], "accepted")
    kept = f"files/default/outbound/{sent['id']}/0.png"
    assert aws.files == {f"/{kept}": ("image/png", PNG)}
    assert [one["MediaUrls"] for one in aws.sent] == [[f"s3://{kept}"]]
    assert aws.refused == []


def test_an_upload_that_was_deleted_ends_its_message(
    sqlite_url: str, tmp_path: Path, aws: LoopbackAws
) -> None:
    with in_thread(variables(tmp_path, sqlite_url, **amazon(aws))) as client:
        made = post(client, PNG, "image/png").json()
        (found,) = tmp_path.rglob(made["id"])
        found.unlink()
        sent = client.send(to=PERSON, media=[made["url"]])
        assert client.until(sent["id"], "failed")["error"]["code"] == "media_gone"
        plain = client.send(to=PERSON, body="Hello")
        client.until(plain["id"], "accepted")
    assert len(aws.sent) == 1


def test_nothing_that_could_be_run_goes_out(idle: Client) -> None:
    assert post(idle, HTML, "text/html").status_code == 422


class Setting:
    """A clock that is set."""

    at = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


@pytest.mark.parametrize(("asked", "lasts"), [(1, LEAST), (7200, 7200), (10**9, MOST)])
def test_a_link_ends(store: Store, asked: float, lasts: float) -> None:
    async def run() -> None:
        batcher, reader, clock = Batcher(store.database, lambda _: None), None, Setting()
        reader = Reader(store.database)
        batcher.start()
        try:
            made = Links(batcher, reader, clock, PUBLIC)
            url = await made.url("default", "med_1", asked)
            query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
            given = (query["expires"], query["signature"])
            # Another process, with nothing in its memory, has the same key.
            other = Links(batcher, reader, clock, PUBLIC)
            assert await other.judge("default", "med_1", *given) is Verdict.HOLDS
            assert await other.judge("default", "med_2", *given) is Verdict.WRONG
            assert await other.judge("another", "med_1", *given) is Verdict.WRONG
            await other.url("another", "med_1", asked)
            assert await other.judge("another", "med_1", *given) is Verdict.WRONG
            clock.at += timedelta(seconds=lasts - 1)
            assert await made.judge("default", "med_1", *given) is Verdict.HOLDS
            clock.at += timedelta(seconds=1)
            assert await made.judge("default", "med_1", *given) is Verdict.OVER
        finally:
            await batcher.stop()
            reader.close()

    asyncio.run(run())


def test_the_access_log_has_no_signature(
    client: Client, vendor: LoopbackVendor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made = post(client, PNG).json()
    client.until(client.send(to=PERSON, media=[made["url"]])["id"], "accepted")
    url = pulled(vendor)
    assert visit(client, url).status_code == 200
    signature = parse_qs(urlsplit(url).query)["signature"][0]

    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name.startswith("gateway")]

    eventually(lambda: [line for line in lines() if "GET /media/{id} 200" in line], "the log")
    assert not [line for line in lines() if signature in line]
