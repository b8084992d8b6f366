"""The spool's files: what was answered 2xx is there after a crash, and nothing else is."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import shutil
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gateway import _spool_frames as frames, _spool_segments as segments
from gateway._spool_drain import Drain
from gateway._spool_files import Files
from gateway.domain import Event, Verified, WebhookRequest
from gateway.errors import SettingsError, StoreUnavailable
from gateway.inbound import Inbound
from gateway.spool import Spool
from gateway.store.batcher import Batcher
from tests.stored import CONNECTION, Store, said
from webhooks.console import ConsoleWebhook, ConsoleWebhookSettings

KEPT = frozenset({"content-type", "x-kept"})
WHEN = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SMALL = 4096
ROOM = 1 << 20

in_files = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def webhook(number: int = 1, body: bytes = b"Body=hi", **headers: str) -> Verified:
    """A verified webhook, with headers that may be kept."""
    request = WebhookRequest(
        method="POST",
        url=f"https://gw.test.example/api/webhooks/sms?n={number}",
        headers={"content-type": "text/plain", **headers},
        body=body,
        received_at=WHEN + timedelta(microseconds=number),
    )
    return Verified(
        webhook="console", connection="c1", request=request, key=f"k{number}", verdict="proved"
    )


def many(bodies: Sequence[bytes]) -> list[Verified]:
    """Webhooks with these bodies."""
    return [webhook(number, body) for number, body in enumerate(bodies)]


def numbered(count: int, start: int = 0) -> list[Verified]:
    """Webhooks in the order in which they come."""
    return [webhook(number) for number in range(start, start + count)]


def file_of(webhooks: Sequence[Verified], room: int = 0) -> bytes:
    """A segment as it stands on the disk."""
    return frames.start() + b"".join(frames.frame(one, KEPT) for one in webhooks) + bytes(room)


def read(data: bytes) -> list[Verified]:
    """Every webhook in a segment."""
    if frames.version(data) != frames.VERSION:
        return []
    return [_one(data, at) for at in frames.found(data).offsets]


def _one(data: bytes, at: int) -> Verified:
    known = frames.head(data, at)
    assert known is not None
    begin = at + frames.HEAD.size
    return frames.verified(known, data[begin : begin + known.length])


bodies = st.lists(
    st.binary(max_size=40)
    | st.builds(lambda b, z: b + bytes(z), st.binary(max_size=9), st.just(9)),
    max_size=6,
)


# ── Bytes ────────────────────────────────────────────────────────────────────────────────────


@given(
    body=st.binary(max_size=200),
    url=st.text(max_size=40),
    header=st.text(max_size=20),
    when=st.datetimes(timezones=st.just(UTC)),
)
def test_a_frame_gives_back_what_went_in(
    body: bytes, url: str, header: str, when: datetime
) -> None:
    given_one = webhook(1, body)
    request = replace(
        given_one.request, url=url, headers={"x-kept": header}, received_at=when, body=body
    )
    (found,) = read(file_of([replace(given_one, request=request)], 64))
    assert found == replace(given_one, request=request)


def test_signatures_and_keys_are_not_kept() -> None:
    secret = "v1=do-not-keep-this"
    one = webhook(1, authorization=secret, **{"x-signature": secret, "x-kept": "yes"})
    data = file_of([one])
    assert secret.encode() not in data
    assert read(data)[0].request.headers == {"content-type": "text/plain", "x-kept": "yes"}


@given(bodies, st.integers(0, 64), st.data())
def test_a_file_cut_at_any_byte_gives_exactly_what_was_whole_before_it(
    bodies: list[bytes], room: int, data: st.DataObject
) -> None:
    webhooks = many(bodies)
    whole = file_of(webhooks, room)
    at = data.draw(st.integers(0, len(whole)))
    ends = [len(file_of(webhooks[: n + 1])) for n in range(len(webhooks))]
    assert read(whole[:at]) == webhooks[: sum(end <= at for end in ends)]
    if at >= frames.START.size:
        assert all(damage.torn for damage in frames.found(whole[:at]).damages)


@given(bodies, st.integers(0, 64), st.data())
def test_a_flipped_byte_never_gives_another_webhook(
    bodies: list[bytes], room: int, data: st.DataObject
) -> None:
    webhooks = many(bodies)
    whole = bytearray(file_of(webhooks, room))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    found = read(bytes(whole))
    assert found == [one for one in webhooks if one in found]
    if at >= frames.START.size:  # what stands before it is untouched
        before = sum(len(file_of(webhooks[: n + 1])) <= at for n in range(len(webhooks)))
        assert found[:before] == webhooks[:before]


@given(bodies, st.integers(0, 5), st.integers(1, 300))
def test_writes_that_never_reached_the_disk_are_no_webhooks(
    bodies: list[bytes], kept: int, lost: int
) -> None:
    webhooks = many(bodies)
    durable = len(file_of(webhooks[:kept]))
    whole = bytearray(file_of(webhooks, 64))
    whole[durable : durable + lost] = bytes(min(lost, len(whole) - durable))  # a page of zeros
    assert read(bytes(whole))[:kept] == webhooks[:kept]
    assert all(one in webhooks for one in read(bytes(whole)))


def test_a_broken_payload_costs_one_webhook_and_a_broken_head_the_rest_of_its_file() -> None:
    webhooks = numbered(5)
    whole = file_of(webhooks, 64)
    second = len(file_of(webhooks[:1]))
    payload = bytearray(whole)
    payload[second + frames.HEAD.size + 3] ^= 1
    assert read(bytes(payload)) == [webhooks[0], *webhooks[2:]]
    (damage,) = frames.found(bytes(payload)).damages
    assert (damage.start, damage.end, damage.torn) == (second, len(file_of(webhooks[:2])), False)
    head = bytearray(whole)
    head[second] ^= 1
    assert read(bytes(head)) == webhooks[:1]
    (damage,) = frames.found(bytes(head)).damages
    assert (damage.start, damage.torn) == (second, False)


def test_a_body_that_looks_like_frames_is_not_read_as_such() -> None:
    forged = frames.frame(webhook(666), KEPT)
    webhooks = [webhook(0), webhook(1, forged * 3), webhook(2)]
    whole = bytearray(file_of(webhooks))
    assert read(bytes(whole)) == webhooks
    whole[len(file_of(webhooks[:1])) + 1] ^= 0xFF  # the head before the forged body
    assert read(bytes(whole)) == webhooks[:1]


# ── Files ────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def opened(folder: Path, size: int = SMALL) -> Iterator[Files]:
    """A process's files, given back at the end."""
    files = Files(folder, size)
    files.open()
    yield files
    files.close()


