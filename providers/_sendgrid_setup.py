"""A SendGrid account as `gateway doctor` looks at it: what the key may do, and what is left of the
plan. Changes nothing, and never repeats SendGrid's error texts.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gateway.domain import Finding, Level
from gateway.errors import ProviderError

if TYPE_CHECKING:
    from providers._http import HttpAnswer

NEEDED = "mail.send"
KEY, CREDITS = "SENDGRID_API_KEY", "credits"
LITTLE = 0.1  # of the plan

Ask = Callable[[str], Awaitable["HttpAnswer"]]  # by the path


async def check(ask: Ask) -> list[Finding]:
    """The key; then, where it may send, what is left."""
    try:
        found = [_key(await ask("/v3/scopes"))]
        if found[0].level is Level.OK:
            found += _left(await ask("/v3/user/credits"))
    except ProviderError as error:
        return [_problem(str(error), "see that SENDGRID_API_URL is reachable from here")]
    return found


def _problem(text: str, fix: str) -> Finding:
    return Finding(subject=KEY, level=Level.PROBLEM, text=text, fix=fix)


def _key(answer: HttpAnswer) -> Finding:
    """ "Retrieve a list of scopes for which this user has access" """
    if answer.status not in (200, 401, 403):
        text = f"SendGrid does not tell what the key may do (HTTP {answer.status})"
        return _problem(text, "see that SENDGRID_API_URL is right, and ask again in a while")
    if answer.status != 200:
        text = f"SendGrid refuses the key (HTTP {answer.status})"
        return _problem(text, "make a key with the right to send mail, and set it")
    if NEEDED not in (_object(answer).get("scopes") or ()):
        return _problem("the key may not send mail", f"give it the scope {NEEDED}")
    return Finding(subject=KEY, level=Level.OK, text="may send mail")


def _left(answer: HttpAnswer) -> list[Finding]:
    """ "Retrieve your credit balance". A key that may only send mail is not told, and neither is
    anybody whose plan has no bound: that is no fault."""
    told = _object(answer) if answer.status == 200 else {}
    remain, total, again = (told.get(name) for name in ("remain", "total", "next_reset"))
    if not (isinstance(remain, int) and isinstance(total, int)) or total <= 0:
        return []
    text = f"{remain} of {total} emails are left until {again or 'the plan is renewed'}"
    if remain > total * LITTLE:
        return [Finding(subject=CREDITS, level=Level.OK, text=text)]
    fix = "choose a larger plan, or put another provider behind it in EMAIL_PROVIDERS"
    if remain > 0:
        return [Finding(subject=CREDITS, level=Level.WARNING, text=text, fix=fix)]
    text = f"{text}: SendGrid refuses email, or asks more for it"
    level = Level.PROBLEM if told.get("is_hard_limit") else Level.WARNING
    return [Finding(subject=CREDITS, level=level, text=text, fix=fix)]


def _object(answer: HttpAnswer) -> dict[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
