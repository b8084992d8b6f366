"""Twilio adds parameters without notice: a name that we do not know hides nobody's message."""

from __future__ import annotations

import pytest

from gateway.domain import InboundMessage
from tests.twilio_forms import ACCOUNT, OURS, PERSON, SID, one

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SomeNewParameterThatIsLongerThanFortyCharacters", "x"),
        ("Parameters[x]", "1"),
        ("_ref", "1"),
        ("ButtonPayload", "forwardTo+15551234567"),
    ],
)
async def test_a_message_with_a_new_parameter_is_read(name: str, value: str) -> None:
    fields = {
        "MessageSid": SID,
        "AccountSid": ACCOUNT,
        "From": PERSON,
        "To": OURS,
        "Body": "hi",
        "SmsStatus": "received",
        name: value,
    }
    event = await one(fields)
    assert isinstance(event, InboundMessage)
    assert (event.from_address, event.to_address, event.body) == (PERSON, OURS, "hi")
    assert event.provider_message_id == SID
