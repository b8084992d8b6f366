"""Answers collected from vendors, in a folder beside the repository, where there is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Receipt
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unsupported,
)
from tests.outbound_cases import entry_of, message, provider
from tests.vendors import LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

FOLDER = Path("shared/wire/fixtures/twilio-sendgrid/cases")
# What each outcome of the collection may be. "transient" is Twilio's 20500, of which its own
# documentation says that a repeated POST may send twice.
OUTCOMES: dict[str, tuple[type[Any], ...]] = {
    "accepted": (Receipt,),
    "unknown": (Ambiguous,),
    "auth": (AccountRefused,),
    "throttled": (Throttled,),
    "permanent": (Rejected, SenderRefused, Unsupported),
    "opt_out": (Rejected,),
    "transient": (Ambiguous,),
}


def folder() -> Path | None:
    """The collection, looked for beside the repository and above."""
    above = Path(__file__).resolve().parents
    return next((each / FOLDER for each in above if (each / FOLDER).is_dir()), None)


def collected() -> list[dict[str, Any]]:
    """The answers to Twilio's own sending requests."""
    found = folder()
    paths = sorted(found.glob("api_*.json")) if found else []
    cases = [json.loads(path.read_text()) | {"at": path} for path in paths]
    return [case for case in cases if "//api.twilio.com/" in case["url"]]


CASES = collected()


def test_answers_are_collected_exactly_where_the_folder_is() -> None:
    assert bool(CASES) == (folder() is not None)


if CASES:

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
    async def test_a_collected_answer_has_its_outcome(case: dict[str, Any]) -> None:
        expected, answer = case["expected"], case["response"]
        body = case["at"].with_name(case["body_file"]).read_bytes()
        with LoopbackVendor() as vendor:
            vendor.always = Reply(status=answer["status"], headers=answer["headers"], body=body)
            async with provider(entry_of("twilio"), vendor.url) as made:
                result = await outcome(made)
        assert type(result) in OUTCOMES[expected["outcome"]]
        if isinstance(result, Receipt):
            assert result.provider_message_id == expected["message_sid"]
            assert result.sender == expected.get("from")
            assert (result.segments or 0) == int(expected.get("num_segments", 0))
        elif expected["error_code"] is not None:
            assert result.code == str(expected["error_code"])


async def outcome(made: Any) -> Receipt | ProviderError:
    """The receipt, or the error instead of it."""
    try:
        receipt: Receipt = await made.send(message(body="Hello"))
    except ProviderError as error:
        return error
    return receipt
