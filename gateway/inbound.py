"""receive(): a verified webhook becomes conversations, statuses and events, durably, once.

What cannot be read is kept raw and counted, never refused: the vendor did its part.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from gateway.clock import new_id
from gateway.domain import Connection, Event, Unrecognised, Verified, Webhook
from gateway.errors import Malformed
from gateway.store.batcher import Batcher
from gateway.store.inbox import RECEIVE, Delivery

log = logging.getLogger("gateway.inbound")


class Inbound:
    """Takes verified webhooks of known connections."""

    def __init__(self, batcher: Batcher, connections: Mapping[str, Connection]) -> None:
        self._batcher = batcher
        self._connections = connections
        self._pools = frozenset(
            sender.pool
            for connection in connections.values()
            for sender in connection.senders.values()
            if sender.pool is not None
        )

    async def receive(self, webhook: Webhook, verified: Verified) -> None:
        """Reads and stores; done when it is committed.

        Raises:
            StoreUnavailable, OutcomeUnknown: the vendor should repeat.
        """
        delivery = self.delivery(webhook, verified, new_id("inb"))
        await self._batcher.submit(RECEIVE, delivery)

    def delivery(self, webhook: Webhook, verified: Verified, id_: str | None) -> Delivery:
        """What a verified webhook says, with how well it could be read."""
        events, state, detail = read(webhook, verified)
        connection = self._connections.get(verified.connection)
        if connection is None:
            events, state, detail = (), "quarantined", "no such connection"
        tenant_id = connection.tenant_id if connection is not None else ""
        return Delivery(
            id_, tenant_id, verified, events, state, detail, self._pools, webhook.kept_headers
        )


def read(webhook: Webhook, verified: Verified) -> tuple[Sequence[Event], str, str | None]:
    """Parses; never raises. The state is parsed, unrecognised or malformed."""
    try:
        events = webhook.parse(verified)
    except Malformed as error:
        log.warning("%s: verified but not readable: %s", webhook.name, error.detail)
        return (), "malformed", error.detail
    except Exception as error:
        log.exception("%s: the parser failed; the request is kept", webhook.name)
        return (), "malformed", f"the parser failed: {type(error).__name__}"
    unknown = [event.kind for event in events if isinstance(event, Unrecognised)]
    if unknown and len(unknown) == len(events):
        return events, "unrecognised", ", ".join(unknown)[:200]
    return events, "parsed", None