@contextmanager
def after_a_crash(folder: Path, size: int = SMALL) -> Iterator[Files]:
    """The files as another process finds them: nothing was closed, the lock is gone."""
    copy = folder.with_name(folder.name + "-after")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(f"*{segments.DRAFT}"))
    try:
        with opened(copy, size) as files:
            yield files
    finally:
        shutil.rmtree(copy)


def put(files: Files, webhooks: Sequence[Verified]) -> None:
    """Appends, which must work."""
    assert files.append([frames.frame(one, KEPT) for one in webhooks]) == (len(webhooks), None)


def everything(files: Files) -> list[Verified | None]:
    """All that waits, oldest first, without dropping it."""
    return files.oldest(10_000)


def names(folder: Path, suffix: str = segments.SEGMENT) -> list[str]:
    """The files of a spool."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(f"*{suffix}"))


@in_files
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 1500), st.integers(0, 12)),
        max_size=10,
    )
)
def test_any_work_and_then_a_crash_leaves_what_was_not_dropped_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    folder, number = tmp_path_factory.mktemp("spool"), 0
    waiting: list[Verified] = []
    with opened(folder) as files:
        for count, size, dropped in steps:
            new = [webhook(number + n, b"x" * size) for n in range(count)]
            number += count
            put(files, new)
            waiting += new
            gone = min(dropped, len(waiting))
            files.forget(gone)
            waiting = waiting[gone:]
            assert everything(files) == waiting
            assert files.state.frames == len(waiting)
        with after_a_crash(folder) as later:
            found = everything(later)
            # Dropping is noted by whole files only, so some that are stored may come again.
            assert found[len(found) - len(waiting) :] == waiting
            later.forget(len(found))
            assert later.state.frames == later.state.size == 0


def test_files_are_private_and_have_their_room_before_it_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "spool"
    Spool(folder, ROOM)
    with opened(folder, 64 * 1024) as files:
        files.prepare()
        put(files, numbered(3))
        (name,) = names(folder)
        found = (folder / name).stat()
        assert found.st_size == 64 * 1024
        assert found.st_blocks * 512 >= 64 * 1024
        for path in (p for p in (folder, *folder.rglob("*")) if p != tmp_path):
            wanted = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_the_next_file_has_its_room_before_the_first_one_is_full(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        files.prepare()
        assert len(names(tmp_path)) == 1
        put(files, [webhook(1, bytes(SMALL // 2))])
        files.prepare()
        assert len(names(tmp_path)) == 2
        put(files, [webhook(2, bytes(SMALL // 2))])
        assert len(names(tmp_path)) == 2
        assert everything(files) == [webhook(1, bytes(SMALL // 2)), webhook(2, bytes(SMALL // 2))]


def test_a_webhook_larger_than_a_file_gets_one_of_its_own(tmp_path: Path) -> None:
    webhooks = [webhook(1), webhook(2, os.urandom(SMALL * 5)), webhook(3)]
    with opened(tmp_path) as files:
        put(files, webhooks)
        with after_a_crash(tmp_path) as later:
            assert everything(later) == webhooks


def test_files_go_once_their_webhooks_are_stored_and_nothing_is_left_of_an_empty_spool(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as files:
        put(files, numbered(60))
        before = names(tmp_path)
        assert len(before) > 3
        files.forget(40)
        assert set(names(tmp_path)) < set(before)
        files.forget(20)
        assert len(names(tmp_path)) == 1
        put(files, numbered(1))
        files.forget(1)
    assert names(tmp_path) == []


def test_what_waits_when_a_process_ends_is_there_for_the_next(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        put(files, numbered(30))
        files.forget(3)
        left = everything(files)
    with opened(tmp_path) as files:
        found = everything(files)
        assert found[-len(left) :] == left
        put(files, numbered(1, 99))
        assert everything(files) == [*found, *numbered(1, 99)]


def test_a_torn_tail_is_cut_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(tmp_path) as files:
        put(files, numbered(3))
    (name,) = names(tmp_path)
    with (tmp_path / name).open("rb+") as file:
        file.truncate(len(file_of(numbered(3))) - 5)
    files = Files(tmp_path, SMALL)
    recovered = files.open()
    assert (recovered.torn, recovered.damaged) == (1, 0)
    assert everything(files) == numbered(2)
    files.forget(2)
    files.close()
    assert "torn tail" in caplog.text
    assert name in caplog.text
    assert names(tmp_path) == names(tmp_path, segments.BAD) == []


def test_a_damaged_file_is_kept_under_another_name_and_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as files:
        put(files, numbered(4))
    (name,) = names(tmp_path)
    with (tmp_path / name).open("rb+") as file:
        file.seek(len(file_of(numbered(1))) + 2)
        file.write(b"\xff\xff")
    for _ in range(2):  # a start that was not the last one tells it again, and that is all
        caplog.clear()
        files = Files(tmp_path, SMALL)
        assert files.open().damaged == 1
        assert everything(files) == numbered(1)
        files.close()
        bad = name.replace(segments.SEGMENT, segments.BAD)
        assert bad in caplog.text
        assert names(tmp_path) == [name]
    with opened(tmp_path) as files:
        put(files, numbered(2, 50))
        assert everything(files) == [*numbered(1), *numbered(2, 50)]
        files.forget(3)
        assert names(tmp_path, segments.BAD) == [bad]
    with opened(tmp_path) as files:
        assert everything(files) == []
        put(files, numbered(1))
    assert names(tmp_path, segments.BAD) == [bad]


def test_what_rots_while_it_waits_is_found_on_reading(tmp_path: Path) -> None:
    with opened(tmp_path) as files:
        put(files, numbered(3))
        (name,) = names(tmp_path)
        with (tmp_path / name).open("rb+") as file:
            file.seek(len(file_of(numbered(2))) - 1)
            file.write(b"\xff")
        assert everything(files) == [webhook(0), None, webhook(2)]
        files.forget(3)
        assert len(names(tmp_path, segments.BAD)) == 1


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"", False),
        (bytes(SMALL), False),
        (b"not a spool" * 9, True),
        (frames.start()[:7], True),
    ],
)
def test_a_file_that_is_none_of_ours_stops_nothing(
    tmp_path: Path, content: bytes, kept: bool
) -> None:
    slot = tmp_path / "1"
    slot.mkdir()
    (slot / "0000000007.seg").write_bytes(content)
    with opened(tmp_path) as files:
        assert everything(files) == []
        put(files, numbered(1))
        assert names(tmp_path) == ["1/0000000008.seg"]
    assert names(tmp_path, segments.BAD) == ["1/0000000007.bad"] * kept


def test_a_file_of_another_version_is_left_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = frames.MAGIC + (2).to_bytes(4, "little")
    other = text + frames.crc32(text).to_bytes(4, "little") + b"whatever"
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "0000000007.seg").write_bytes(other)
    with opened(tmp_path) as files:
        put(files, numbered(1))
        files.forget(1)
    assert (tmp_path / "1" / "0000000007.seg").read_bytes() == other
    assert "version 2" in caplog.text


def test_a_file_that_was_never_finished_is_removed(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "0000000003.new").write_bytes(b"\0" * 100)
    with opened(tmp_path) as files:
        assert everything(files) == []
    assert names(tmp_path, segments.DRAFT) == []


def test_two_processes_have_a_folder_each_and_a_later_one_takes_over_what_is_left(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as first:
        with opened(tmp_path) as second:
            put(first, numbered(2))
            put(second, numbered(2, 10))
            assert {name.partition("/")[0] for name in names(tmp_path)} == {"1", "2"}
        with opened(tmp_path) as third:  # the first still lives; the second's webhooks are free
            assert everything(third) == numbered(2, 10)
            third.forget(2)
            assert everything(first) == numbered(2)
    with opened(tmp_path) as last:
        assert everything(last) == numbered(2)
        with opened(tmp_path) as other:
            assert everything(other) == []


def test_a_slot_that_was_taken_over_is_free_again_once_it_is_empty(tmp_path: Path) -> None:
    with opened(tmp_path), opened(tmp_path) as second:
        put(second, numbered(1))
    with opened(tmp_path) as adopting:
        assert segments.locked(tmp_path / "2") is None
        adopting.forget(1)
        slot = segments.locked(tmp_path / "2")
        assert slot is not None
        slot.release()


# ── The spool ────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def spooling(folder: Path, most: int = ROOM, segment: int = SMALL) -> AsyncIterator[Spool]:
    """A spool at work."""
    spool = Spool(folder, most, segment=segment)
    await spool.start()
    yield spool
    await spool.stop()


@pytest.mark.anyio
async def test_what_was_answered_is_on_the_disk_and_in_order(tmp_path: Path) -> None:
    async with spooling(tmp_path) as spool:
        await asyncio.gather(*[spool.append(one, KEPT) for one in numbered(200)])
        assert (spool.depth, spool.appended, spool.refused) == (200, 200, 0)
        with after_a_crash(tmp_path) as later:
            assert everything(later) == numbered(200)
        read = await spool.oldest(50)
        assert read == numbered(50)
        await spool.forget(50)
        assert (spool.depth, spool.drained) == (150, 50)
        assert await spool.oldest(1) == numbered(1, 50)


@pytest.mark.anyio
async def test_webhooks_that_come_together_share_a_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    sync = segments.sync

    def counted(handle: int) -> None:
        waits.append(handle)
        sync(handle)

    async with spooling(tmp_path, segment=1 << 19) as spool:
        monkeypatch.setattr(segments, "sync", counted)
        await asyncio.gather(*[spool.append(one, KEPT) for one in numbered(500)])
    assert len(waits) <= 3


@pytest.mark.anyio
async def test_it_knows_how_much_waits_and_since_when(tmp_path: Path) -> None:
    async with spooling(tmp_path) as spool:
        assert spool.age(WHEN) is None
        assert not spool.busy
        for one in numbered(3):
            await spool.append(one, KEPT)
        assert spool.busy
        assert spool.age(WHEN + timedelta(seconds=90)) == 90.0
        assert spool.size == len(file_of(numbered(3))) - frames.START.size
        spool.on_their_way(3)
        assert not spool.busy  # who comes now lines up behind them in the database
        waiting = spool.append(webhook(3), KEPT)
        assert spool.busy
        await waiting
        await spool.forget(3)
        assert spool.busy
        await spool.forget(1)
        assert (spool.depth, spool.size, spool.age(WHEN), spool.busy) == (0, 0, None, False)


@pytest.mark.anyio
async def test_what_an_earlier_process_left_is_counted_until_it_is_stored(tmp_path: Path) -> None:
    async with spooling(tmp_path) as spool:
        for one in numbered(5):
            await spool.append(one, KEPT)
    async with spooling(tmp_path) as spool:
        assert spool.recovering
        await spool.append(webhook(9), KEPT)
        await spool.forget(4)
        assert spool.recovering
        await spool.forget(1)
        assert not spool.recovering
        assert await spool.oldest(10) == [webhook(9)]


@pytest.mark.anyio
async def test_a_full_spool_refuses_and_takes_again_once_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = webhook(1, bytes(1000))
    async with spooling(tmp_path, most=SMALL) as spool:
        kept = 0
        while True:
            try:
                await spool.append(one, KEPT)
            except StoreUnavailable:
                break
            kept += 1
        assert kept == SMALL // len(frames.frame(one, KEPT))
        with pytest.raises(StoreUnavailable):
            await spool.append(one, KEPT)
        assert (spool.refused, spool.depth, spool.failing) == (2, kept, False)
        assert len([r for r in caplog.records if "SPOOL_MAX_BYTES" in r.message]) == 1
        await spool.forget(1)
        await spool.append(one, KEPT)


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """No file of this process may be larger, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.anyio
async def test_a_disk_that_takes_nothing_refuses_and_is_used_again_once_it_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with spooling(tmp_path) as spool:
        await spool.append(webhook(1), KEPT)
        with no_room(64):
            for _ in range(2):
                results = await asyncio.gather(
                    *[spool.append(one, KEPT) for one in numbered(3, 10)], return_exceptions=True
                )
                assert {type(result) for result in results} == {StoreUnavailable}
        assert spool.failing
        assert (spool.depth, spool.appended, spool.refused) == (1, 1, 6)
        assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 1
        await spool.prepare()
        assert not spool.failing
        await spool.append(webhook(2), KEPT)
        assert await spool.oldest(9) == [webhook(1), webhook(2)]


