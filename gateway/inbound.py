"""receive(): a verified webhook becomes conversations, statuses and events, durably, once.

What cannot be read is kept raw and counted, never refused: the vendor did its part.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gateway import addresses
from gateway._spool_intake import Intake
from gateway.clock import new_id, to_ms
from gateway.domain import (
    Channel,
    Connection,
    Engagement,
    Event,
    Handshake,
    InboundMessage,
    Mail,
    StatusUpdate,
    Unrecognised,
    Verified,
    Webhook,
    WebhookRequest,
)
from gateway.errors import Malformed
from gateway.spool import Spool
from gateway.store.batcher import Batcher
from gateway.store.inbox import RECEIVE, Delivery, Taken

log = logging.getLogger("gateway.inbound")


class Inbound:
    """Takes verified webhooks of known connections. While the database is away they go to `spool`;
    what comes out of it again is read by `webhooks`, by name."""

    def __init__(
        self,
        batcher: Batcher,
        connections: Mapping[str, Connection],
        *,
        spool: Spool | None = None,
        webhooks: Mapping[str, Webhook] | None = None,
    ) -> None:
        self._take: Callable[[Delivery], Awaitable[Taken | None]] = (
            partial(batcher.submit, RECEIVE) if spool is None else Intake(batcher, spool).take
        )
        self._connections = connections
        self._webhooks = webhooks or {}
        self._pools = frozenset(
            sender.pool
            for connection in connections.values()
            for sender in connection.senders.values()
            if sender.pool is not None
        )

    async def receive(self, webhook: Webhook, verified: Verified) -> None:
        """Reads and stores; done when it is committed, or spooled.

        Raises:
            StoreUnavailable, OutcomeUnknown: the vendor should repeat.
        """
        delivery = self.delivery(webhook, verified, new_id("inb"))
        taken = await self._take(delivery)
        if taken is not None:
            self.taken(delivery, taken)

    def taken(self, delivery: Delivery, taken: Taken) -> None:
        """What follows a commit."""
        if taken.new:
            _alert(delivery.events)

    def spooled(self, verified: Verified) -> Delivery:
        """What a webhook says that comes out of the spool. One whose adapter is set up no more
        waits in the inbox until it is."""
        webhook, id_ = self._webhooks.get(verified.webhook), new_id("inb")
        if webhook is not None:
            made = self.delivery(webhook, verified, id_)
        else:
            log.warning("%s is not set up any more: its webhooks are kept", verified.webhook)
            connection = self._connections.get(verified.connection)
            tenant_id = connection.tenant_id if connection is not None else ""
            headers = frozenset(verified.request.headers)
            made = Delivery(
                id_, tenant_id, verified, (), "quarantined", "no such webhook", kept_headers=headers
            )
        return replace(made, received_at=to_ms(verified.request.received_at))

    def delivery(self, webhook: Webhook, verified: Verified, id_: str | None) -> Delivery:
        """What a verified webhook says, with how well it could be read."""
        events, state, detail = read(webhook, verified)
        connection = self._connections.get(verified.connection)
        if connection is None:
            events, state, detail = (), "quarantined", "no such connection"
        tenant_id = connection.tenant_id if connection is not None else ""
        said = [addressed(event) for event in events]
        return Delivery(
            id_, tenant_id, verified, said, state, detail, self._pools, webhook.kept_headers
        )


def addressed(event: Event) -> Event:
    """What an event about email says, its addresses written as those of what we send: vendors
    write them as they like, and a person who is called otherwise would be another one."""
    if not isinstance(event, InboundMessage | StatusUpdate | Engagement):
        return event
    if event.channel not in (Channel.EMAIL, None):
        return event
    if isinstance(event, InboundMessage):
        return replace(
            event,
            from_address=addresses.heard(event.from_address),
            to_address=_heard(event.to_address),
            aliases=tuple(addresses.heard(each) for each in event.aliases),
            new_address=_heard(event.new_address),
        )
    if isinstance(event, StatusUpdate):
        aliases = tuple(addresses.heard(each) for each in event.aliases)
        recipient, sender = _heard(event.recipient), _heard(event.sender)
        return replace(event, recipient=recipient, sender=sender, aliases=aliases)
    return replace(event, recipient=_heard(event.recipient))


def _heard(text: str | None) -> str | None:
    return None if text is None else addresses.heard(text)


def _alert(events: Sequence[Event]) -> None:
    """Says loudly what stops the vendor from posting."""
    for event in events:
        if isinstance(event, Handshake) and event.kind == "unsubscribed":
            log.error(
                "%s was unsubscribed from this gateway: nothing of it arrives any more; if that "
                "was not meant, subscribe it again",
                event.content.get("topic_arn"),
            )


def verified(row: Mapping[str, Any]) -> Verified:
    """A request of the inbox, as a `verify` once put it there."""
    request = WebhookRequest(
        method=row["method"],
        url=row["url"],
        headers=json.loads(row["headers"]),
        body=bytes(row["body"]),
        received_at=datetime.fromtimestamp(row["received_at"] / 1000, UTC),
    )
    return Verified(
        webhook=row["webhook"],
        connection=row["connection"],
        request=request,
        key=row["key"],
        verdict=row["verdict"],
    )


def read(webhook: Webhook, verified: Verified) -> tuple[Sequence[Event], str, str | None]:
    """Parses; never raises. The state is parsed, unrecognised or malformed; or pending, where
    there is an email in it that is read later."""
    try:
        events = webhook.parse(verified)
    except Malformed as error:
        log.warning("%s: verified but not readable: %s", webhook.name, error.detail)
        return (), "malformed", error.detail
    except Exception as error:
        log.exception("%s: the parser failed; the request is kept", webhook.name)
        return (), "malformed", f"the parser failed: {type(error).__name__}"
    if any(isinstance(event, Mail) for event in events):
        return events, "pending", None
    unknown = [event.kind for event in events if isinstance(event, Unrecognised)]
    if unknown and len(unknown) == len(events):
        return events, "unrecognised", ", ".join(unknown)[:200]
    return events, "parsed", None
