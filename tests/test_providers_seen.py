"""Which providers the messages of a tenant have named: a list of another one's looks no further."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from alembic import command
from alembic.config import Config

from gateway.store import communications, message_lists
from gateway.store.accepts import ACCEPT
from gateway.store.claims import CLAIM, Claim
from gateway.store.message_lists import Asked
from gateway.store.migrate import SCRIPTS
from tests.stored import CONNECTION, PROVIDERS, TENANT, Store, new_message, person, said


def listed(store: Store, provider: str, tenant: str = TENANT) -> list[str]:
    """The messages of a provider, by both of the lists that there are."""
    asked = Asked({"provider": provider})
    with store.database.read() as tx:
        found = [row["id"] for row in message_lists.listed(tx, tenant, asked, None, 10)]
        communications.listed(tx, tenant, asked, None, 10)
    return found


def seen(store: Store) -> list[Any]:
    """What is kept."""
    return store.rows("SELECT tenant_id, provider FROM providers_seen ORDER BY provider")


def test_messages_are_found_by_the_providers_that_they_named(store: Store) -> None:
    assert listed(store, "test") == []
    (first,) = store.do(ACCEPT, new_message())
    assert (listed(store, "test"), listed(store, "vendor")) == ([first.view["id"]], [])
    store.receive("k", said("m1", from_address=person(3)))
    assert seen(store) == [(TENANT, "test")]
    assert listed(store, "test", "another") == []


def test_who_takes_over_from_another_provider_is_found_as_well(store: Store) -> None:
    store.accept()
    (due,) = store.do(CLAIM, Claim("t", 1, 60_000, PROVIDERS))[0]
    other = replace(CONNECTION, id="c2")
    assert store.begin(due, other) is not None
    named = store.value("SELECT provider FROM messages")
    assert (TENANT, named) in seen(store)
    assert listed(store, named) == [due.message_id]


def test_what_was_written_is_believed_for_a_while_and_not_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.accept()
    store.change("DELETE FROM providers_seen")  # as a restore may do
    store.accept(to=person(4))
    assert listed(store, "test") == seen(store) == []  # no message was looked at
    monkeypatch.setattr("gateway.store.seen.SEEN_FOR", 0)
    store.accept(to=person(5))
    assert len(listed(store, "test")) == 3


def test_messages_of_before_are_found_after_the_upgrade(store: Store) -> None:
    store.accept()
    for target, move in (("0018", command.downgrade), ("head", command.upgrade)):
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        with store.database.migrate() as tx:
            config.attributes["connection"] = tx.connection
            move(config, target)
    assert len(listed(store, "test")) == 1