@pytest.mark.anyio
async def test_a_webhook_too_large_for_what_is_left_does_not_spend_it(tmp_path: Path) -> None:
    async with spooling(tmp_path) as spool:
        await spool.append(webhook(1), KEPT)
        with no_room(SMALL):
            with pytest.raises(StoreUnavailable):
                await spool.append(webhook(2, bytes(SMALL)), KEPT)
            await spool.append(webhook(3), KEPT)
        assert await spool.oldest(9) == [webhook(1), webhook(3)]


@pytest.mark.anyio
async def test_half_of_a_write_is_not_believed(tmp_path: Path) -> None:
    """The disk is full in the middle of a frame; what was durable before stays."""
    async with spooling(tmp_path) as spool:
        await spool.append(webhook(1), KEPT)
        most = len(file_of([webhook(1), webhook(2)])) - 10
        with no_room(most), pytest.raises(StoreUnavailable):
            await spool.append(webhook(2), KEPT)
        await spool.append(webhook(3), KEPT)
        with after_a_crash(tmp_path) as later:
            assert everything(later) == [webhook(1), webhook(3)]


@pytest.mark.anyio
async def test_a_start_on_a_full_disk_is_no_end(tmp_path: Path) -> None:
    with no_room(64):
        async with spooling(tmp_path) as spool:
            assert spool.failing
            with pytest.raises(StoreUnavailable):
                await spool.append(webhook(1), KEPT)
            with no_room(resource.RLIM_INFINITY):
                await spool.append(webhook(2), KEPT)
                await spool.prepare()
                assert not spool.failing


