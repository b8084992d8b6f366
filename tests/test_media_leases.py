"""What a killed process was fetching, and who fetches it then."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain import FetchedMedia, MediaReference
from gateway.files import Folder
from gateway.media import MediaWorker
from gateway.store.files import DONE, WANT, Fetched, Wanted
from tests.stored import CONNECTION, TENANT, Store, said
from tests.working import until


class Fetcher:
    """A vendor that has every file, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def fetch_media(self, reference: str, limit: int) -> FetchedMedia:
        """Gives it."""
        self.asked.append(reference)
        return FetchedMedia(data=reference.encode(), content_type="text/plain")


def waiting(store: Store, *names: str) -> None:
    """Files of messages that came in."""
    files = tuple(MediaReference(reference=name) for name in names)
    store.receive("k1", said("m1", media=files))


@pytest.mark.anyio
@pytest.mark.parametrize("only", [True, False])
async def test_what_a_killed_process_was_fetching_is_fetched_at_once_if_nobody_else_can_be(
    store: Store, tmp_path: Path, only: bool
) -> None:
    waiting(store, "begun", "failed", "blamed")
    taken = {row["reference"]: row["id"] for row in store.do(WANT, Wanted(10, 120_000))[0]}
    store.do(DONE, Fetched(TENANT, taken["failed"], "pending", detail="timeout", retry_in=60_000))
    store.change("UPDATE media SET tries = 4 WHERE id = ?", taken["blamed"])
    store.receive("k2", said("m2", media=(MediaReference(reference="new"),)))
    fetcher = Fetcher()
    worker = MediaWorker(
        store.batcher,
        {CONNECTION.id: fetcher},
        Folder(tmp_path),
        limit=100,
        poll=0.02,
        only_process=only,
    )
    store.batcher.start()
    worker.rounds.start()
    try:
        wanted = {"begun", "new"} if only else {"new"}
        stored = "SELECT reference FROM media WHERE state = 'stored'"
        await until(lambda: {row.reference for row in store.rows(stored)} == wanted)
        store.receive("k3", said("m3", media=(MediaReference(reference="last"),)))
        await until(lambda: {row.reference for row in store.rows(stored)} == {*wanted, "last"})
    finally:
        await worker.rounds.stop()
        await store.batcher.stop()
    assert sorted(fetcher.asked) == sorted([*wanted, "last"])


def test_a_file_says_why_it_waits_until_it_is_fetched_again(store: Store) -> None:
    waiting(store, "one")
    (row,) = store.do(WANT, Wanted(10, 120_000))[0]
    store.do(DONE, Fetched(TENANT, row["id"], "pending", detail="timeout", retry_in=60_000))
    assert store.value("SELECT detail FROM media") == "timeout"
    assert store.do(WANT, Wanted(10, 120_000, begun=3))[0] == []
    store.change("UPDATE media SET due_at = 1")
    assert len(store.do(WANT, Wanted(10, 120_000))[0]) == 1
    assert store.value("SELECT detail FROM media") is None
