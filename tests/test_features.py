"""What the documentation says that a provider can is what its adapter says, and what it does."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.commands.tree import app
from gateway.domain import Capabilities, Channel, ListsTemplates, MarksRead, MessageType
from gateway.errors import Unsupported
from gateway.routing import types
from tests.outbound_cases import WIRED, Setup, outbound, provider, usual
from tests.vendors import LoopbackVendor

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parents[1] / "docs" / "providers.md"


def test_the_tables_of_the_documentation_are_those_of_the_adapters() -> None:
    printed = CliRunner().invoke(app, ["providers", "features"])
    assert printed.exit_code == 0
    marked = re.compile("<!-- features -->\n\n(.*)\n\n<!-- /features -->", re.DOTALL)
    found = marked.search(DOCUMENT.read_text())
    assert found is not None
    assert found[1] == printed.output.strip(), "run `gateway providers features` and copy it"


def known(setup: Setup) -> list[Capabilities]:
    """What a provider's class says, in each way that it may be set up."""
    variants = getattr(setup.provider, "variants", None)
    return list(variants().values()) if variants else [setup.provider.capabilities]


@pytest.mark.parametrize("setup", WIRED, ids=lambda setup: setup.name)
async def test_a_provider_can_what_its_class_says(setup: Setup) -> None:
    async with provider(setup, "http://127.0.0.1:9") as made:
        can = made.capabilities
        assert isinstance(made, MarksRead) == (can.marks_read or can.shows_typing)
        assert isinstance(made, ListsTemplates) or not can.lists_templates
        said = [replace(one, media_from=can.media_from) for one in known(setup)]
        assert replace(can, lists_templates=True) in [
            replace(one, lists_templates=True) for one in said
        ]


def written(setup: Setup, can: Capabilities) -> set[tuple[Channel, MessageType]]:
    """What has a case that stands on the wire."""
    messages = [
        usual(setup, **c["message"]) for _, c in outbound(setup) if {"form", "json"} & c.keys()
    ]
    return {(m.channel, m.type) for m in messages}


@pytest.mark.parametrize("setup", WIRED, ids=lambda setup: setup.name)
async def test_everything_that_is_claimed_was_seen_on_the_wire(setup: Setup) -> None:
    async with provider(setup, "http://127.0.0.1:9") as made:
        can = made.capabilities
    claimed = {(channel, kind) for channel in can.channels for kind in types(can, channel)}
    assert claimed - written(setup, can) == set()


@pytest.mark.parametrize("setup", WIRED, ids=lambda setup: setup.name)
async def test_nothing_that_is_not_claimed_gets_to_the_wire(setup: Setup) -> None:
    with LoopbackVendor() as vendor:
        async with provider(setup, vendor.url) as made:
            for channel in Channel:
                for kind in MessageType:
                    if channel in made.capabilities.channels and kind in types(
                        made.capabilities, channel
                    ):
                        continue
                    with pytest.raises(Unsupported):
                        await made.send(usual(setup, channel=channel, type=kind, body="x"))
        assert vendor.connections == 0