# ── The way out ──────────────────────────────────────────────────────────────────────────────


class Broken(ConsoleWebhook):
    """An adapter that reads what the database will not take."""

    def parse(self, request: Verified) -> Sequence[Event]:
        body = request.request.body.decode()
        return (said(str(request.key), body=None if body == "poison" else body),)


@pytest.mark.anyio
async def test_what_cannot_be_stored_is_kept_and_holds_up_nobody(
    tmp_path: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    webhooks = [webhook(n, body) for n, body in enumerate([b"one", b"poison", b"two", b"three"])]
    webhooks[2] = replace(webhooks[2], key=None)  # type: ignore[arg-type]
    batcher = Batcher(store.database, lambda topics: None)
    hook = Broken(ConsoleWebhookSettings.model_validate({"CONSOLE_WEBHOOK_SECRET": "a-secret"}))
    async with spooling(tmp_path) as spool:
        inbound = Inbound(batcher, {"c1": CONNECTION}, spool=spool, webhooks={"console": hook})
        drain = Drain(spool, batcher, inbound)
        for one in webhooks:
            await spool.append(one, KEPT)
        batcher.start()
        drain.start()
        async with asyncio.timeout(20):
            while spool.depth:
                await asyncio.sleep(0.01)
        await drain.stop()
        await batcher.stop()
    assert [row.body for row in store.rows("SELECT body FROM messages ORDER BY id")] == [
        "one",
        "three",
    ]
    states = [(row.state, bytes(row.body)) for row in store.rows("SELECT state, body FROM inbox")]
    assert sorted(states) == [("malformed", b"poison"), ("parsed", b"one"), ("parsed", b"three")]
    (bad,) = names(tmp_path, segments.BAD)
    assert read((tmp_path / bad).read_bytes())[2] == webhooks[2]
    assert bad in caplog.text


@pytest.mark.anyio
async def test_a_folder_that_comes_back_later_is_read_then(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    async with spooling(folder) as spool:
        await spool.append(webhook(1), KEPT)
    spool = Spool(folder, ROOM)
    folder.rename(tmp_path / "elsewhere")  # such as a volume that is not mounted
    folder.write_text("")
    await spool.start()
    assert spool.failing
    with pytest.raises(StoreUnavailable):
        await spool.append(webhook(2), KEPT)
    folder.unlink()
    (tmp_path / "elsewhere").rename(folder)
    spool.filled.clear()
    await spool.prepare()
    assert (spool.failing, spool.recovering, spool.filled.is_set()) == (False, True, True)
    assert await spool.oldest(9) == [webhook(1)]
    await spool.stop()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="SPOOL_DIR"):
        Spool(tmp_path / "file" / "spool", ROOM)
