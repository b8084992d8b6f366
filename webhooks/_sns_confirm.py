"""Confirms a subscription: by the API where credentials allow, else by one GET of a checked URL.

The API is better: by it nobody unsubscribes us with the URL that stands in every notification.
Each is tried once, in bounded time; nothing is visited that a sender put together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gateway.errors import ProviderError, Rejected, Unreachable, clean
from webhooks._sns_http import EACH, Fetch, Unanswered

# The API reference of ConfirmSubscription, Errors, and the common errors of AWS.
USELESS = frozenset({"InvalidParameter", "InvalidParameterValue", "ValidationError", "NotFound"})
_OURS = """
    AccessDenied AccessDeniedException AuthorizationError ExpiredToken ExpiredTokenException
    IncompleteSignature InvalidClientTokenId MissingAuthenticationToken NotAuthorized OptInRequired
    SignatureDoesNotMatch UnrecognizedClientException
"""
OURS = frozenset(_OURS.split())  # our credentials cannot do that; the URL needs none
CONFIRMED = re.compile(rb"<ConfirmSubscriptionResponse[\s>]")
CODE = re.compile(rb"<Code>\s*([A-Za-z0-9._-]{1,60})\s*</Code>")
ARN = re.compile(rb"<SubscriptionArn>\s*(arn:[!-;=-~]{1,500}?)\s*</SubscriptionArn>")


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessKey:
    """An access key of the account."""

    id: str
    secret: str = field(repr=False)
    session: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Credentials:
    """The account's own, by which the API is called; without a key, those that boto3 finds: a
    profile's, or the machine's role. `endpoint` replaces AWS's."""

    key: AccessKey | None
    endpoint: str | None = None


class NotAllowed(Exception):
    """The API will not do it for us; the URL may."""


def by_api(credentials: Credentials, region: str, topic: str, token: str) -> str | None:
    """Confirms by `ConfirmSubscription`, in the topic's region.

    Raises:
        NotAllowed: these credentials cannot do it, or there is no SDK.
        Rejected, Unreachable: it is not confirmed.
    """
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore import exceptions  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]
    except ImportError:
        raise NotAllowed("boto3 is not installed") from None
    key = credentials.key
    try:
        client = boto3.session.Session().client(
            "sns",
            region_name=region,
            aws_access_key_id=key.id if key else None,
            aws_secret_access_key=key.secret if key else None,
            aws_session_token=key.session if key else None,
            endpoint_url=credentials.endpoint,
            config=Config(
                connect_timeout=EACH,
                read_timeout=EACH,
                retries={"total_max_attempts": 1, "mode": "standard"},
                proxies={},
                ignore_configured_endpoint_urls=True,  # as sending does: ours alone counts
            ),
        )
        made = client.confirm_subscription(
            TopicArn=topic, Token=token, AuthenticateOnUnsubscribe="true"
        )
    except exceptions.ClientError as error:
        failure: Exception = _refusal(error.response.get("Error", {}))
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        failure = Unreachable(f"the API did not answer ({type(error).__name__})", code="no_answer")
    except (exceptions.BotoCoreError, ValueError) as error:  # such as a profile that is not there
        failure = NotAllowed(type(error).__name__)
    else:
        arn = made.get("SubscriptionArn")
        return str(arn) if arn else None
    raise failure


def _refusal(error: dict[str, str]) -> Exception:
    code = clean(str(error.get("Code", "")))[:60] or "error"
    if code in OURS:
        return NotAllowed(code)
    kind: type[ProviderError] = Rejected if code in USELESS else Unreachable
    return kind("the API refused to confirm", code=code)


def by_url(fetch: Fetch, url: str) -> str | None:
    """Confirms by a GET. SNS asks for no credentials there.

    Raises:
        Rejected, Unreachable: it is not confirmed.
    """
    try:
        answer = fetch(url)
    except Unanswered as error:
        failure = _unanswered(error)
    else:
        if CONFIRMED.search(answer):
            arn = ARN.search(answer)
            return arn[1].decode("ascii") if arn else None
        failure = Unreachable("the answer confirms nothing", code="unreadable")
    raise failure


def _unanswered(error: Unanswered) -> ProviderError:
    """Final is only what AWS says of the token itself: some of its 400s mean "not so fast"."""
    told = CODE.search(error.body)
    code = f"http_{error.status}" if error.status else "no_answer"
    if told is not None:
        code = told[1].decode("ascii")
    if code in USELESS:
        return Rejected("the address refused to confirm", code=code)
    return Unreachable(f"the address did not confirm ({error})", code=code)
