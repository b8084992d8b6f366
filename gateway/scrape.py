"""What a scrape shows: the counts of this process, and what is read at that moment.

A look at the database is kept for a few seconds, is one at a time and is not waited for long, so
that scraping can neither load a database nor hang on one that is away. Labels hold our own words
only.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from gateway.domain import LANES, Clock
from gateway.metrics import OTHER, Counts, Labels, Metrics, Spread
from gateway.spool import Spool
from gateway.store.depths import Depths, depths
from gateway.store.reader import Reader

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger("gateway.metrics")

KEPT = 5.0  # seconds that a look at the database is good for,
TIMES = 20  # or so many times what it took, so that looking never takes more than a twentieth
PATIENCE = 2.0  # seconds that a scrape waits for one
HERE = "127.0.0.1"
OPENMETRICS = "application/openmetrics-text"
BREAKERS = ("closed", "half_open", "open")
SPOOLED = ("appended", "drained", "refused", "torn", "damaged")
Values = dict[Labels, float]

LANE_NAMES = {number: priority.value for priority, number in LANES.items()}


class Looks:
    """Looks at the database, shared by all who ask."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._seen: Depths | None = None
        self._until = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> Depths | None:
        """What waits; None: the database did not tell in time."""
        if not self._fresh:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(), name="gateway-depths")
            await asyncio.wait({self._looking}, timeout=PATIENCE)
        return self._seen if self._fresh else None

    @property
    def _fresh(self) -> bool:
        return self._clock.monotonic() < self._until

    async def _look(self) -> None:
        started = self._clock.monotonic()
        try:
            self._seen = await self._reader.call(depths)
        except Exception as error:
            log.debug("the queue cannot be counted: %s", error)
        else:
            ended = self._clock.monotonic()
            self._until = ended + max(KEPT, TIMES * (ended - started))


@dataclass(frozen=True, slots=True)
class Moment:
    """What was read for one scrape."""

    depths: Depths | None
    written: bool  # whether the database took what was last written
    streams: int
    spool: Mapping[str, float] | None
    spooled: Mapping[str, int]


