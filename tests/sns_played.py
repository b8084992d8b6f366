"""Plays SNS for a whole gateway: signs, posts over HTTP, and serves its certificate on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from gateway.store import subscriptions
from gateway.store.database import Database
from tests.running import Client, eventually, in_thread, variables
from tests.sns_signing import TOKEN, TOPIC, headers, laid_out, signer, stamp
from tests.test_aws_sns_confirm import confirmed
from tests.vendors import LoopbackVendor, Reply

SIGNER = signer("emulated", datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC))
FILE = "/_aws/sns/SimpleNotificationService-6c6f.pem"
PATH = "/api/webhooks/aws-sns"


@dataclass
class Sns:
    """Plays SNS: signs, posts, and serves its certificate and its confirmations on loopback."""

    client: Client
    vendor: LoopbackVendor
    database: Database = field(repr=False)

    def post(
        self, fields: dict[str, Any], path: str = PATH, age: timedelta = timedelta(0)
    ) -> requests.Response:
        """Posts an envelope that is signed now, or was a while ago."""
        fresh = {**fields, "Timestamp": stamp(datetime.now(UTC) - age)}
        if "SubscribeURL" in fresh:
            query = f"Action=ConfirmSubscription&TopicArn={fresh['TopicArn']}&Token={TOKEN}"
            fresh["SubscribeURL"] = f"{self.vendor.url}/?{query}"
        envelope = SIGNER.signed(fresh, url=self.vendor.url + FILE)
        envelope["UnsubscribeURL"] = f"{self.vendor.url}/?Action=Unsubscribe"
        return self.client.session.post(
            self.client.url + path,
            data=laid_out(envelope),
            headers=headers(fresh["Type"]),
            timeout=20,
        )

    @property
    def visits(self) -> list[str]:
        """What was asked of SNS besides its certificate."""
        return [r.path for r in self.vendor.requests if r.path != FILE]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What stands in the database."""
        with self.database.read() as tx:
            return [dict(row._mapping) for row in tx.run(sql).fetchall()]

    def subscription(self, state: str) -> dict[str, Any]:
        """Waits until the only subscription is at a state."""

        def look() -> dict[str, Any] | None:
            with self.database.read() as tx:
                found = subscriptions.listed(tx)
            return found[0] if len(found) == 1 and found[0]["state"] == state else None

        return eventually(look, f"a subscription that is {state}")


@contextmanager
def playing(url: str, folder: Path, **set_up: str) -> Iterator[Sns]:
    """A gateway in development, with more variables if that is wanted, and an emulator of SNS."""
    with LoopbackVendor() as vendor:
        vendor.pages[FILE] = Reply(body=SIGNER.pem)
        vendor.pages["/"] = Reply(body=confirmed())
        more = {
            "GATEWAY_ENV": "development",
            "AWS_SNS_TOPIC_ARNS": TOPIC,
            "AWS_SNS_EMULATOR_URL": vendor.url,
            **set_up,
        }
        database = Database(url)
        with in_thread(variables(folder, url, **more)) as client:
            yield Sns(client, vendor, database)
        database.close()
