"""`/api/sms/…`: the same use cases as `/api/messages`, under the names that SMS clients know.

Other channels are refused here. Counts stand in `analytics`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from starlette.requests import Request
from starlette.responses import Response

from gateway.api import names, rehearsal
from gateway.api.context import Context, problem_of
from gateway.api.health import PROVIDER_HEALTH
from gateway.api.json_text import UNSTORABLE
from gateway.api.messages import (
    accepted,
    draft_of,
    idempotency_key,
    json_body,
    once,
    shown,
    thread_of,
)
from gateway.api.operation import Operation
from gateway.api.problems import Problem, not_found, unprocessable
from gateway.api.reading import answer, is_id, validate
from gateway.api.schemas import NewMessage
from gateway.api.shapes import MAYBE, TEXT, object_of, ref
from gateway.clock import show, to_ms
from gateway.domain import Channel
from gateway.drafts import Draft
from gateway.errors import GatewayError
from gateway.health import of_channel
from gateway.store import queries
from gateway.store.accepts import Accepted, IdempotencyKey
from gateway.store.keys import Identity

SEND, BULK = "POST /api/sms/send", "POST /api/sms/bulk"
MOST = 1000  # messages of one request
BREATH = 50  # messages after which others have a turn
TO = ("recipient_number", "phone_number", "recipient")  # other names of a field
BODY = ("message", "content", "text")
FROM = ("from_number", "sender_id")
MANY = ("recipients", "phone_numbers")
CONFLICT = "was used for a request with another body"


class NewSms(NewMessage):
    """`POST /api/sms/send`."""

    channel: Channel = Channel.SMS

    @model_validator(mode="before")
    @classmethod
    def _names_of_sms_clients(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        names.under(value, "to", TO, names.address)
        names.under(value, "body", [n for n in BODY if isinstance(value.get(n), str)])
        names.under(value, "from", FROM, names.address)
        return value

    @field_validator("channel")
    @classmethod
    def _only_sms(cls, value: Channel) -> Channel:
        if value is not Channel.SMS:
            raise ValueError("must be sms here; POST /api/messages sends on other channels")
        return value


class BulkSms(BaseModel):
    """`POST /api/sms/bulk`: `messages`, or one message with a list of people in `to`."""

    model_config = ConfigDict(extra="allow")

    messages: list[Any] | None = Field(default=None, min_length=1, max_length=MOST)
    to: list[str] | None = Field(default=None, min_length=1, max_length=MOST)

    @model_validator(mode="before")
    @classmethod
    def _names_of_sms_clients(cls, value: Any) -> Any:
        if isinstance(value, dict):
            value = dict(value)
            names.under(value, "to", MANY)
        return value

    def each(self) -> list[Any]:
        """The messages, one by one."""
        if (self.messages is None) == (self.to is None):
            raise unprocessable([("messages", "or to is needed, and not both")])
        if self.messages is not None:
            if self.model_extra:
                raise unprocessable(
                    (name, "belongs into each message") for name in self.model_extra
                )
            return self.messages
        return [{**(self.model_extra or {}), "to": one} for one in self.to or ()]


async def send(request: Request, context: Context, identity: Identity) -> Response:
    """Accepts one SMS."""
    value = await json_body(request, context)
    key = idempotency_key(request, context, SEND, value)
    if rehearsal.asked(request):
        return await rehearsal.rehearse(context, identity, await _draft(value, context, identity))
    return accepted(await once(_accept(value, context, identity, key), context, identity, key))


async def _accept(
    value: Any, context: Context, identity: Identity, key: IdempotencyKey | None
) -> Accepted:
    draft = await _draft(value, context, identity)
    return await context.outbound.accept(draft, tenant_id=identity.tenant_id, key=key)


async def _draft(value: Any, context: Context, identity: Identity) -> Draft:
    wanted = validate(NewSms, value)
    thread = None
    if wanted.conversation_id is not None:
        thread = await thread_of(context, identity, wanted.conversation_id, Channel.SMS)
    return draft_of(wanted, Channel.SMS, wanted.to, thread)


async def bulk(request: Request, context: Context, identity: Identity) -> Response:
    """Accepts many SMS, or refuses some of them, each on its own."""
    value = await json_body(request, context)
    key = idempotency_key(request, context, BULK, value)
    wanted = validate(BulkSms, value).each()
    earlier = await _earlier(context, identity, key)
    under_way = []
    for number, one in enumerate(wanted):
        row = earlier.get(number)
        under_way.append(asyncio.ensure_future(_one(one, number, row, context, identity, key)))
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
    done = await asyncio.gather(*under_way, return_exceptions=True)
    return _answer(done)


async def _one(
    value: Any,
    number: int,
    earlier: Mapping[str, Any] | None,
    context: Context,
    identity: Identity,
    key: IdempotencyKey | None,
) -> Accepted:
    if earlier is not None:
        return Accepted(json.loads(earlier["response"]), replayed=True)
    own = None if key is None else _numbered(key, number)
    return await _accept(value, context, identity, own)


def _numbered(key: IdempotencyKey, number: int) -> IdempotencyKey:
    """The key of one message of a request: it holds for the whole body."""
    return IdempotencyKey(key.route, f"{number}:{key.key}", key.body_hash, key.kept)


async def _earlier(
    context: Context, identity: Identity, key: IdempotencyKey | None
) -> dict[int, Mapping[str, Any]]:
    """What was answered under this key before."""
    if key is None:
        return {}
    names = [_numbered(key, number).key for number in range(MOST)]
    rows = await context.reader.call(queries.earlier_answers, identity.tenant_id, BULK, names)
    if any(row["body_hash"] != key.body_hash for row in rows):
        raise unprocessable([("Idempotency-Key", CONFLICT)])
    return {int(row["key"].partition(":")[0]): row for row in rows}


def _answer(done: list[Accepted | BaseException]) -> Response:
    """All of it; an error of ours only where nothing at all was accepted because of it."""
    taken = [one for one in done if isinstance(one, Accepted) and not one.conflict]
    ours = [e for e in done if isinstance(e, BaseException) and _status(e) >= 500]
    if ours and not taken:
        raise ours[0]
    items = [{"index": number, **_item(one)} for number, one in enumerate(done)]
    replayed = bool(taken) and all(one.replayed for one in taken)
    return answer(
        {"items": items, "accepted": len(taken), "rejected": len(items) - len(taken)},
        202,
        {"idempotency-replayed": "true"} if replayed else {},
    )


def _status(error: BaseException) -> int:
    """What an error would be answered with; what is no refusal is raised."""
    if not isinstance(error, (Problem, GatewayError)):
        raise error
    return problem_of(error).status


def _item(one: Accepted | BaseException) -> dict[str, Any]:
    if isinstance(one, Accepted) and not one.conflict:
        return {"message": one.view}
    if isinstance(one, Accepted):
        return {"errors": [{"field": "Idempotency-Key", "message": CONFLICT}]}
    assert isinstance(one, Exception)
    problem = problem_of(one)
    listed = problem.errors or (("", problem.detail),)
    return {"errors": [{"field": name, "message": text} for name, text in listed]}


async def status(request: Request, context: Context, identity: Identity) -> Response:
    """One SMS with its attempts, by its id or the provider's."""
    text = str(request.path_params["id"])
    row = None
    if is_id(text):
        row = await context.reader.call(queries.message, identity.tenant_id, text)
    if row is None and not UNSTORABLE.search(text):
        row = await context.reader.call(
            queries.message_of_provider, identity.tenant_id, Channel.SMS.value, text
        )
    if row is None or row["channel"] != Channel.SMS.value:
        raise not_found("SMS")
    return answer(await shown(row, context, identity))


