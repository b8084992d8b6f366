"""What is held back: nothing of it is sent until somebody lets it go, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.store.holds import FREE, HOLD, Free, Hold, waiting
from tests.commands import Desk
from tests.running import in_thread, variables
from tests.stored import TENANT, Store, new_message, person


def held(store: Store) -> list[str]:
    with store.database.read() as tx:
        return [row["message_id"] for row in waiting(tx, held=True, limit=100)]


def put_aside(store: Store) -> str:
    """A message that was claimed three times and never begun."""
    id_ = store.accept()
    for _ in range(3):
        store.claim()
        store.lapse()
    assert store.status(id_) == "held"
    return id_


def test_what_was_put_aside_is_listed_and_goes_when_it_is_released(store: Store) -> None:
    id_ = put_aside(store)
    assert held(store) == [id_]
    assert store.claim() == []
    assert store.do(FREE, Free(((TENANT, id_),))) == [1]
    message = store.message(id_)
    assert (message["status"], message["error_code"]) == ("queued", None)
    assert store.told(id_)[-2:] == ["message.held", "message.queued"]
    assert store.claimed() == [id_]


def test_a_released_message_has_all_its_claims_again(store: Store) -> None:
    id_ = put_aside(store)
    store.do(FREE, Free(((TENANT, id_),)))
    for _ in range(2):
        store.claim()
        store.lapse()
    assert store.status(id_) == "queued"


def test_what_an_operator_holds_is_not_claimed(store: Store) -> None:
    first, second = store.accept(to=person(1)), store.accept(to=person(2))
    assert store.do(HOLD, Hold(((TENANT, first),))) == [1]
    assert (store.status(first), store.message(first)["error_code"]) == ("held", "held")
    assert store.claimed() == [second]


def test_what_is_claimed_is_not_held_and_what_is_not_held_not_released(store: Store) -> None:
    id_ = store.accept()
    store.claim()
    assert store.do(HOLD, Hold(((TENANT, id_),))) == [0]
    assert store.do(FREE, Free(((TENANT, id_), (TENANT, "msg_none")))) == [0]
    assert store.status(id_) == "queued"


def test_what_is_held_twice_or_released_twice_counts_once(store: Store) -> None:
    id_ = store.accept()
    assert store.do(HOLD, Hold(((TENANT, id_),)), Hold(((TENANT, id_),))) == [1, 0]
    assert store.do(FREE, Free(((TENANT, id_),)), Free(((TENANT, id_),))) == [1, 0]


def test_a_held_message_that_has_no_time_left_expires(store: Store) -> None:
    id_ = store.accept_all(new_message())[0]
    store.do(HOLD, Hold(((TENANT, id_),)))
    store.change("UPDATE queue SET expires_at = 1")
    store.change("UPDATE messages SET expires_at = 1")
    store.sweep()
    assert store.status(id_) == "expired"


def test_the_command_holds_lists_and_releases(tmp_path: Path, url: str) -> None:
    settings = variables(tmp_path, url, MESSAGING_PROVIDER="console")
    with in_thread(settings, working=False) as client:
        ids = [client.send(to=person(n), body="hi")["id"] for n in range(3)]
        desk = Desk(tmp_path)
        desk.variables.update(settings)
        assert "Nothing." in desk.run("queue", "list").out
        assert desk.run("queue", "hold", ids[0]).code == 0
        assert desk.run("queue", "hold", "--all").out.strip() == "2 held"
        shown = desk.run("queue", "list").out
        assert all(id_ in shown for id_ in ids)
        assert {client.message(id_)["status"] for id_ in ids} == {"held"}
        assert desk.run("queue", "release", ids[1]).code == 0
        refused = desk.run("queue", "release", ids[1])
        assert refused.code == 1
        assert "is not held" in refused.err
        assert desk.run("queue", "release", "--all").out.strip() == "2 released"
        assert {client.message(id_)["status"] for id_ in ids} == {"queued"}


@pytest.mark.parametrize("arguments", [(), ("msg_1", "--all")])
def test_the_command_wants_to_know_which(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = Desk(tmp_path).run("queue", "release", *arguments)
    assert done.code == 2
    assert "--all" in done.err
