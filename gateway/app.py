"""The composition root: settings in, store and adapters and worker out; `gateway.asgi` puts the
HTTP application over it.

Everything else is given what it needs from here; nobody else looks into the catalogue.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from gateway import backfill, catalog, lookups, prices
from gateway._spool_drain import Drain
from gateway.adapters import adapters, file_store
from gateway.backfill import BackfillWorker
from gateway.breaker import Policy
from gateway.circuits import Circuits
from gateway.clock import SystemClock
from gateway.confirmations import ConfirmationWorker
from gateway.domain import Backfills, Clock, Confirms, LooksUp, MediaFetcher, Warms
from gateway.estimates import Estimates
from gateway.events import Hub
from gateway.fetched import readings
from gateway.files import Incoming
from gateway.foresight import Foresight
from gateway.gestures import Gestures
from gateway.inbound import Inbound
from gateway.indexing import Indexer
from gateway.links import Links
from gateway.lookups import LookUpWorker
from gateway.mail import MailWorker
from gateway.media import MediaRetention, MediaWorker
from gateway.metrics import Metrics
from gateway.outbound import Outbound
from gateway.own_files import OwnFiles
from gateway.references import References
from gateway.restores import Restores
from gateway.rounds import Rounds
from gateway.scrape import Scrape
from gateway.sending import Limits
from gateway.settings import Environment, Settings
from gateway.spool import Spool
from gateway.store.batcher import Batcher
from gateway.store.breakers import TOPIC
from gateway.store.database import Database
from gateway.store.listener import Listener
from gateway.store.reader import Reader
from gateway.store.retention import PIECE, PRUNE, Kept
from gateway.store.statistics import POLL, REFRESH, NotLookedAt
from gateway.switchboard import Switchboard
from gateway.templates import Templates
from gateway.thumbnails import Thumbnails
from gateway.unsubscribes import Unsubscribes
from gateway.uploads import Uploads
from gateway.worker import Worker
from providers._http import Http

log = logging.getLogger("gateway")


@dataclass(kw_only=True)
class Gateway:
    """One process: its store, its adapters, its worker, its API."""

    environment: Environment
    clock: Clock = field(default_factory=SystemClock)
    serving: bool = True
    working: bool = True

    def __post_init__(self) -> None:
        settings = self.environment.settings
        self.settings = settings
        self.prices = prices.load(settings.prices_file, catalog.providers())
        self.http = Http()
        self.adapters = adapters(self.environment, self.http)
        self.metrics = Metrics(
            self.clock, hook_names(), self.adapters.providers, self.adapters.webhooks
        )
        self.estimates = Estimates(self.clock, self.prices)
        self.database = Database(settings.store_url, retry=settings.retry)
        self.batcher = Batcher(self.database, self._committed, self.metrics.batch)
        # Where several may write at once, what nobody waits for holds nobody up.
        self.aside = (
            self.batcher
            if self.database.sqlite
            else Batcher(self.database, self._committed, self.metrics.batch)
        )
        self.reader = Reader(self.database)
        self.hub = Hub(self.reader)
        self.listener = Listener(self.database, self._committed)
        self._files()
        self._receiving()
        self._sending()
        self._beside()

    def _files(self) -> None:
        """What keeps files, takes them and gives them."""
        settings = self.settings
        self.files = file_store(self.environment)
        self.incoming = Incoming(settings.data_dir / "media")
        self.uploads = Uploads(
            self.batcher, self.files, self.incoming, most=settings.media_max_bytes
        )
        self.thumbnails = Thumbnails(self.files)
        self.links = Links(self.batcher, self.reader, self.clock, settings.origin)
        self.unsubscribes = Unsubscribes(self.batcher, self.reader, settings.reachable)
        self.own_files = OwnFiles(self.reader, self.files, self.links, settings.origin)

    def _receiving(self) -> None:
        """What takes webhooks."""
        settings = self.settings
        self.spool = Spool(settings.spool, settings.spool_max_bytes) if self.serving else None
        self.inbound = Inbound(
            self.batcher,
            self.adapters.connections,
            spool=self.spool,
            webhooks=self.adapters.webhooks,
        )
        self.drain = Drain(self.spool, self.batcher, self.inbound) if self.spool else None

    def _sending(self) -> None:
        """What accepts and sends messages."""
        settings, made = self.settings, self.adapters
        self.circuits = Circuits(
            self.batcher, self.reader, made.routes, self.clock, policy=policy(settings)
        )
        self.templates = Templates(
            made.providers, made.chains, self.clock, within=settings.send_timeout
        )
        foresight = Foresight(made.providers, self.templates)
        self.board = Switchboard(
            self.circuits,
            made.routes,
            made.chains,
            seats=settings.worker_seats,
            foresight=foresight,
        )
        self.worker = Worker(
            self.batcher,
            made.providers,
            self.board,
            self.clock,
            limits(settings),
            origin=settings.origin,
            own_files=self.own_files,
            estimates=self.estimates,
            unsubscribes=self.unsubscribes,
            on_answer=self.metrics.answer,
            only_process=self.database.sqlite,
        )
        self.outbound = Outbound(
            self.batcher,
            made.chains,
            self.clock,
            region=settings.default_region,
            expiry=settings.message_expiry,
            idempotency=settings.idempotency_retention,
            local=self.worker if self.working else None,
            own_files=self.own_files,
            foresight=foresight,
            references=References(self.reader, made.providers),
            reachable=settings.reachable is not None,
        )

    def _beside(self) -> None:
        """What is done beside requests and sends."""
        made = self.adapters
        self.scrape = self._scrape()
        limit, age = self.settings.media_max_bytes, self.settings.media_retention
        only = self.database.sqlite
        self.media = MediaWorker(
            self.batcher, self._fetchers(), self.files, limit=limit, only_process=only
        )
        self.mail = MailWorker(
            self.batcher,
            self.reader,
            made.webhooks,
            self.inbound,
            self.files,
            only_process=only,
        )
        old_files = MediaRetention(self.batcher, self.files, self.incoming, self.clock, age)
        self.old_files = Rounds("media retention", old_files.turn, poll=60.0)
        self.confirmations = ConfirmationWorker(
            self.batcher,
            {n: hook for n, hook in made.webhooks.items() if isinstance(hook, Confirms)},
            only_process=only,
        )
        self.gestures = Gestures(made.providers, made.routes, within=self.settings.send_timeout)
        self.look_ups, self.backfill = self._askers()
        self.restores = Restores(
            self.batcher, self.reader, self.settings.spool, on_turn=self.hub.turned
        )
        self.retention = Rounds("retention", self._prune, poll=60.0)
        self.indexer = Indexer(self.aside, self.reader, self.clock.monotonic)
        self.statistics = Rounds("statistics", self._refresh, poll=POLL)
        self.pokes = {
            "events": self._told,
            "queue": self.worker.poke,
            TOPIC: self.circuits.poke,
            "media": self.media.rounds.poke,
            "mail": self.mail.rounds.poke,
            "handshakes": self.confirmations.rounds.poke,
            "templates": self.templates.outdated,
        }

    def _scrape(self) -> Scrape:
        """What this process tells of itself in numbers."""
        made = self.adapters
        return Scrape(
            self.metrics,
            self.reader,
            self.clock,
            providers=made.providers,
            known=[entry.name for entry in catalog.CATALOG],
            failing=lambda: self.batcher.failing,
            spool=self.spool,
            quotas={
                n: one.capabilities.daily or 0
                for n, one in made.routes.items()
                if one.capabilities.daily
            },
        )

    def _askers(self) -> tuple[LookUpWorker, BackfillWorker]:
        """Who asks vendors that can be asked, beside sending."""
        made, settings = self.adapters, self.settings
        read = readings(made.providers, made.routes, made.webhooks, self.inbound)
        looking = {
            name: lookups.Source(provider, read[name])
            for name, provider in made.providers.items()
            if name in read and provider.capabilities.can_look_up and isinstance(provider, LooksUp)
        }
        telling = {
            name: backfill.Source(provider, read[name])
            for name, provider in made.providers.items()
            if name in read and isinstance(provider, Backfills)
        }
        return (
            LookUpWorker(
                self.batcher,
                looking,
                self.clock,
                after=settings.lookup_after,
                lease=settings.lease_time,
                shut=self.circuits.shut,
            ),
            BackfillWorker(self.batcher, telling, self.clock, after=settings.backfill_after),
        )

    def _fetchers(self) -> dict[str, MediaFetcher]:
        from gateway.simulation import SimulatedMedia

        if not self.settings.development:
            return self.adapters.fetchers
        simulated = SimulatedMedia(self.settings.data_dir)
        return {
            id_: self.adapters.fetchers.get(id_, simulated) for id_ in self.adapters.connections
        }

    def _told(self) -> None:
        """The feed has grown."""
        self.hub.poke()
        self.indexer.poke()

    def _committed(self, topics: set[str]) -> None:
        """Something was written, here or elsewhere: wake those whom it concerns."""
        for topic in topics & self.pokes.keys():
            self.pokes[topic]()

    async def start(self) -> None:
        """Starts what runs beside the requests."""
        self.batcher.start()
        if self.aside is not self.batcher:
            self.aside.start()
        if self.spool is not None and self.drain is not None:
            await self.spool.start()
            self.drain.start()
        await self.restores.start()
        await self.listener.start()
        await self.circuits.start()
        if self.serving:
            await self.hub.start()
            self.backfill.start()
        if self.working:
            await self.circuits.hurry()
            await self.worker.start()
            self.media.rounds.start()
            self.mail.rounds.start()
            self.confirmations.rounds.start()
            self.look_ups.start()
            self.retention.start()
            self.indexer.rounds.start()
            if not self.database.sqlite:
                self.statistics.start()
            self.old_files.start()

    def warm(self) -> None:
        """Loads what the first sends and webhooks need, on a thread: a start does not wait."""
        hooks = self.adapters.webhooks.values() if self.serving else ()
        for adapter in (*self.adapters.providers.values(), *hooks):
            if isinstance(adapter, Warms):
                adapter.warm()

    async def stop(self) -> None:
        """Ends everything: streams, claims, what is in flight, then the store."""
        if self.serving:
            await self.hub.stop()
            await self.backfill.stop()
        if self.working:
            await self.old_files.stop()
            await self.statistics.stop()
            await self.indexer.rounds.stop()
            await self.retention.stop()
            await self.look_ups.stop()
            await self.confirmations.rounds.stop()
            await self.mail.stop()
            await self.media.rounds.stop()
            await self.worker.stop(self.settings.shutdown_timeout)
        await self.gestures.stop()
        for provider in self.adapters.providers.values():
            await provider.aclose()
        await self.thumbnails.aclose()
        await self.files.aclose()
        await self.http.aclose()
        await self.circuits.stop()
        await self.listener.stop()
        await self.restores.stop()
        if self.spool is not None and self.drain is not None:
            await self.drain.stop()
            await self.spool.stop()
        if self.aside is not self.batcher:
            await self.aside.stop()
        await self.batcher.stop()
        self.reader.close()
        self.database.close()

    async def _refresh(self) -> bool:
        """Has PostgreSQL look at tables that grow fast. There is no more of it at once: a role
        that does not own them is not listened to."""
        try:
            await self.aside.submit(REFRESH, None)
        except NotLookedAt as error:
            log.info("PostgreSQL did not look at the table %s; it will by itself", error)
        return False

    async def _prune(self) -> bool:
        """Takes a piece of what is old; whether there may be more."""
        more = await self.batcher.submit(PRUNE, kept(self.settings)) >= PIECE
        if more:
            await asyncio.sleep(1)  # there is no hurry
        return more


def policy(settings: Settings) -> Policy:
    """When a breaker opens, and for how long."""
    return Policy(
        failures=settings.breaker_failures,
        messages=settings.breaker_messages,
        open_for=int(settings.breaker_open_for * 1000),
        successes=settings.breaker_successes,
        probe=int(settings.lease_time * 1000),
    )


def limits(settings: Settings) -> Limits:
    """The worker's limits."""
    return Limits(
        seats=settings.worker_seats,
        send=settings.send_timeout,
        lease=settings.lease_time,
        poll=settings.worker_poll,
        receipts=settings.receipt_timeout,
        retry=settings.retry,
    )


def kept(settings: Settings) -> Kept:
    """How long things are kept. A receipt of nobody's may find its attempt for as long as one may
    be waited for."""
    inbox = settings.inbox_retention
    spans = (settings.events_retention, inbox, max(inbox, settings.receipt_timeout))
    return Kept(*(int(span * 1000) for span in spans))


def hook_names() -> set[str]:
    """Every name that a webhook's route may have."""
    names = {"sms", "whatsapp"}
    for entry in catalog.CATALOG:
        names |= {entry.name, entry.family}
    return names
