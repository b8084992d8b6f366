"""`gateway doctor`: looks at everything that has to be right, and says what to do where it is not.

Looks run beside each other, each in bounded time, and none stops another. Shows no secret.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar

import typer

from gateway.commands import checkup
from gateway.commands.checkup import ok, problem
from gateway.commands.terminal import Failure, say, visible
from gateway.commands.webhooks import without_password
from gateway.domain import Finding, Level
from gateway.errors import SettingsError

if TYPE_CHECKING:
    from gateway.adapters import Adapters
    from gateway.commands.asking import Dated
    from gateway.settings import Environment

WITHIN = 20.0  # seconds for one look
WIDEST = 32  # of the column of subjects; an ARN stands out of it

FIXES = {
    "settings": checkup.START,
    "database": "look at the server and at DATABASE_URL; at the disk, for SQLite",
    "folders": "look at the disk",
    "vendors": "look at DNS and the firewall",
}

T = TypeVar("T")
Grouped: TypeAlias = tuple[str, Finding]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def doctor(as_json: AsJson = False) -> None:
    """Look at the set-up: settings, folders, database, address, vendors. Exit code 1 if something
    is a problem.

    \b
    Examples:
      gateway doctor
      gateway doctor --json
    """
    report = [(group, safe(finding)) for group, finding in examined()]
    (_print_json if as_json else _print)(report)
    if any(finding.level is Level.PROBLEM for _, finding in report):
        raise typer.Exit(1)


@dataclass
class Look(Generic[T]):
    """Something that is looked at, in a thread that a stuck disk or vendor may keep."""

    group: str
    subject: str
    run: Callable[[], T]
    done: Future[T] = field(default_factory=Future)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        threading.Thread(target=self._look, name=f"doctor {self.subject}", daemon=True).start()

    def _look(self) -> None:
        try:
            self.done.set_result(self.run())
        except BaseException as error:
            self.done.set_exception(error)

    def result(self) -> T:
        """What was found.

        Raises:
            TimeoutError: nothing, in time.
        """
        return self.done.result(max(0.0, self.began + WITHIN - time.monotonic()))


@dataclass(frozen=True, kw_only=True)
class Started:
    """What the settings allow to be looked at; `refusal` says why there are no adapters."""

    env: Environment
    origin: str
    http: Dated
    made: Adapters | None = None
    refusal: str = ""


def examined() -> list[Grouped]:
    """Everything that is to be said."""
    try:
        started = Look("Settings", "settings", _start).result()
    except Exception as error:
        return [("Settings", _failed("settings", error))]
    settings = ok("settings", f"readable; GATEWAY_ENV is {started.env.settings.gateway_env}")
    report: list[Grouped] = [("Settings", settings)]
    if started.refusal:
        report.append(("Settings", problem("adapters", started.refusal, checkup.START)))
    for look in _looks(started):
        try:
            report += [(look.group, finding) for finding in look.result()]
        except Exception as error:
            report.append((look.group, _failed(look.subject, error)))
    return report


def _start() -> Started:
    from gateway.adapters import adapters
    from gateway.clock import SystemClock
    from gateway.commands.asking import Dated
    from gateway.commands.client import client

    api = client(None, None)
    started = Started(env=api.env, origin=api.origin, http=Dated(SystemClock()))
    try:
        return replace(started, made=adapters(api.env, started.http, keep=False))
    except (SettingsError, OSError) as error:
        return replace(started, refusal=_reason(error))


def _looks(started: Started) -> list[Look[list[Finding]]]:
    import asyncio

    from gateway.commands.asking import ask

    env, made = started.env, started.made

    def look(
        group: str, subject: str, found: Callable[[], Iterable[Finding]]
    ) -> Look[list[Finding]]:
        return Look(group, subject, lambda: list(found()))

    looks = [
        look("Storage", "folders", lambda: checkup.folders(env)),
        look("Storage", "database", lambda: checkup.database(env)),
        look("Storage", "MEDIA_STORE", lambda: checkup.files(env)),
        look("Access", "API keys", lambda: checkup.keys(env)),
        look("Access", "PUBLIC_URL", lambda: checkup.address(env, started.origin)),
    ]
    if made is not None:
        asked = ask(made, started.http, started.origin)
        looks += [
            look("Sending", "chains", lambda: checkup.senders(env, made)),
            look("Receiving", "webhooks", lambda: checkup.hooks(made)),
            look("Vendors", "vendors", lambda: asyncio.run(asked)),
        ]
    return looks


def _failed(subject: str, error: Exception) -> Finding:
    return problem(subject, _reason(error), FIXES.get(subject, "run it again; then report it"))


def _reason(error: Exception) -> str:
    """Why a look failed. What a library says may hold something secret."""
    if isinstance(error, (Failure, SettingsError)):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"no answer within {WITHIN:g} s"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return f"cannot be looked at ({type(error).__name__})"


def safe(finding: Finding) -> Finding:
    """Without the password that a URL may hold."""
    text, fix = (without_password(part) for part in (finding.text, finding.fix))
    return replace(finding, text=text, fix=fix)


def _print_json(report: list[Grouped]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "group": group,
            "subject": finding.subject,
            "level": finding.level.value,
            "text": finding.text,
            "fix": finding.fix or None,
        }
        for group, finding in report
    ]
    say(json.dumps({"problems": _count(report, Level.PROBLEM), "findings": rows}, indent=1))


def _print(report: list[Grouped]) -> None:
    width = min(WIDEST, max(len(visible(finding.subject)) for _, finding in report))
    for group, grouped in groupby(report, lambda pair: pair[0]):
        say(group)
        for _, finding in grouped:
            subject = visible(finding.subject).ljust(width)
            say(f"  {finding.level.value:<7}  {subject}  {visible(finding.text)}")
            if finding.fix:
                say(f"  {'':<7}  {'':<{width}}  -> {visible(finding.fix)}")
    counts = [_count(report, level) for level in (Level.PROBLEM, Level.WARNING)]
    say(f"\n{counts[0]} to be fixed, {counts[1]} to be known.")


def _count(report: list[Grouped], level: Level) -> int:
    return sum(finding.level is level for _, finding in report)
