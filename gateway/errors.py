"""What can go wrong with a send or a webhook, drawn as a tree.

    GatewayError
    ├── ProviderError                what a provider may raise from `send`
    │   ├── Unsupported              we know that nobody was asked
    │   ├── Rejected                 the vendor refused this message
    │   ├── SenderRefused            the vendor refused this sender
    │   ├── AccountRefused           the vendor refused us
    │   ├── Throttled                not now, not sent
    │   ├── Unreachable              never got there
    │   └── Ambiguous                written, and no believable answer
    └── WebhookError                 what a webhook may raise
        ├── SignatureInvalid         not proved to be the vendor's
        ├── CannotVerifyNow          the proof is out of reach for a moment
        └── Malformed                proved, and not readable

Each class carries its decisions, so that nobody decides by vendor. Texts never hold secrets:
what a vendor says is cut short and stripped of control characters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from enum import StrEnum
from typing import ClassVar

from gateway.domain import Change, Receipt

TEXT_LIMIT = 300
NO_ROOM = "no_room"  # the code where a message's files need more memory than they were given


class Breaker(StrEnum):
    """What a failure says about the provider itself."""

    IGNORES = "ignores"
    COUNTS = "counts"
    OPENS = "opens"
    SUSTAINED = "sustained"  # counts only when it goes on
    BLOCKS_SENDER = "blocks_sender"


class Again(StrEnum):
    """Whether the same provider may be asked again for the same message."""

    NO = "no"
    LATER = "later"
    AFTER_CHANGE = "after_change"  # of configuration or of the account
    BY_POLICY = "by_policy"  # only as the message's on_unknown allows


def clean(text: str) -> str:
    """Makes vendor text safe to keep: one line, no control characters, bounded."""
    line = "".join(c if c.isprintable() else " " for c in text[: TEXT_LIMIT * 2])
    return " ".join(line.split())[:TEXT_LIMIT]


class GatewayError(Exception):
    """The root of what the gateway raises on purpose."""


class ProviderError(GatewayError):
    """A send that did not end in a receipt.

    `code` is the vendor's own (or ours, in words); `text` is for people. Neither holds a secret.
    """

    again: ClassVar[Again] = Again.BY_POLICY
    # Less of both on one that says nothing of the provider's sending, such as a file that is away.
    next_provider: bool = False
    breaker: Breaker = Breaker.COUNTS
    ends_message: ClassVar[bool] = False
    sent_nothing: ClassVar[bool] = False  # what is not known to be unsent may have been sent
    size: int | None = None  # bytes: of a file that is too large, or that files need (`NO_ROOM`)
    changes: Sequence[Change] = ()  # what an `install` had made, or would make, beside the failure

    def __init__(self, text: str, *, code: str = "", retry_after: float | None = None) -> None:
        self.text = clean(text)
        self.code = code or self.reason
        self.retry_after = retry_after
        super().__init__(f"{self.code}: {self.text}")

    @property
    def reason(self) -> str:
        """The class in words, as it stands in messages and metrics."""
        return REASONS[type(self)]


class Unsupported(ProviderError):
    """The provider cannot do this; nothing was sent. Another may. `field` is what of the message is
    at fault, by its name in the API, where that is known before anybody is asked."""

    again = Again.NO
    next_provider = True
    breaker = Breaker.IGNORES
    sent_nothing = True

    def __init__(
        self, text: str, *, code: str = "", retry_after: float | None = None, field: str = ""
    ) -> None:
        self.field = field
        super().__init__(text, code=code, retry_after=retry_after)


class Rejected(ProviderError):
    """The vendor refused this message: bad number, opted out, content, template.

    `because` narrows the reason where somebody acts on it: `opted_out`, or `bounced` of an email
    to a mailbox that there is not, and will not be.
    """

    again = Again.NO
    breaker = Breaker.IGNORES
    ends_message = True
    sent_nothing = True

    def __init__(
        self, text: str, *, code: str = "", retry_after: float | None = None, because: str = ""
    ) -> None:
        self.because = because
        super().__init__(text, code=code, retry_after=retry_after)

    @property
    def reason(self) -> str:
        """The class in words, or what narrows it."""
        return self.because or REASONS[type(self)]


class SenderRefused(ProviderError):
    """The vendor refused this sender on this connection."""

    again = Again.AFTER_CHANGE
    next_provider = True
    breaker = Breaker.BLOCKS_SENDER
    sent_nothing = True


class AccountRefused(ProviderError):
    """The vendor refused us: wrong credentials, suspended."""

    again = Again.AFTER_CHANGE
    next_provider = True
    breaker = Breaker.OPENS
    sent_nothing = True


class Throttled(ProviderError):
    """Not now, and not sent. `retry_after` is in seconds, where the vendor said so."""

    again = Again.LATER
    next_provider = True
    breaker = Breaker.SUSTAINED
    sent_nothing = True


def used_up(text: str, *, code: str, retry_after: float) -> Throttled:
    """The vendor's own quota of a day is used up: a single such answer is true of every message, so
    its breaker opens at once, and one message at a time looks whether there is room again."""
    error = Throttled(text, code=code, retry_after=retry_after)
    error.breaker = Breaker.OPENS
    return error


class Unreachable(ProviderError):
    """Never got there: DNS, refused, TLS, connect time-out."""

    again = Again.LATER
    next_provider = True
    sent_nothing = True


class Ambiguous(ProviderError):
    """Written, and no believable answer. Whatever stands in no table is this.

    `late` may still bring the answer, where the provider goes on listening for it: an awaitable
    of a `Receipt`, which raises a `ProviderError` where the vendor said no.
    """

    again = Again.BY_POLICY

    def __init__(
        self,
        text: str,
        *,
        code: str = "",
        retry_after: float | None = None,
        late: Awaitable[Receipt] | None = None,
    ) -> None:
        super().__init__(text, code=code, retry_after=retry_after)
        self.late = late


REASONS: dict[type[ProviderError], str] = {
    ProviderError: "error",
    Unsupported: "unsupported",
    Rejected: "rejected",
    SenderRefused: "sender_refused",
    AccountRefused: "account_refused",
    Throttled: "throttled",
    Unreachable: "unreachable",
    Ambiguous: "ambiguous",
}


class WebhookError(GatewayError):
    """A webhook that was not taken. `detail` is for the log and holds no secret."""

    status: ClassVar[int] = 400

    def __init__(self, detail: str) -> None:
        self.detail = clean(detail)
        super().__init__(self.detail)


class SignatureInvalid(WebhookError):
    """Not proved to be the vendor's: 401 without a signature, 403 with a wrong one."""

    def __init__(self, detail: str, *, missing: bool = False) -> None:
        super().__init__(detail)
        self.missing = missing

    @property
    def http_status(self) -> int:
        """401 where no proof was offered, 403 where it does not hold."""
        return 401 if self.missing else 403


class CannotVerifyNow(WebhookError):
    """The proof is out of reach for a moment: 503, nothing stored, the vendor may repeat."""

    status = 503


class Malformed(WebhookError):
    """Verified and not readable. Kept raw, counted, answered 2xx."""


class SettingsError(GatewayError):
    """The settings cannot be run with; the text names the variable and the fix."""


class OutcomeUnknown(GatewayError):
    """A commit whose outcome nobody could learn in time. Repeating with the same key is safe."""


class StoreUnavailable(GatewayError):
    """The database did not answer in time, and nothing was written."""


class FilesUnavailable(GatewayError):
    """Where files are kept did not answer, has no room, or has not got the file."""
