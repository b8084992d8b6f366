"""Writes golden requests with what they become, to be read before they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from gateway.cases import described
from gateway.domain import Webhook, WebhookRequest
from tests.sns_signing import written
from tests.webhook_cases import CASES


def write(
    kind: type[Webhook],
    variables: Mapping[str, str],
    golden: Mapping[str, tuple[WebhookRequest, str]],
) -> None:
    """The cases of a webhook. An outcome is `events`, `malformed`, or the status of a refusal."""
    folder = CASES / kind.name / "inbound"
    folder.mkdir(parents=True, exist_ok=True)
    written(folder / "_settings.json", dict(variables))
    webhook = kind(kind.Settings.model_validate(variables))
    for name, (made, outcome) in golden.items():
        (folder / f"{name}.body").write_bytes(made.body)
        expect = asyncio.run(_expected(webhook, made, outcome))
        told = {"url": made.url, "headers": dict(made.headers), "expect": expect}
        written(folder / f"{name}.json", told)


async def _expected(webhook: Webhook, made: WebhookRequest, outcome: str) -> dict[str, Any]:
    if outcome != "events":
        return {"refused": int(outcome)} if outcome.isdecimal() else {outcome: True}
    events = [described(event) for event in webhook.parse(await webhook.verify(made))]
    for each in events:
        if each["event"] == "Unrecognised":
            del each["dedupe_key"]  # the adapter's own business
    return {"events": events}
