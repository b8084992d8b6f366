"""What vendors want confirmed is written with their request, performed once it is, and given up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gateway import confirmations
from gateway.clock import new_id
from gateway.confirmations import ConfirmationWorker
from gateway.domain import Handshake
from gateway.errors import ProviderError, Rejected, Unreachable
from gateway.store import subscriptions
from gateway.store.batcher import Batcher
from gateway.store.inbox import RECEIVE, Delivery
from gateway.store.subscriptions import DONE, WANT, Performed, Wanted
from tests.stored import Store, delivery, said

TOPIC = "arn:example:topic:one"
NOW = datetime.now(UTC)


def wanted(token: str = "t1", age: timedelta = timedelta(0), topic: str = TOPIC) -> Handshake:
    """A vendor wants a subscription to be confirmed."""
    content = {"topic_arn": topic, "token": token, "subscribe_url": "https://v.example/"}
    return Handshake(
        dedupe_key=f"h{token}", kind="subscription", content=content, occurred_at=NOW - age
    )


def lost(age: timedelta = timedelta(0)) -> Handshake:
    """A vendor says that it posts no more."""
    return Handshake(
        dedupe_key="h0", kind="unsubscribed", content={"topic_arn": TOPIC}, occurred_at=NOW - age
    )


def rows(store: Store) -> list[dict[str, Any]]:
    """All subscriptions."""
    return [dict(r._mapping) for r in store.rows("SELECT * FROM subscriptions ORDER BY topic_arn")]


def want(store: Store) -> list[dict[str, Any]]:
    """Claims what is due."""
    return store.do(WANT, Wanted(10, 60_000))[0]


def performed(row: dict[str, Any], state: str, **more: Any) -> Performed:
    """What became of a try."""
    return Performed(row["tenant_id"], row["id"], row["said_at"], state, **more)


def test_a_handshake_becomes_a_pending_row_with_its_request(store: Store) -> None:
    store.receive("k1", wanted())
    (row,) = rows(store)
    assert (row["state"], row["token"], row["tries"]) == ("pending", "t1", 0)
    assert (row["connection"], row["webhook"], row["tenant_id"]) == ("c1", "test", "default")
    assert row["endpoint"] == "https://gateway.example.com/api/webhooks/test"
    assert store.count("inbox") == 1


def test_a_repeated_request_changes_nothing(store: Store) -> None:
    store.receive("k1", wanted())
    (row,) = want(store)
    store.do(DONE, performed(row, "confirmed", subscription_arn="sub-arn"))
    before = rows(store)
    store.receive("k1", wanted())
    store.receive("k1", wanted(), id=None)  # a replay from the inbox
    assert rows(store) == before


def test_a_newer_word_of_the_vendor_begins_anew_and_an_older_one_does_not(store: Store) -> None:
    store.receive("k2", wanted("t2", timedelta(minutes=1)))
    (row,) = want(store)
    store.do(DONE, performed(row, "confirmed"))
    store.receive("k1", wanted("t1", timedelta(minutes=2)))
    assert rows(store)[0]["state"] == "confirmed"
    store.receive("k3", wanted("t3"))
    (row,) = rows(store)
    assert (row["state"], row["token"], row["tries"]) == ("pending", "t3", 0)


def test_an_unsubscription_is_kept_and_nothing_is_due(store: Store) -> None:
    store.receive("k1", wanted(age=timedelta(minutes=1)))
    store.receive("k2", lost())
    (row,) = rows(store)
    assert (row["state"], row["token"]) == ("unsubscribed", None)
    assert want(store) == []
    store.receive("k3", wanted("t3", timedelta(minutes=-1)))
    assert rows(store)[0]["state"] == "pending"


def test_in_one_batch_the_newest_word_counts(store: Store) -> None:
    store.receive("k1", lost(timedelta(minutes=3)), wanted("t1"), wanted("t0", timedelta(hours=1)))
    (row,) = rows(store)
    assert (row["state"], row["token"]) == ("pending", "t1")


def test_topics_and_connections_have_rows_of_their_own(store: Store) -> None:
    store.receive("k1", wanted(), wanted("t2", topic="arn:example:topic:two"))
    store.receive("k1", wanted("t3"), connection="c2")
    assert sorted(row["token"] for row in rows(store)) == ["t1", "t2", "t3"]


def test_a_claimed_one_is_not_given_twice_until_its_lease_is_over(store: Store) -> None:
    store.receive("k1", wanted())
    (row,) = want(store)
    assert (row["token"], row["tries"]) == ("t1", 1)
    assert 0 <= row["age"] < 3_600_000  # since these tests began
    assert want(store) == []
    store.change("UPDATE subscriptions SET due_at = 1")
    assert want(store)[0]["tries"] == 2


def test_at_the_start_of_the_only_process_leases_are_dead_and_pauses_are_not(
    store: Store,
) -> None:
    store.receive("k1", wanted(), wanted("t2", topic="arn:example:topic:two"))
    store.receive("k2", wanted("t3", topic="arn:example:topic:three"))
    _, failed, blamed = sorted(want(store), key=lambda row: str(row["token"]))
    store.do(DONE, performed(failed, "pending", detail="later", retry_in=60_000))
    store.change("UPDATE subscriptions SET tries = 4 WHERE id = ?", blamed["id"])
    assert want(store) == []
    assert [row["token"] for row in store.do(WANT, Wanted(10, 60_000, begun=3))[0]] == ["t1"]
    store.change("UPDATE subscriptions SET due_at = 1")
    assert len(want(store)) == 3  # and one that failed is begun like any other from then on
    assert len(store.do(WANT, Wanted(10, 60_000, begun=3))[0]) == 2


def test_a_token_is_kept_while_it_is_needed(store: Store) -> None:
    store.receive("k1", wanted())
    (row,) = want(store)
    store.do(DONE, performed(row, "pending", detail="later", retry_in=60_000))
    assert (rows(store)[0]["token"], rows(store)[0]["detail"]) == ("t1", "later")
    assert want(store) == []
    store.do(DONE, performed(row, "confirmed", subscription_arn="sub-arn"))
    assert (rows(store)[0]["token"], rows(store)[0]["subscription_arn"]) == (None, "sub-arn")


def asking(body: str, *events: Handshake, key: str = "k1", id_: str | None = "inb_1") -> Delivery:
    """A request with this body, new or from the inbox again."""
    made = delivery(key, *events, id=id_)
    request = replace(made.verified.request, body=body.encode())
    return replace(made, verified=replace(made.verified, request=request))


def test_the_inbox_does_not_keep_the_token_and_can_still_be_replayed(store: Store) -> None:
    body = '{"Type": "Asks", "Token": "t1", "about": "t10"}'
    store.do(RECEIVE, asking(body, wanted(), id_=new_id("inb")))
    kept = '{"Type": "Asks", "Token": "", "about": "t10"}'
    assert bytes(store.value("SELECT body FROM inbox")) == kept.encode()
    before = rows(store)
    assert before[0]["token"] == "t1"
    store.do(RECEIVE, asking(kept, wanted(""), id_=None))
    store.do(RECEIVE, asking(kept, wanted("", timedelta(minutes=-5)), id_=None))
    assert rows(store) == before
    store.do(DONE, performed(want(store)[0], "failed", detail="refused"))
    before = rows(store)
    store.do(RECEIVE, asking(kept, wanted(""), id_=None))
    assert rows(store) == before


def test_what_was_put_aside_gives_its_token_away_when_it_is_replayed(store: Store) -> None:
    body = '{"Token":"t1"}'
    store.do(RECEIVE, asking(body, id_=new_id("inb")))
    assert bytes(store.value("SELECT body FROM inbox")) == body.encode()
    store.do(RECEIVE, asking(body, wanted(), id_=None))
    assert rows(store)[0]["token"] == "t1"
    assert bytes(store.value("SELECT body FROM inbox")) == b'{"Token":""}'


def test_a_late_result_does_not_undo_a_newer_word(store: Store) -> None:
    store.receive("k1", wanted("t1", timedelta(minutes=1)))
    (row,) = want(store)
    store.receive("k2", wanted("t2"))
    store.do(DONE, performed(row, "failed", detail="token is void"))
    (now,) = rows(store)
    assert (now["state"], now["token"]) == ("pending", "t2")


def test_the_list_shows_everything_but_the_token(store: Store) -> None:
    store.receive("k1", wanted(), wanted("t2", timedelta(hours=1), "arn:example:topic:two"))
    with store.database.read() as tx:
        listed = subscriptions.listed(tx)
    assert [row["topic"] for row in listed] == [TOPIC, "arn:example:topic:two"]
    assert {"topic", "state", "changed_at", "detail", "endpoint"} <= set(listed[0])
    assert "t1" not in str(listed)


def test_a_handshake_of_another_kind_and_a_message_make_no_row(store: Store) -> None:
    store.receive("k1", Handshake(dedupe_key="x", kind="other", content={"topic_arn": TOPIC}))
    store.receive("k2", Handshake(dedupe_key="y", kind="subscription"), said("m1"))
    assert rows(store) == []


class Vendor:
    """Plays a webhook that confirms: gives what was planned, in turn, and notes what is asked."""

    def __init__(self, *plan: ProviderError | str | None) -> None:
        self.plan = list(plan)
        self.asked: list[Handshake] = []

    async def confirm(self, handshake: Handshake) -> str | None:
        """The next of the plan."""
        self.asked.append(handshake)
        now = self.plan.pop(0)
        if isinstance(now, ProviderError):
            raise now
        return now


@asynccontextmanager
async def working(
    store: Store, vendor: Vendor, *, only_process: bool = False
) -> AsyncIterator[ConfirmationWorker]:
    """A worker on a database."""
    batcher = Batcher(store.database, lambda topics: None)
    batcher.start()
    worker = ConfirmationWorker(batcher, {"test": vendor}, poll=0.05, only_process=only_process)
    worker.rounds.start()
    try:
        yield worker
    finally:
        await worker.rounds.stop()
        await batcher.stop()


async def until(store: Store, state: str, tries: int = 0) -> dict[str, Any]:
    """Waits for a state of the only row."""
    for _ in range(400):
        (row,) = await asyncio.to_thread(rows, store)
        if row["state"] == state and row["tries"] >= tries and row["detail"] != "":
            return row
        await asyncio.sleep(0.02)
    raise AssertionError(f"{row} never came to {state}")


@pytest.mark.anyio
async def test_what_a_killed_process_was_confirming_is_confirmed_at_once(store: Store) -> None:
    store.receive("k1", wanted())
    want(store)
    vendor = Vendor("sub-arn")
    async with working(store, vendor, only_process=True):
        await until(store, "confirmed")
    assert len(vendor.asked) == 1


@pytest.mark.anyio
async def test_what_is_wanted_is_confirmed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store.receive("k1", wanted("secret-token"))
    vendor = Vendor("sub-arn")
    async with working(store, vendor):
        row = await until(store, "confirmed")
    (asked,) = vendor.asked
    assert dict(asked.content) == dict(wanted("secret-token").content)
    assert (row["subscription_arn"], row["token"]) == ("sub-arn", None)
    assert TOPIC in caplog.text
    assert "secret-token" not in caplog.text


@pytest.mark.anyio
async def test_a_vendor_that_is_away_is_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmations, "PAUSE", 20)
    store.receive("k1", wanted())
    vendor = Vendor(Unreachable("away"), Unreachable("away"), None)
    async with working(store, vendor):
        row = await until(store, "confirmed")
    assert (row["tries"], len(vendor.asked)) == (3, 3)


@pytest.mark.anyio
async def test_a_no_ends_it_and_is_told_loudly(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.receive("k1", wanted())
    vendor = Vendor(Rejected("the token is void", code="InvalidParameter"))
    async with working(store, vendor):
        row = await until(store, "failed")
    assert row["detail"] == "InvalidParameter: the token is void"
    assert row["token"] is None
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "subscribe" in record.getMessage()


@pytest.mark.anyio
async def test_after_two_days_it_is_given_up_without_asking(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.receive("k1", wanted(age=timedelta(hours=48, minutes=1)))
    vendor = Vendor()
    async with working(store, vendor):
        await until(store, "failed")
    assert vendor.asked == []
    assert "two days" in caplog.text


@pytest.mark.anyio
async def test_a_confirmation_of_a_webhook_that_is_off_waits(store: Store) -> None:
    store.receive("k1", wanted())
    store.change("UPDATE subscriptions SET webhook = 'gone'")
    async with working(store, Vendor()):
        row = await until(store, "pending", tries=1)
    assert row["token"] == "t1"


def test_the_pauses_grow_and_end() -> None:
    pauses = [confirmations._pause({"tries": tries}) for tries in range(1, 400)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (5_000, 900_000)