async def health(request: Request, context: Context, identity: Identity) -> Response:
    """How the providers of SMS are; always 200."""
    now = show(to_ms(context.clock.now()))
    return answer({"timestamp": now, **of_channel(context.board, Channel.SMS)})


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/sms/send",
        handler=send,
        summary="Send an SMS",
        answer="Message",
        status=202,
        body=NewSms,
        query=rehearsal.QUERY,
        also=rehearsal.GOOD,
        headers=("Idempotency-Key",),
        errors=(400, 408, 413, 415, 422),
        tag="SMS",
    ),
    Operation(
        method="POST",
        path="/api/sms/bulk",
        handler=bulk,
        summary="Send up to 1,000 SMS, each accepted or refused on its own",
        answer="BulkAnswer",
        status=202,
        body=BulkSms,
        headers=("Idempotency-Key",),
        errors=(400, 408, 413, 415, 422),
        tag="SMS",
    ),
    Operation(
        method="GET",
        path="/api/sms/status/{id}",
        handler=status,
        summary="Show an SMS with its attempts, by its id or the provider's",
        answer="MessageWithAttempts",
        errors=(404,),
        tag="SMS",
    ),
    Operation(
        method="GET",
        path="/api/sms/health",
        handler=health,
        summary="How the providers of SMS are",
        answer="SmsHealth",
        tag="SMS",
    ),
)

_ITEM = object_of(
    {
        "index": {"type": "integer"},
        "message": ref("Message"),
        "errors": {"type": "array", "items": object_of({"field": TEXT, "message": TEXT})},
    },
    optional=("message", "errors"),
)
SHAPES = {
    "BulkItem": _ITEM,
    "BulkAnswer": object_of(
        {
            "items": {"type": "array", "items": ref("BulkItem")},
            "accepted": {"type": "integer"},
            "rejected": {"type": "integer"},
        }
    ),
    "SmsHealth": object_of(
        {
            "timestamp": TEXT,
            "status": {"type": "string", "enum": ["healthy", "degraded", "unhealthy"]},
            "provider": MAYBE,
            "providers": {"type": "array", "items": PROVIDER_HEALTH},
        }
    ),
}
