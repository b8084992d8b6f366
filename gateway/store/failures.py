"""What an error of the database means for what was being written, and what is told of it."""

from __future__ import annotations

import logging

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    ProgrammingError,
    StatementError,
    TimeoutError as PoolTimeout,
)

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.database import Again

log = logging.getLogger("gateway.store")

REFUSED = (ProgrammingError, InterfaceError, NotSupportedError)


def settle_errors(error: BaseException) -> str:
    """What a database's error means for the batch: again, item, away, or raise."""
    if isinstance(error, Again):
        return "again"
    if isinstance(error, PoolTimeout):
        return "away"
    if not isinstance(error, StatementError):
        return "item"
    if isinstance(error, DBAPIError):
        code = str(getattr(error.orig, "sqlstate", "") or "")
        if code in ("40001", "40P01"):
            return "again"
        if isinstance(error, (IntegrityError, DataError)) or code.startswith("54"):
            return "item"  # 54: more than the database can take, such as a key of 3,000 bytes
        if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_ERROR":
            return "item"  # a statement that cannot be run
        if not code and isinstance(error, REFUSED) and not error.connection_invalidated:
            return "item"  # the driver could not even write it
        if code.startswith("42") and code != "42501":
            return "item"  # the same on PostgreSQL; 42501: no permission at the moment
        return "away"  # also read-only (25006), as a standby is during a failover
    return "item"


def definite(error: DBAPIError) -> bool:
    """Whether an error at COMMIT certainly means that nothing was committed."""
    code = str(getattr(error.orig, "sqlstate", "") or "")
    if code:  # PostgreSQL answered; 57P0x and 08xxx come from a server that goes away
        return not code.startswith(("57P", "08"))
    name = getattr(error.orig, "sqlite_errorname", "")
    return bool(name.startswith(("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_CONSTRAINT")))


def brief(error: BaseException) -> str:
    """An error's name: what it says may hold a body or an address."""
    return type(getattr(error, "orig", None) or error).__name__


def unwritten(error: Exception, lost: int) -> Exception:
    """What is told of a batch that could not be written; `lost` of its commits were not
    answered."""
    log.error("the database cannot be written: %s", brief(error.__cause__ or error))
    if lost:
        return OutcomeUnknown("whether it was committed could not be learned in time")
    return StoreUnavailable("the database cannot be written")
