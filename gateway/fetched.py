"""What we asked a vendor for, as the inbox takes it: read by the webhook of the same vendor.

The proof is that we fetched it ourselves, so its verdict says by what, and not which secret held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.clock import new_id
from gateway.domain import Connection, Provider, Record, Verified, Webhook, WebhookRequest
from gateway.inbound import Inbound
from gateway.routing import Route
from gateway.store.inbox import Delivery

HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads the records of one connection."""

    inbound: Inbound
    webhook: Webhook
    connection: Connection

    def delivery(self, record: Record, verdict: str, at: datetime) -> Delivery:
        """A record and what it says; the same record is stored once."""
        named = f"{verdict}:{record.provider_message_id}:".encode() + record.body
        request = WebhookRequest(
            method="GET", url=record.url, headers=HEADERS, body=record.body, received_at=at
        )
        verified = Verified(
            webhook=self.webhook.name,
            connection=self.connection.id,
            request=request,
            key=hashlib.sha256(named).hexdigest(),
            verdict=verdict,
        )
        return self.inbound.delivery(self.webhook, verified, new_id("inb"))


def readings(
    providers: Mapping[str, Provider],
    routes: Mapping[str, Route],
    webhooks: Mapping[str, Webhook],
    inbound: Inbound,
) -> dict[str, Reading]:
    """Who reads what each provider may be asked for, by its name."""
    return {
        name: Reading(inbound, webhooks[name], routes[name].connection)
        for name in providers
        if name in webhooks
    }
