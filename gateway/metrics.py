"""What this process did, counted on the way: plain numbers in dictionaries, a fraction of a
microsecond each, and no lock: every one has a single thread that writes it.

Labels hold our own words only: names of the catalogue, routes, classes. Never an address, an id, a
tenant or a vendor's text. What a scrape shows besides is in `scrape`.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from gateway.clock import to_ms
from gateway.domain import Clock, Verified, Webhook
from gateway.errors import REASONS, ProviderError
from gateway.store.accepts import ACCEPT, Accepted
from gateway.store.batcher import Operation
from gateway.store.deliveries import Outcome
from gateway.store.inbox import RECEIVE, Taken
from gateway.store.mail import READ, UNREAD

Labels = tuple[str, ...]
Receive = Callable[[Webhook, Verified], Awaitable[None]]

MOST = 1000  # series of one metric; what comes after them is counted as OTHER
OTHER = "other"
ANSWERS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SENDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
HANDOVERS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
COMMITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
STATUSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
OUTCOMES = ("accepted", *(word for kind, word in REASONS.items() if kind is not ProviderError))
RESULTS = {  # of an accept, by (conflict, replayed)
    (False, False): "new",
    (False, True): "replayed",
    (True, False): "conflict",
    (True, True): "conflict",
}
VERDICTS = ("taken", "unsigned", "wrong_signature", "unavailable")


class Counts:
    """How often something happened, by labels."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self.name, self.text, self.labels = name, text, labels
        self._counts: dict[Labels, int] = {}

    def add(self, *values: str, times: int = 1) -> None:
        """So many times more."""
        if values not in self._counts:
            values = self.show(values)
        self._counts[values] += times

    def add_each(self, many: Iterable[Labels]) -> None:
        """Once more for each of these."""
        counts = self._counts
        for values in many:
            if values in counts:
                counts[values] += 1
            else:
                self.add(*values)

    def show(self, values: Labels) -> Labels:
        """Shows labels from now on, at 0: what appears at 1 has no rise that could be seen."""
        if len(self._counts) >= MOST and values not in self._counts:
            values = (OTHER,) * len(self.labels)
        self._counts.setdefault(values, 0)
        return values

    def read(self) -> list[tuple[Labels, int]]:
        """The counts so far; from any thread."""
        return list(self._counts.items())


