"""Files of messages are in memory only as far as there is room: who waits for it has not begun."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import loads
from gateway.breaker import Policy
from gateway.domain import Channel, OutboundEmail, OutboundMedia, OutboundMessage, Receipt
from gateway.errors import NO_ROOM, Ambiguous, Unreachable, Unsupported
from gateway.loads import Space
from tests.databases import sqlite_copy
from tests.outbound_cases import PROVIDERS, Setup, provider, usual
from tests.running import Client, eventually, in_thread, variables
from tests.smtp_servers import Mailbox, smtp_server
from tests.stored import Store, person
from tests.test_email import ADA, mailing
from tests.test_email_refusals import mail, web
from tests.test_failover import ROUTES, accept as failing_over, path
from tests.vendors import LoopbackVendor, Reply
from tests.working import ROUTE, SMS, Vendor, at_work, ended, raising, until

__all__ = ["web"]

# Who reads the files of emails. The console shows their names only.
MAILERS = tuple(
    setup
    for setup in PROVIDERS
    if Channel.EMAIL in setup.provider.capabilities.media and setup.entry.name != "console"
)
LINK = "https://files.example.com/a.pdf"


def post(store: Store, number: int = 1, **more: Any) -> str:
    """An email with a file from the web; its id."""
    extra = json.dumps({"email": {"attachments": [{"url": LINK}]}, **more})
    to = f"ada{number}@example.com"
    return store.accept(channel="email", type="email", to=to, subject="Hi", extra=extra)


class Gate:
    """A vendor's answer, which comes once it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, vendor: Vendor, message: OutboundMessage) -> Receipt:
        await self.open.wait()
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for two emails with files from the web."""
    monkeypatch.setattr(loads, "FOR_LITTLE", 2 * loads.PRESUMED)
    monkeypatch.setattr(loads, "AGAIN", 20)


@pytest.mark.anyio
@pytest.mark.usefixtures("two")
async def test_no_more_are_sent_at_once_than_there_is_room_for(store: Store) -> None:
    gate = Gate()
    vendor = Vendor(gate)
    ids = [post(store, number) for number in range(12)]
    async with at_work(store, vendor, seats=64):
        await until(lambda: vendor.at_once == 2)
        without = await asyncio.to_thread(store.accept, to=ADA, channel="email", type="email")
        await until(lambda: vendor.times(without) == 1)
        gate.open.set()
        await ended(store, without, *ids)
    assert vendor.most == 3
    assert all(len(store.attempts(id_)) == 1 for id_ in ids)


HOLDING = replace(SMS, holds_media=True)
PICTURE = json.dumps([{"url": "https://files.example.com/a.png"}])


def pictures(store: Store, count: int, files: str) -> list[str]:
    """Messages with a picture each; their ids."""
    return [store.accept(to=person(n), type="image", media=files) for n in range(count)]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("holds", "files", "most", "room"),
    [
        (True, PICTURE, 2, loads.PICTURE),
        (False, PICTURE, 6, None),
        (True, PICTURE.replace("https", "s3"), 6, None),  # which the vendor reads by itself
    ],
    ids=["read", "linked", "kept"],
)
async def test_other_messages_need_room_where_their_provider_reads_their_files(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    holds: bool,
    files: str,
    most: int,
    room: int | None,
) -> None:
    monkeypatch.setattr(loads, "FOR_LITTLE", 2 * loads.PICTURE)
    monkeypatch.setattr(loads, "AGAIN", 20)
    gate = Gate()
    vendor = Vendor(gate)
    ids = pictures(store, 6, files)
    route = replace(ROUTE, capabilities=HOLDING if holds else SMS)
    async with at_work(store, vendor, routes=(route,), seats=64):
        await until(lambda: vendor.at_once == most)
        without = await asyncio.to_thread(store.accept, to=person(99))
        await until(lambda: vendor.times(without) == 1)
        gate.open.set()
        await ended(store, without, *ids)
    assert vendor.most == most + 1
    assert {call.room for call in vendor.calls if call.message_id in ids} == {room}
    assert all(len(store.attempts(id_)) == 1 for id_ in ids)


@pytest.mark.anyio
async def test_room_is_taken_where_the_next_of_the_chain_reads_files(store: Store) -> None:
    one, two = Vendor(raising(*[Unreachable("x", code="dns")] * 3)), Vendor()
    routes = (ROUTES[0], replace(ROUTES[1], capabilities=HOLDING))
    ids = [failing_over(store, n, media=PICTURE, type="image") for n in range(3)]
    policy = Policy(failures=50, messages=50)
    async with at_work(store, one, two, routes=routes, policy=policy):
        await ended(store, *ids)
    assert {call.room for call in one.calls} == {None}
    assert {call.room for call in two.calls} == {loads.PICTURE}
    assert {tuple(path(store, id_)) for id_ in ids} == {("one", "two")}


@pytest.mark.anyio
async def test_one_that_is_larger_than_all_room_goes_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "FOR_LITTLE", 1)
    monkeypatch.setattr(loads, "AGAIN", 20)
    gate = Gate()
    vendor = Vendor(gate)
    gate.open.set()
    ids = [post(store, number) for number in range(5)]
    async with at_work(store, vendor):
        await ended(store, *ids)
    assert vendor.most == 1


@pytest.mark.anyio
@pytest.mark.usefixtures("two")
async def test_who_waits_when_the_process_stops_has_not_begun(store: Store) -> None:
    vendor = Vendor(Gate())
    ids = [post(store, number) for number in range(4)]
    async with at_work(store, vendor) as worker:
        await until(lambda: vendor.at_once == 2)
        await until(lambda: store.value("SELECT count(*) FROM queue WHERE lease_until > 0") == 4)
        await worker.stop(0)
    cut = {call.message_id for call in vendor.calls}
    assert {store.status(id_) for id_ in cut} == {"unknown"}
    waited = set(ids) - cut
    assert {store.status(id_) for id_ in waited} == {"queued"}
    for id_ in waited:
        entry = store.queued(id_)
        assert entry is not None
        assert (entry["lease_until"], entry["claims"], entry["attempts"]) == (0, 0, 0)
        assert store.attempts(id_) == []


@pytest.mark.anyio
@pytest.mark.usefixtures("two")
async def test_a_wait_ends_before_the_lease_and_costs_no_attempt(store: Store) -> None:
    gate = Gate()
    vendor = Vendor(gate)
    ids = [post(store, number) for number in range(3)]
    async with at_work(store, vendor, send=1.0, lease=4.0):  # which lets it wait for a second
        await until(lambda: vendor.at_once == 2)
        (last,) = set(ids) - {call.message_id for call in vendor.calls}
        await until(lambda: store.value("SELECT claims FROM queue WHERE message_id = ?", last) == 1)
        await until(lambda: store.value("SELECT claims FROM queue WHERE message_id = ?", last) == 0)
        gate.open.set()
        await ended(store, last)
    assert len(store.attempts(last)) == 1


@pytest.mark.anyio
async def test_files_that_need_more_room_get_it_before_anything_is_sent(store: Store) -> None:
    needed = 3 * loads.MEBI

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if message.room != needed:
            error = Unreachable("its files wait for room", code=NO_ROOM)
            error.size, error.next_provider = needed, False
            raise error
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    vendor = Vendor(answer)
    id_ = post(store)
    async with at_work(store, vendor):
        await ended(store, id_)
    assert vendor.times(id_) == 2
    assert len(store.attempts(id_)) == 1


@pytest.mark.anyio
async def test_where_there_is_none_they_wait_for_it_in_the_queue(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "FOR_MUCH", 4 * loads.MEBI)
    needed, gate = 3 * loads.MEBI, Gate()

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if message.room != needed:
            error = Unreachable("its files wait for room", code=NO_ROOM)
            error.size, error.next_provider = needed, False
            raise error
        return await gate(vendor, message)

    vendor = Vendor(answer)
    ids = [post(store, number) for number in range(3)]
    async with at_work(store, vendor):
        await until(lambda: sum(len(store.attempts(id_)) for id_ in ids) == 3)
        gate.open.set()
        await ended(store, *ids)
    codes = sorted(str(a["error_code"]) for id_ in ids for a in store.attempts(id_))
    assert codes == ["None"] * 3 + ["no_room"] * 2
    assert store.value("SELECT count(*) FROM breakers WHERE failures > 0") == 0


@pytest.mark.anyio
@pytest.mark.parametrize("setup", MAILERS, ids=lambda setup: setup.name)
async def test_who_sends_emails_sends_nothing_of_files_that_need_more_room(setup: Setup) -> None:
    async def read(most: int) -> bytes:
        if most < 2000:
            raise Unsupported("too large", code="too_large")
        return b"x" * 2000

    file = OutboundMedia(url="/api/media/med_1", content_type="text/plain", read=read)
    made = usual(setup, channel="email", type="email", sender={"address": "shop@example.com"})
    made = replace(made, to=ADA, subject="Hi", email=OutboundEmail(attachments=(file,)), room=1999)
    with LoopbackVendor() as vendor:
        async with provider(setup, vendor.url) as sender:
            with pytest.raises(Unreachable) as caught:
                await sender.send(made)
        assert vendor.requests == []
    assert (caught.value.code, caught.value.next_provider) == (NO_ROOM, False)
    assert (caught.value.size or 0) >= 2000


@pytest.mark.anyio
async def test_room_is_held_until_a_late_answer_has_come(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "FOR_LITTLE", loads.PRESUMED)
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if len(vendor.calls) == 1:
            raise Ambiguous("no answer in time", code="timeout", late=late)
        assert late.done()
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    vendor = Vendor(answer)
    first, second = post(store, 1), post(store, 2)
    async with at_work(store, vendor):
        await ended(store, first, status="unknown")
        await until(lambda: store.value("SELECT count(*) FROM queue WHERE lease_until > 0") == 1)
        assert len(vendor.calls) == 1
        late.set_result(Receipt(provider_message_id="SM-late"))
        await ended(store, first, second)


@pytest.mark.anyio
async def test_room_is_given_in_turn_and_to_few_who_wait() -> None:
    space = Space(10)
    assert await space.wait(6, 1.0)
    large = asyncio.create_task(space.wait(9, 5.0))
    small = asyncio.create_task(space.wait(4, 5.0))
    await asyncio.sleep(0)
    assert not space.taken(1)  # others were first
    assert not await space.wait(1, 5.0)  # and no more than two wait
    space.give(6)
    assert await large
    assert not small.done()
    small.cancel()
    await asyncio.gather(small, return_exceptions=True)
    assert space.taken(1)
    space.give(9)
    space.give(1)
    assert space.taken(11)  # more than there is: alone
    assert not space.taken(1)


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(loads, "LITTLE", 1000)
    monkeypatch.setattr(loads, "FOR_MUCH", 130_000)
    monkeypatch.setattr(loads, "PRESUMED", 10)
    monkeypatch.setattr(loads, "AGAIN", 200)
    with smtp_server() as made:
        yield made
        made.shut.clear()


@pytest.fixture
def client(sqlite_file: Path, tmp_path: Path, box: Mailbox) -> Any:
    url = sqlite_copy(sqlite_file, tmp_path)
    with in_thread(variables(tmp_path, url, **mailing(box))) as made:
        yield made


def upload(client: Client, size: int) -> str:
    told = client.call("POST", "/api/media", data=b"a" * size, headers={
        "Content-Type": "text/plain", "Content-Disposition": 'attachment; filename="a.txt"',
    })  # fmt: skip
    return str(told.json()["url"])


def test_large_emails_wait_for_room_and_small_ones_pass(client: Client, box: Mailbox) -> None:
    large, small = upload(client, 60_000), upload(client, 10)
    box.shut.set()
    ids = [
        client.send(**mail(f"ada{n}@example.com", email={"attachments": [large]}))["id"]
        for n in range(5)
    ]
    eventually(lambda: len(box.seen) == 2)
    # Two wait with a lease, and one in the queue.
    eventually(lambda: "worker" in [client.message(id_)["waiting_for"] for id_ in ids])
    passing = client.send(**mail(email={"attachments": [small]}))["id"]
    eventually(lambda: len(box.seen) == 3)
    assert box.seen[-1].rcpt_tos == [ADA]
    states = sorted(client.message(id_)["status"] for id_ in ids)
    assert states == ["queued", "queued", "queued", "sending", "sending"]
    box.shut.clear()
    for id_ in (*ids, passing):
        assert len(client.until(id_, "accepted")["attempts"]) == 1


def test_a_file_of_the_web_is_read_again_once_there_is_room_for_it(
    client: Client, box: Mailbox, web: LoopbackVendor
) -> None:
    web.always = Reply(body=b"x" * 5000)
    sent = client.send(**mail(email={"attachments": [LINK]}))
    done = client.until(sent["id"], "accepted")
    assert len(done["attempts"]) == 1
    assert len(web.requests) == 2
    (envelope,) = box.taken
    assert isinstance(envelope.original_content, bytes)
    assert b"eHh4eHh4" in envelope.original_content
