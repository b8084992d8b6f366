"""The addresses at which people leave with one click (RFC 8058): each names one email of one
tenant, and is signed. It shows no address of a person, and does not end: whoever finds an old
email may leave, too.
"""

from __future__ import annotations

import asyncio
import binascii
import hmac
import html
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.clock import new_id
from gateway.domain import OutboundEmail, OutboundMessage
from gateway.emails import UNSUBSCRIBE_URL
from gateway.errors import Breaker, OutcomeUnknown, StoreUnavailable, Unreachable
from gateway.opt_outs import Source, State
from gateway.signing import SigningKeys, signed
from gateway.store import opt_out_edits, queries
from gateway.store.batcher import Batcher
from gateway.store.opt_out_edits import EDIT
from gateway.store.opt_outs import Word
from gateway.store.reader import Reader

PURPOSE = "unsubscribe"
TOKEN = re.compile(r"([A-Za-z0-9_-]{1,400})\.(msg_[0-9A-Za-z]{1,64})\.([A-Za-z0-9_-]{43})")
PATIENCE = 5.0  # seconds for the key, which is there already but for a tenant's first
NOWHERE = "PUBLIC_URL is not set where this is sent: no address to unsubscribe at"

Row = Mapping[str, Any]


class Unsubscribes:
    """Makes these addresses, and takes people at their word. `origin` is what mail programs can
    reach us at; None: nothing."""

    def __init__(self, batcher: Batcher, reader: Reader, origin: str | None) -> None:
        self._batcher = batcher
        self._reader = reader
        self._keys = SigningKeys(batcher, reader, PURPOSE)
        self._origin = origin

    async def linked(self, message: OutboundMessage, tenant_id: str) -> OutboundMessage:
        """An email with its address to unsubscribe at.

        Raises:
            ProviderError: there is none at the moment, and nothing was sent.
        """
        assert message.email is not None
        if self._origin is None:
            raise _harmless(NOWHERE)
        try:
            async with asyncio.timeout(PATIENCE):
                key = await self._keys.made(tenant_id)
        except (StoreUnavailable, OutcomeUnknown, TimeoutError):
            raise _harmless("no address to unsubscribe at was made") from None
        url = f"{self._origin}/unsubscribe/{_token(key, tenant_id, message.message_id)}"
        return _with(message, message.email, url)

    async def email_of(self, token: str) -> Row | None:
        """The email that a token of ours names; None where it is not ours.

        Raises:
            StoreUnavailable: nobody can tell now.
        """
        found = TOKEN.fullmatch(token)
        tenant_id = _tenant(found[1]) if found is not None else None
        if found is None or tenant_id is None:
            return None
        key = await self._keys.known(tenant_id)
        good = key is not None and hmac.compare_digest(_token(key, tenant_id, found[2]), token)
        return await self._reader.call(queries.message, tenant_id, found[2]) if good else None

    async def left(self, email: Row) -> bool:
        """Whether the person of an email has opted out of email, by whatever way."""
        person = email["tenant_id"], email["channel"], email["to_address"]
        known = await self._reader.call(opt_out_edits.one, *person)
        return known is not None and known["state"] == State.OUT

    async def leave(self, email: Row) -> None:
        """Opts the person of an email out of email. Said again by the same, it is not written
        again; said by who is out for another reason, such as a bounce, it is written beside that.

        Raises:
            StoreUnavailable, OutcomeUnknown: it may not have been stored.
        """
        person = email["tenant_id"], email["channel"], email["to_address"]
        if await self._reader.call(opt_out_edits.left_by, *person, email["id"]):
            return
        word = Word(
            id=new_id("opt"),
            tenant_id=email["tenant_id"],
            channel=email["channel"],
            address=email["to_address"],
            state=State.OUT,
            source=Source.UNSUBSCRIBE,
            our_address=email["from_address"],
            message_id=email["id"],
            conversation_id=email["conversation_id"],
        )
        await self._batcher.submit(EDIT, word)


def _with(message: OutboundMessage, parts: OutboundEmail, url: str) -> OutboundMessage:
    """The email with its address, in the header and where the text has left a place for it."""
    return replace(
        message,
        body=UNSUBSCRIBE_URL.sub(lambda _: url, message.body),
        html=message.html and UNSUBSCRIBE_URL.sub(lambda _: html.escape(url), message.html),
        email=replace(parts, unsubscribe_url=url),
    )


def _harmless(text: str) -> Unreachable:
    """An error that tells nothing of how a provider sends."""
    error = Unreachable(text, code="unsubscribe")
    error.breaker = Breaker.IGNORES
    return error


def _token(key: bytes, tenant_id: str, message_id: str) -> str:
    proof = signed(key, PURPOSE, tenant_id, message_id)
    return f"{_written(tenant_id.encode())}.{message_id}.{_written(proof)}"


def _written(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _tenant(text: str) -> str | None:
    try:
        tenant_id = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, ValueError):
        return None
    return tenant_id if tenant_id.isprintable() else None