class Spread:
    """How large something was each time, by labels, counted in buckets."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> None:
        self.name, self.text, self.bounds, self.labels = name, text, bounds, labels
        self._lines: dict[Labels, list[float]] = {}  # a count for each bucket, then the sum

    def add(self, value: float, *values: str) -> None:
        """One more."""
        line = self._lines.get(values)
        if line is None:
            line = self._line(values)
        line[bisect_left(self.bounds, value)] += 1
        line[-1] += value

    def _line(self, values: Labels) -> list[float]:
        if len(self._lines) >= MOST:
            values = (OTHER,) * len(self.labels)
        return self._lines.setdefault(values, [0.0] * (len(self.bounds) + 2))

    def read(self) -> list[tuple[Labels, list[float], float]]:
        """For each of the labels how many were at most each bound, then how many in all; and
        their sum. From any thread."""
        taken = [(values, list(line)) for values, line in list(self._lines.items())]
        return [(values, list(accumulate(line[:-1])), line[-1]) for values, line in taken]


class Metrics:
    """The counts of one gateway. `names` are those that may stand in labels as a webhook's;
    `providers` and `webhooks` are set up here, and shown before anything happens."""

    def __init__(
        self, clock: Clock, names: Iterable[str], providers: Iterable[str], webhooks: Iterable[str]
    ) -> None:
        self._clock = clock
        self._names = frozenset(names)
        self._ahead, self._asks_again = 0.0, float("-inf")
        self._of_the_api()
        self._of_sending()
        self._of_webhooks()
        self._of_the_store()
        for name in providers:
            for outcome in OUTCOMES:
                self.attempts.show((name, outcome))
        for name in webhooks:
            for verdict in VERDICTS:
                self.verdicts.show((name, verdict))

    def _of_the_api(self) -> None:
        self.requests = Spread(
            "gateway_http_request_duration_seconds",
            "Time until an answer begins.",
            ANSWERS,
            *("method", "route", "status"),
        )
        self.accepts = Counts(
            "gateway_accepts_total",
            "Messages that were asked to be sent: stored, or found by their Idempotency-Key.",
            *("channel", "result"),
        )
        self.events = Counts(
            "gateway_events_total", "Events that this process wrote to the feed.", "type"
        )

    def _of_sending(self) -> None:
        self.attempts = Counts(
            "gateway_attempts_total",
            "Requests to send that were made to providers.",
            *("provider", "outcome"),
        )
        self.late = Counts(
            "gateway_late_answers_total",
            "Answers of providers that came after the wait for them had ended.",
            *("provider", "outcome"),
        )
        self.sends = Spread(
            "gateway_send_duration_seconds",
            "Time that a provider took to answer, or was waited for.",
            SENDS,
            "provider",
        )
        self.handovers = Spread(
            "gateway_handover_seconds",
            "Time from when a message was due until a provider had taken it.",
            HANDOVERS,
            *("provider", "channel"),
        )

    def _of_webhooks(self) -> None:
        self.verdicts = Counts(
            "gateway_webhooks_total", "Webhook requests.", *("webhook", "verdict")
        )
        self.stores = Spread(
            "gateway_webhook_store_duration_seconds",
            "Time until a verified webhook was durable.",
            ANSWERS,
            "webhook",
        )
        self.inbox = Counts(
            "gateway_inbox_total",
            "Verified webhooks that reached the database.",
            *("webhook", "state"),
        )

    def _of_the_store(self) -> None:
        self.sizes = Spread(
            "gateway_store_batch_items", "Writes in one transaction.", SIZES, "operation"
        )
        self.commits = Spread(
            "gateway_store_batch_duration_seconds",
            "Time of one transaction, with its commit and its repetitions.",
            COMMITS,
            "operation",
        )
        self.failures = Counts(
            "gateway_store_failures_total",
            "Writes that failed or whose outcome is unknown.",
            "operation",
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered; status 0: nobody waited for the answer."""
        method = method if method in METHODS else OTHER
        self.requests.add(seconds, method, route, STATUSES[status // 100])

    def batch(
        self,
        operation: Operation[Any, Any],
        items: Sequence[Any],
        results: Sequence[Any],
        events: Sequence[Any],
        seconds: float,
    ) -> None:
        """A batch has ended; called by the thread that writes."""
        name = operation.name
        self.sizes.add(len(items), name)
        self.commits.add(seconds, name)
        failed = [result for result in results if isinstance(result, Exception)]
        if failed:
            self.failures.add(name, times=len(failed))
        self.events.add_each([(event["type"],) for event in events])
        if operation is ACCEPT:
            self._accepted(items, results)
        elif operation is RECEIVE:
            self._received(items, results)
        elif operation is READ:
            self.inbox.add_each([(i.delivery.verified.webhook, i.delivery.state) for i in items])
        elif operation is UNREAD:
            given_up = [(i.webhook, i.state) for i in items if i.state != "pending"]
            self.inbox.add_each(given_up)

    def _accepted(self, items: Sequence[Any], results: Sequence[Any]) -> None:
        self.accepts.add_each(
            [
                (item.row["channel"], RESULTS[result.conflict, result.replayed])
                for item, result in zip(items, results, strict=True)
                if isinstance(result, Accepted)
            ]
        )

    def _received(self, items: Sequence[Any], results: Sequence[Any]) -> None:
        self.inbox.add_each(
            [
                (item.verified.webhook, item.state if result.new else "repeated")
                for item, result in zip(items, results, strict=True)
                if isinstance(result, Taken)
            ]
        )

    def answer(self, outcome: Outcome, seconds: float | None) -> None:
        """A provider answered, or did not, within so many seconds; None: it answered late."""
        attempt, error = outcome.attempt, outcome.error
        said = "accepted" if error is None else error.reason
        if seconds is None:
            self.late.add(attempt.provider, said)
        else:
            self.attempts.add(attempt.provider, said)
            self.sends.add(seconds, attempt.provider)
        row = attempt.due.message
        if error is None and row.get("created_at") is not None:
            due = max(row["created_at"], row.get("send_at") or 0)
            waited = max(0.0, self._now() - due) / 1000
            self.handovers.add(waited, attempt.provider, row["channel"])

    def _now(self) -> float:
        """The time of day in milliseconds, asked for once a second and counted on from there:
        that takes a tenth of the time."""
        count = self._clock.monotonic()
        if count >= self._asks_again:
            self._asks_again = count + 1.0
            self._ahead = to_ms(self._clock.now()) - count * 1000
        return count * 1000 + self._ahead

    def verdict(self, webhook: str, verdict: str) -> None:
        """What became of a webhook request."""
        name = webhook.partition("/")[0]  # without the connection
        self.verdicts.add(name if name in self._names else OTHER, verdict)

    def storing(self, receive: Receive) -> Receive:
        """The same as `receive`, timed."""

        async def timed(webhook: Webhook, verified: Verified) -> None:
            started = time.perf_counter()
            await receive(webhook, verified)
            self.stores.add(time.perf_counter() - started, webhook.name)

        return timed

    def counts(self) -> list[Counts]:
        """Everything that is counted."""
        return [made for made in vars(self).values() if isinstance(made, Counts)]

    def spreads(self) -> list[Spread]:
        """Everything that is measured."""
        return [made for made in vars(self).values() if isinstance(made, Spread)]