class Scrape:
    """Shows a gateway's numbers. `providers` are set up here; `known` are all that may stand in
    labels, others are OTHER."""

    def __init__(
        self,
        metrics: Metrics,
        reader: Reader,
        clock: Clock,
        *,
        providers: Iterable[str],
        known: Iterable[str],
        failing: Callable[[], bool],
        spool: Spool | None,
        quotas: Mapping[str, int] | None = None,
    ) -> None:
        self._metrics = metrics
        self._looks = Looks(reader, clock)
        self._clock = clock
        self._providers = tuple(providers)
        self._known = frozenset(known)
        self._failing = failing
        self._spool = spool
        self._quotas = quotas or {}  # of a day, by provider

    async def page(self, accept: str, streams: int) -> tuple[bytes, str]:
        """Everything as text, and its content type: OpenMetrics for those who accept it."""
        moment = await self.moment(streams)
        return await asyncio.to_thread(self._text, moment, accept)

    async def moment(self, streams: int = 0) -> Moment:
        """Reads what is not counted on the way."""
        spool = self._spool
        return Moment(
            await self._looks.look(),
            not self._failing(),
            streams,
            _fill(spool, self._clock) if spool is not None else None,
            {w: getattr(spool, w) for w in SPOOLED} if spool is not None else {},
        )

    def _text(self, moment: Moment, accept: str) -> tuple[bytes, str]:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry()
        registry.register(_Shown(lambda: self.families(moment)))
        kinds = [part.partition(";")[0].strip() for part in accept.split(",")]
        # Only our own words: the library would repeat a caller's version in its answer.
        encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in kinds else "")
        return encode(registry), content_type

    def listen(self, port: int, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """Answers scrapes on a port of this machine, in threads of its own, without a key;
        returns what ends that. For a process that serves no HTTP otherwise.

        Raises:
            OSError: the port cannot be had.
        """
        from prometheus_client import CollectorRegistry, start_http_server

        def collect() -> list[Metric]:
            reading = asyncio.run_coroutine_threadsafe(self.moment(), loop)
            return self.families(reading.result(PATIENCE * 2))

        registry = CollectorRegistry()
        registry.register(_Shown(collect))
        server, thread = start_http_server(port, HERE, registry)

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return end

    def families(self, moment: Moment) -> list[Metric]:
        """Everything, as the client library has it."""
        shown = [
            *map(_counted, self._metrics.counts()),
            *map(_measured, self._metrics.spreads()),
            _gauge("gateway_event_streams", "Open streams.", (), {(): moment.streams}),
            *self._stored(moment),
            _built(),
            *_process(),
        ]
        return shown if moment.spool is None else [*shown, *_spooled(moment)]

    def _stored(self, moment: Moment) -> list[Metric]:
        seen = moment.depths
        text = "Whether the database answers, and took what was last written."
        up = _gauge("gateway_database_up", text, (), {(): seen is not None and moment.written})
        if seen is None:
            return [up]
        return [up, *self._queue(seen), *self._breakers(seen), self._daily(seen)]

    def _daily(self, seen: Depths) -> Metric:
        left: Values = {
            (self._word(name),): float(max(0, limit - seen.used.get(name, 0)))
            for name, limit in self._quotas.items()
        }
        text = "People who may still be written to, of a daily quota."
        return _gauge("gateway_daily_quota_left", text, ("provider",), left)

    def _queue(self, seen: Depths) -> list[Metric]:
        waiting: Values = {}
        for (lane, route, state), many in seen.waiting.items():
            key = (LANE_NAMES[lane], ",".join(map(self._word, route.split(","))), state)
            waiting[key] = waiting.get(key, 0) + many
        return [
            _gauge(
                "gateway_queue_messages",
                "Messages of the queue.",
                ("lane", "route", "state"),
                waiting,
            ),
            _gauge(
                "gateway_queue_oldest_due_seconds",
                "For how long the oldest message that is due has waited.",
                ("lane",),
                {(name,): seen.oldest.get(number, 0.0) for number, name in LANE_NAMES.items()},
            ),
            _gauge(
                "gateway_unknown_attempts",
                "Attempts whose outcome is unknown.",
                ("provider",),
                self._by_provider(seen.unknown),
            ),
        ]

    def _breakers(self, seen: Depths) -> list[Metric]:
        states = {**dict.fromkeys(self._providers, "closed"), **seen.breakers}
        return [
            _gauge(
                "gateway_breaker_state",
                "1 for the state that a provider's breaker is in.",
                ("provider", "state"),
                {
                    (self._word(provider), state): float(state == now)
                    for provider, now in states.items()
                    for state in BREAKERS
                },
            ),
            _gauge(
                "gateway_blocked_senders",
                "Senders that a provider refuses.",
                ("provider",),
                self._by_provider(seen.blocked),
            ),
        ]

    def _by_provider(self, counts: Mapping[str, int]) -> Values:
        shown: Values = {(provider,): 0.0 for provider in self._providers}
        for provider, count in counts.items():
            key = (self._word(provider),)
            shown[key] = shown.get(key, 0) + count
        return shown

    def _word(self, provider: str) -> str:
        return provider if provider in self._known else OTHER


class _Shown:
    """What a registry asks for its families."""

    def __init__(self, collect: Callable[[], list[Metric]]) -> None:
        self.collect = collect


def _counted(counts: Counts) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(counts.name, counts.text, labels=counts.labels)
    for values, count in counts.read():
        family.add_metric(values, count)
    return family


def _measured(spread: Spread) -> Metric:
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.utils import floatToGoString

    family = HistogramMetricFamily(spread.name, spread.text, labels=spread.labels)
    bounds = [*map(floatToGoString, spread.bounds), "+Inf"]
    for values, counts, total in spread.read():
        family.add_metric(values, list(zip(bounds, counts, strict=True)), total)
    return family


def _gauge(name: str, text: str, labels: Labels, values: Mapping[Labels, float]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _fill(spool: Spool, clock: Clock) -> dict[str, float]:
    return {
        "webhooks": spool.depth,
        "bytes": spool.size,
        "oldest_seconds": spool.age(clock.now()) or 0.0,
    }


def _spooled(moment: Moment) -> list[Metric]:
    from prometheus_client.core import CounterMetricFamily

    texts = {
        "webhooks": "Webhooks in the spool.",
        "bytes": "Their bytes.",
        "oldest_seconds": "For how long the oldest has waited.",
    }
    fill = moment.spool or {}
    shown = [_gauge(f"gateway_spool_{n}", texts[n], (), {(): v}) for n, v in fill.items()]
    total = CounterMetricFamily(
        "gateway_spool_moves_total", "What went in and out of the spool.", labels=("what",)
    )
    for what, count in moment.spooled.items():
        total.add_metric((what,), count)
    return [*shown, total]


def _built() -> Metric:
    from prometheus_client.core import InfoMetricFamily

    try:
        installed = version("messaging-gateway")
    except PackageNotFoundError:
        installed = "0"
    told = {"version": installed, "python": platform.python_version()}
    return InfoMetricFamily("gateway_build", "What runs.", told)


def _process() -> list[Any]:
    from prometheus_client import ProcessCollector

    try:
        return list(ProcessCollector(registry=None).collect())
    except Exception:  # it reads what a system without limits writes in another way
        log.debug("the process cannot be looked at", exc_info=True)
        return []
