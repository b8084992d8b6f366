"""accept(): a request becomes a durable message, or a list of what is wrong with it.

Nothing here knows a vendor: what is possible is read from the capabilities of the routes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from gateway import addresses, drafts, emails, routing, windows
from gateway.clock import new_id, to_ms
from gateway.domain import (
    WINDOWS,
    Channel,
    Clock,
    Direction,
    MessageType,
    Priority,
    Sender,
)
from gateway.drafts import Draft
from gateway.errors import GatewayError
from gateway.foresight import Foresight, Refusal, foreseen, plain
from gateway.outgoing import needs_of
from gateway.own_files import OwnFiles, own_id
from gateway.references import References
from gateway.routing import Needs, Route
from gateway.store.accepts import ACCEPT, Accepted, IdempotencyKey, NewMessage
from gateway.store.batcher import Batcher
from gateway.store.claims import names
from gateway.store.conversations import Wanted
from gateway.store.retries import first_route
from gateway.store.tables import messages

COLUMNS = tuple(c.name for c in messages.columns)
EMPTY_ROW: dict[str, Any] = dict.fromkeys(COLUMNS)
FILES = frozenset({*drafts.MEDIA_TYPES.values(), MessageType.DOCUMENT, MessageType.STICKER})
NOWHERE: frozenset[str] = frozenset()
AN_UPLOAD = "be the url of an upload, /api/media/…"
FARTHEST = 36_525 * 86_400_000  # milliseconds: how far ahead a message may be scheduled


# The fields of `Needs`.
Asked = tuple[Channel, MessageType, int, bool, bool, frozenset[str], bool, bool]


class Invalid(GatewayError):
    """A request that cannot be accepted; each problem names its field and the fix. `listed`: by
    what vendors said of their templates, a while ago."""

    def __init__(self, problems: Sequence[tuple[str, str]], *, listed: bool = False) -> None:
        self.problems = tuple(problems)
        self.listed = listed
        super().__init__("; ".join(f"{name}: {text}" for name, text in problems))


class Local(Protocol):
    """The worker of this process, to which T1 may hand a message over."""

    def reserve(self, new: NewMessage) -> bool:
        """Keeps a seat for a message, if one is free."""
        ...

    def accepted(self, new: NewMessage, stored: asyncio.Future[Any]) -> None:
        """T1 has ended, of a message that has a seat."""
        ...


class Outbound:
    """Accepts messages for the providers of `routes`, a chain for each channel."""

    def __init__(
        self,
        batcher: Batcher,
        routes: Mapping[Channel, Sequence[Route]],
        clock: Clock,
        *,
        region: str | None,
        expiry: float,
        idempotency: float,
        local: Local | None = None,
        own_files: OwnFiles | None = None,
        foresight: Foresight | None = None,
        references: References | None = None,
        reachable: bool = True,
    ) -> None:
        self._batcher = batcher
        self._routes = routes
        self._chosen: dict[Asked, tuple[Route, ...]] = {}  # for what messages have asked so far
        self._clock = clock
        self._region = region
        self.expiry = int(expiry * 1000)
        self._local = local
        self._own_files = own_files
        self._foresight = foresight
        self._references = references
        self._reachable = reachable  # by people's mail programs
        self._kept = int(idempotency * 1000)

    async def accept(
        self, draft: Draft, *, tenant_id: str, key: IdempotencyKey | None = None
    ) -> Accepted:
        """Stores a message durably; it is sent from then on, by this process at once if nothing
        waits and it has a seat.

        Raises:
            Invalid: it cannot be sent; nothing was stored.
            StoreUnavailable, OutcomeUnknown: as the batcher says.
        """
        new = await self.prepared(draft, tenant_id, key)
        if self._local is None or not self._local.reserve(new):
            return await self._batcher.submit(ACCEPT, new)
        stored = self._batcher.submit(ACCEPT, new)
        stored.add_done_callback(partial(self._local.accepted, new))
        return await asyncio.shield(stored)  # whoever asked may go; what is stored is sent

    async def prepared(
        self, draft: Draft, tenant_id: str, key: IdempotencyKey | None = None
    ) -> NewMessage:
        """Validates and normalises a draft, with what is known of its files, of its template and of
        the messages that it names.

        Raises:
            Invalid: it cannot be sent.
        """
        if self._own_files is not None and (draft.media or draft.email):
            draft, lacking = await self._own_files.in_draft(draft, tenant_id)
            if lacking:
                raise Invalid(lacking)
        try:
            new = self.prepare(draft, tenant_id, key)
        except Invalid as wrong:
            if not wrong.listed or self._foresight is None:
                raise
            await self._foresight.renewed(draft.channel, draft.template)  # it may have changed
            new = self.prepare(draft, tenant_id, key)
        if self._references is not None and (unknown := await self._references.resolved(new)):
            raise Invalid(unknown)
        return new

    def idempotency(self, route: str, key: str, body: Any) -> IdempotencyKey:
        """A caller's key with the hash of the canonical form of what it asks."""
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return IdempotencyKey(
            route, key, hashlib.sha256(canonical.encode()).hexdigest(), self._kept
        )

    def as_stored(self, text: str) -> str:
        """An address to look for, as it is stored where it is a phone number or an email's; also
        as vendors write it. A bare + of a query comes as a space."""
        text = text.removeprefix("whatsapp:")
        if addresses.SHORT_CODE.fullmatch(text):
            return text
        number = "+" + text[1:] if text.startswith(" ") else text
        try:
            return addresses.heard(text) if "@" in text else addresses.phone(number, self._region)
        except addresses.AddressError:
            return text

    def names(self, text: str) -> tuple[str, ...]:
        """How an address that somebody asks about may be stored: as every other, and, beside that,
        as it was written: what vendors told was once kept so."""
        return tuple(dict.fromkeys((self.as_stored(text), text)))

    def route_again(self, row: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> str:
        """Who may send a stored message once more: those who might at its first attempt, as far
        as they still can; else whom it would be left to now. Blank: nobody."""
        chain, needs = self._routes.get(Channel(row["channel"]), ()), needs_of(row)
        able = [r.name for r in chain if routing.lacks(r.capabilities, needs) is None]
        first = first_route(attempts)
        if known := [name for name in names(first) if name in able]:
            return ",".join(known)
        if able and able[0] == row["provider"]:
            return ",".join(able)
        found = routing.candidates(chain, needs, row["from_address"])
        return ",".join(route.name for route in found)

    def prepare(
        self, draft: Draft, tenant_id: str, key: IdempotencyKey | None = None
    ) -> NewMessage:
        """Validates and normalises a draft, without a look at the database."""
        problems: list[tuple[str, str]] = []
        kind = drafts.type_of(draft)
        places = self._places(draft, tenant_id, problems)
        ours = self._named(draft, problems)
        able = self._candidates(draft, kind, places, ours, problems)
        to = self._person(draft, problems)
        email = self._email(draft, problems)
        self._content(draft, kind, problems)
        send_at, expires_at = self._times(draft, problems)
        if problems:
            raise Invalid(problems)
        taker = ""
        if self._foresight is not None and not plain(draft):
            sender = routing.sender_at(able[0], draft.channel, ours, ())
            fit = self._foresight.fit(able, foreseen(draft, kind, to, email, sender))
            if isinstance(fit, Refusal):
                raise Invalid([(fit.field, fit.text)], listed=fit.listed)
            able, taker = fit.routes, fit.taker
        first = able[0]
        sender = routing.sender_at(first, draft.channel, ours, ())
        row = EMPTY_ROW.copy()
        row.update(
            tenant_id=tenant_id,
            id=new_id("msg"),
            direction=Direction.OUTBOUND.value,
            channel=draft.channel.value,
            type=kind.value,
            from_address=sender.address,
            to_address=to,
            body=draft.body,
            content=_json(draft.content),
            reply_to=draft.reply_to,
            subject=drafts.subject_of(draft),
            extra=_json(drafts.extra_of(draft, email)),
            media=_json(draft.media),
            provider=first.name,
            connection=first.connection.id,
            segments=drafts.segments_of(draft),
            priority=draft.priority.value,
            on_unknown=draft.on_unknown.value,
            meta=_json(draft.metadata),
            purpose=drafts.purpose_of(draft.metadata),
            send_at=send_at,
            expires_at=expires_at,
        )
        route = ",".join(one.name for one in able)
        wanted = self._wanted(draft, tenant_id, to, sender)
        window, apart = _window(draft, kind, able), _apart(draft, sender)
        return NewMessage(row, wanted, key, route=route, window=window, apart=apart, taker=taker)

    def _places(
        self, draft: Draft, tenant_id: str, problems: list[tuple[str, str]]
    ) -> frozenset[str]:
        """Where the files are, as far as a provider of this channel takes them from there."""
        files = drafts.files_of(draft)
        if not files:
            return NOWHERE
        known, found = routing.places(self._routes.get(draft.channel, ()), draft.channel), set()
        for name, file in files:
            url = str(file.get("url", ""))
            # A file of our own has an address on the web by the time that it is sent.
            place = routing.WEB if own_id(url) else routing.place(url, known, tenant_id)
            if place is None:
                others = [p.replace("{tenant}", tenant_id) for p in known if p != routing.WEB]
                ways = ("must be an https URL", *(f"start with {p}" for p in others), AN_UPLOAD)
                text = " or ".join(ways)
                problems.append((f"{name}.url", text))
            else:
                found.add(place)
        return frozenset(found)

    def _candidates(
        self,
        draft: Draft,
        kind: MessageType,
        places: frozenset[str],
        ours: str | None,
        problems: list[tuple[str, str]],
    ) -> tuple[Route, ...]:
        """Who may send it, best first."""
        media, html = len(drafts.files_of(draft)), draft.html is not None
        template, quotes = draft.template is not None, drafts.quotes(draft)
        user_id = addresses.is_user_id(draft.channel, draft.to)
        asked = (draft.channel, kind, media, html, template, places, quotes, user_id)
        key = draft.thread.our_key if draft.thread is not None and draft.sender is None else None
        free = ours is None and key is None
        found = self._chosen.get(asked) if free else None
        if found is None:
            chain, needs = self._routes.get(draft.channel, ()), Needs(*asked)
            found = routing.candidates(chain, needs, ours, key)
            if not found:
                problems.append(routing.nobody(chain, needs, ours, key))
            elif free:
                self._chosen[asked] = found
        return found

    def _person(self, draft: Draft, problems: list[tuple[str, str]]) -> str:
        if draft.thread is not None and draft.to == draft.thread.address:
            return draft.to
        try:
            to = addresses.person(draft.channel, draft.to, self._region)
        except addresses.AddressError as error:
            problems.append(("to", str(error)))
            return ""
        if draft.thread is not None:
            problems.append(("to", "is not the person of that conversation; leave one of them out"))
        return to

    def _named(self, draft: Draft, problems: list[tuple[str, str]]) -> str | None:
        """The address of ours that a message names; an answer comes from the address that the
        person wrote to."""
        if draft.sender is None:
            return draft.thread.our_address if draft.thread is not None else None
        try:
            if draft.channel is Channel.EMAIL:
                if emails.UNPRINTABLE.search(draft.sender):
                    raise addresses.AddressError(emails.ONE_LINE)
                return addresses.mailbox(draft.sender)[1]
            return addresses.ours(draft.channel, draft.sender, self._region)
        except addresses.AddressError as error:
            problems.append(("from", str(error)))
            return None

    def _email(self, draft: Draft, problems: list[tuple[str, str]]) -> dict[str, Any]:
        """What only an email has, as it is stored."""
        if draft.channel is not Channel.EMAIL:
            return {}
        if not (subject := drafts.subject_of(draft)):
            problems.append(("subject", "is needed"))
        elif emails.is_blank(subject):
            problems.append(("subject", "must not be blank"))
        answered = draft.thread.answered if draft.thread is not None else None
        parts = dict(draft.email or {})
        if not parts.get("from_name"):
            parts["from_name"] = _name_in(draft.sender or "")
        kept = emails.normalised(parts, answered, problems)
        if kept.get("unsubscribe"):
            urgent = draft.priority is Priority.URGENT
            problems += emails.unsubscribing(kept, urgent=urgent, reachable=self._reachable)
        else:
            problems += emails.promising((draft.body, draft.html))
        return kept

    def _content(self, draft: Draft, kind: MessageType, problems: list[tuple[str, str]]) -> None:
        # Blanks alone are nothing that a vendor takes: they would only hold up what comes behind.
        texts = draft.body.strip(), (draft.html or "").strip()
        said = any(texts) or drafts.files_of(draft) or draft.template
        if not said and (kind is MessageType.TEXT or not draft.content):
            problems.append(("body", "is needed, or media, or a template"))
        if kind in FILES and not draft.media:
            problems.append(("media", f"is needed for the type {kind}"))
        if draft.channel in routing.ONE_FILE and len(draft.media) > 1:
            problems.append(
                ("media", f"may be one file on {draft.channel}: send a message for each")
            )
        if draft.channel is not Channel.EMAIL and (draft.subject or draft.html or draft.email):
            problems.append(("channel", "must be email for a subject, html or email"))

    def _times(self, draft: Draft, problems: list[tuple[str, str]]) -> tuple[int | None, int]:
        now = to_ms(self._clock.now())
        send_at = to_ms(draft.send_at) if draft.send_at is not None else None
        if send_at is not None and send_at > now + FARTHEST:
            problems.append(("send_at", "must be within a hundred years"))
        starts = max(now, send_at or 0)
        expires_at = to_ms(draft.expires_at) if draft.expires_at else starts + self.expiry
        if expires_at <= starts:
            problems.append(("expires_at", "must be after now and after send_at"))
        return send_at, expires_at

    def _wanted(self, draft: Draft, tenant_id: str, to: str, sender: Sender) -> Wanted:
        thread = draft.thread
        our_key = thread.our_key if thread is not None else sender.key
        return Wanted(
            tenant_id=tenant_id,
            channel=draft.channel.value,
            our_keys=(our_key,),
            address=to,
            our_address=sender.address,
        )


def _window(draft: Draft, kind: MessageType, able: Sequence[Route]) -> int:
    if draft.outside_window or draft.channel not in WINDOWS:
        return 0
    can = (route.capabilities for route in able)
    return windows.binding(draft.channel, kind, template=draft.template is not None, able=can)


def _apart(draft: Draft, sender: Sender) -> bool:
    """Whether an answer comes from another address than the person wrote to."""
    thread = draft.thread
    if thread is None or draft.sender is None or thread.our_address is None:
        return False
    return sender.address != thread.our_address


def _name_in(mailbox: str) -> str | None:
    """The name before an address of ours; what cannot be one is told by the field `from`."""
    named = mailbox.rpartition("<")[0].strip().strip('"').strip()
    return named if named and not emails.UNPRINTABLE.search(mailbox) else None


def _json(value: Any) -> str | None:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False) if value else None
