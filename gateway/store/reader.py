"""Reading from the event loop: a few threads, so that a slow query does not hold up the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError

from gateway.errors import StoreUnavailable
from gateway.store.database import Database
from gateway.store.failures import settle_errors
from gateway.store.tx import Tx

P = ParamSpec("P")
T = TypeVar("T")

LONGEST = 15.0  # seconds


class Reader:
    """Runs queries on a snapshot of their own."""

    def __init__(self, database: Database, threads: int = 4) -> None:
        self.database = database
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="gateway-read")

    async def call(
        self, query: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `query(tx, …)` in a reading transaction.

        Raises:
            StoreUnavailable: the database does not answer. What is wrong with the query, or with
                a value in it, is raised as it is.
        """

        def once() -> T:
            with self.database.read() as tx:
                return query(tx, *args, **kwargs)

        def run() -> T:
            try:
                return once()
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                self.database.forget()  # the others of a server that was restarted are gone, too
                return once()

        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LONGEST):
                return await loop.run_in_executor(self._pool, run)
        except Exception as error:
            if isinstance(error, TimeoutError) or settle_errors(error) != "item":
                raise StoreUnavailable("the database cannot be read") from error
            raise

    def close(self) -> None:
        """Ends the threads, after what they are reading: their connections go back first."""
        self._pool.shutdown(cancel_futures=True)
