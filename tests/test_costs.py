"""What messages cost: estimated as they are sent, corrected by what their vendors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.errors import SettingsError
from gateway.settings import Environment
from tests.running import Client, eventually, in_thread, twilio, variables
from tests.test_dry_run import rehearsed
from tests.vendors import LoopbackVendor, Reply

PRICES = """effective_from,provider,channel,country,price,per,currency,free,estimated,note
2020-01-01,twilio,sms,US,0.01,1,USD,,,
2020-01-01,twilio,sms,DE,0.09,1,EUR,,,
2020-01-01,console,email,*,2,1000,USD,,,
"""


def priced(tmp_path: Path, text: str = PRICES) -> dict[str, str]:
    """The variables with a list of prices of the test's own."""
    file = tmp_path / "prices.csv"
    file.write_text(text)
    return {"PRICES_FILE": str(file), "EMAIL_PROVIDERS": "console"}


def callback(client: Client, message: dict[str, Any], status: str, **more: str) -> None:
    """What Twilio posts about the newest attempt."""
    attempt = message["attempts"][-1]
    form = {
        "MessageSid": attempt["provider_message_id"],
        "MessageStatus": status,
        "AccountSid": twilio("")["TWILIO_ACCOUNT_SID"],
        "To": message["to"],
        "From": message["from"],
        **more,
    }
    path = f"/api/webhooks/twilio?attempt={attempt['id']}"
    assert client.webhook(path, form).ok


def test_an_estimate_stands_until_the_vendor_says(
    url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    with in_thread(variables(tmp_path, url, **twilio(vendor.url), **priced(tmp_path))) as client:
        sent = client.until(client.send(to="+12025550123", body="a" * 161)["id"], "accepted")
        expected = {"amount": "0.02", "currency": "USD", "estimated": True}
        assert sent["cost"] == sent["attempts"][0]["cost"] == expected
        (listed,) = client.get("/api/messages")["items"]
        assert listed["cost"] == expected
        callback(client, sent, "delivered", Price="-0.0199", PriceUnit="USD")
        told = client.until(sent["id"], "delivered")
        assert (
            told["cost"] == told["attempts"][0]["cost"] == {"amount": "0.0199", "currency": "USD"}
        )
        german = client.until(client.send(to="+4915112345678", body="x")["id"], "accepted")
        assert german["cost"] == {"amount": "0.09", "currency": "EUR", "estimated": True}
        french = client.until(client.send(to="+33612345678", body="x")["id"], "accepted")
        assert french["cost"] is french["attempts"][0]["cost"] is None
        vendor.plan.append(
            Reply(status=400, body=b'{"code": 21211, "message": "x", "status": 400}')
        )
        failed = client.until(client.send(to="+12025550124", body="x")["id"], "failed")
        assert failed["cost"] is failed["attempts"][0]["cost"] is None
        copied = {"cc": ["b@example.com"], "bcc": ["c@example.com"]}
        mail = {"channel": "email", "to": "a@example.com", "subject": "s", "body": "b"}
        assert rehearsed(client, **mail)["price"] == {
            "amount": "0.002",
            "currency": "USD",
            "estimated": True,
        }
        id_ = client.send(**mail, email=copied)["id"]
        cost = eventually(lambda: client.message(id_)["cost"])
        assert cost == {"amount": "0.006", "currency": "USD", "estimated": True}
        assert rehearsed(client, to="+12025550123", body="hi")["price"]["amount"] == "0.01"
        assert rehearsed(client, to="+33612345678", body="hi")["price"] is None


def test_a_list_of_prices_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    wrong = priced(tmp_path, PRICES + "2020-01-01,twilio,sms,US,free,1,USD,,,\n")
    with pytest.raises(SettingsError, match=r"prices.csv, line 5: price must be"):
        Gateway(environment=Environment(variables(tmp_path, **wrong)))
