"""Confirms the subscriptions that vendors ask to have confirmed: after the commit, with retries.

Each is performed by the webhook that verified the request for it; nothing here visits a URL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from gateway.domain import Confirms, Handshake
from gateway.errors import ProviderError, Rejected
from gateway.rounds import Rounds
from gateway.store.batcher import Batcher
from gateway.store.subscriptions import DONE, WANT, Performed, Wanted

log = logging.getLogger("gateway.confirmations")

GIVEN_UP = 48 * 3_600_000  # milliseconds after the vendor asked: by then its token is void
LEASE = 120_000  # milliseconds
PAUSE = 5_000  # milliseconds before the second try, doubled each time
LONGEST = 900_000
BEGUN = 3  # how often one is performed at once after a start, if a process died at it
AT_ONCE = 8
FIX = "subscribe this gateway to the topic again"


class ConfirmationWorker:
    """Performs what is due, a few at a time."""

    def __init__(
        self,
        batcher: Batcher,
        hooks: Mapping[str, Confirms],
        *,
        poll: float = 5.0,
        only_process: bool = False,
    ) -> None:
        self._batcher = batcher
        self._begun = BEGUN if only_process else 0
        self._hooks = hooks
        self.rounds = Rounds("confirmations", self._turn, poll=poll)

    async def _turn(self) -> bool:
        rows = await self._batcher.submit(WANT, Wanted(AT_ONCE, LEASE, self._begun))
        self._begun = 0  # from now on the leases are ours
        await asyncio.gather(*(self._perform(row) for row in rows))
        return bool(rows)

    async def _perform(self, row: Mapping[str, Any]) -> None:
        performed = await self._try(row)
        await self._batcher.submit(DONE, performed)

    async def _try(self, row: Mapping[str, Any]) -> Performed:
        topic, hook = row["topic_arn"], self._hooks.get(row["webhook"])
        if row["age"] > GIVEN_UP:
            log.error("%s was not confirmed within two days: %s", topic, FIX)
            return _performed(row, "failed", detail="not confirmed in time")
        if hook is None:
            return _performed(row, "pending", detail="its webhook is off", retry_in=_pause(row))
        handshake = Handshake(
            dedupe_key=row["id"],
            kind="subscription",
            content={name: row[name] for name in ("topic_arn", "token", "subscribe_url")},
        )
        try:
            made = await hook.confirm(handshake)
        except Rejected as error:
            log.error("%s cannot be confirmed (%s): %s", topic, error.text, FIX)
            return _performed(row, "failed", detail=str(error))
        except ProviderError as error:
            log.warning("%s could not be confirmed yet: %s", topic, error)
            return _performed(row, "pending", detail=str(error), retry_in=_pause(row))
        log.info("the subscription to %s is confirmed", topic)
        return _performed(row, "confirmed", subscription_arn=made)


def _performed(row: Mapping[str, Any], state: str, **more: Any) -> Performed:
    return Performed(row["tenant_id"], row["id"], row["said_at"], state, **more)


def _pause(row: Mapping[str, Any]) -> int:
    return int(min(LONGEST, PAUSE * 2 ** min(row["tries"] - 1, 10)))
