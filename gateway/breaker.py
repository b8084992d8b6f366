"""The circuit breaker of one provider, or of one sender at it: a pure state machine.

Closed: everybody may ask. Open: nobody may, until `retry_at`. Half-open: one probe at a time. What
time it is, and luck, are passed in; who stores it, and who is told, is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.errors import NO_ROOM, Breaker, ProviderError

JITTER = 0.1  # of a wait, either way
# Codes of ours for what no vendor has done: our own threads were busy, or we were stopped.
OURS = frozenset({"no_seat", "stopped", "closed", "late", "not_begun", NO_ROOM})


class State(StrEnum):
    """Whether a provider may be asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Sign(StrEnum):
    """What one send tells of the provider itself."""

    WELL = "well"  # it answered us, be it to refuse a message
    FAILED = "failed"  # not reached, or no believable answer
    REFUSED = "refused"  # it refuses us, or has had no room for long
    NOTHING = "nothing"  # nobody was asked


@dataclass(frozen=True, slots=True)
class Policy:
    """When it opens, and for how long. Times in milliseconds."""

    failures: int = 5  # in a row,
    messages: int = 3  # of so many different messages
    open_for: int = 60_000
    longest: int = 600_000  # what the wait grows to while probes fail
    successes: int = 2  # probes in a row that close it
    probe: int = 60_000  # how long one probe may take before another process makes the next


@dataclass(frozen=True, slots=True)
class Circuit:
    """Where a breaker stands. Times in milliseconds of the database's clock."""

    state: State = State.CLOSED
    failures: int = 0  # in a row
    messages: tuple[str, ...] = ()  # that failed, as many as have to be told apart
    successes: int = 0  # of probes, in a row
    openings: int = 0  # since it was last closed
    opened_at: int | None = None
    retry_at: int = 0
    probe_token: str | None = None
    probe_until: int = 0
    error_reason: str | None = None  # the last error's class,
    error_code: str | None = None  # and code


def sign_of(error: ProviderError | None, *, sustained: bool = False) -> Sign:
    """What an answer says about the provider. `sustained`: it has had no room for long, or not
    even for a probe; one throttled message among others says nothing."""
    if error is None:
        return Sign.WELL
    if error.code in OURS:
        return Sign.NOTHING
    if error.breaker is Breaker.OPENS:
        return Sign.REFUSED
    if error.breaker is Breaker.COUNTS:
        return Sign.FAILED
    if error.breaker is Breaker.SUSTAINED:
        return Sign.REFUSED if sustained else Sign.NOTHING
    # A refusal that was told to say nothing, unlike its class, came before the vendor was asked.
    refused = error.ends_message and "breaker" not in vars(error)
    spoke = error.breaker is Breaker.BLOCKS_SENDER or refused
    return Sign.WELL if spoke else Sign.NOTHING


def heard(
    circuit: Circuit,
    sign: Sign,
    *,
    message: str,
    now: int,
    luck: float,
    policy: Policy,
    token: str | None = None,
    error: tuple[str, str] | None = None,
) -> Circuit:
    """The breaker after an answer. While it is not closed only the probe under way counts: what
    was begun earlier tells of earlier. `luck` is between 0 and 1."""
    if circuit.state is State.CLOSED:
        return _counted(circuit, sign, message, error, now, luck, policy)
    if token is None or token != circuit.probe_token:
        return circuit
    free = replace(circuit, probe_token=None, probe_until=0)
    if sign is Sign.NOTHING:
        return free
    if sign is Sign.WELL:
        if circuit.successes + 1 >= policy.successes:
            return _closed(circuit)
        return replace(free, successes=circuit.successes + 1)
    return _opened(_noted(free, message, error, policy), now, luck, policy)


def _counted(
    circuit: Circuit,
    sign: Sign,
    message: str,
    error: tuple[str, str] | None,
    now: int,
    luck: float,
    policy: Policy,
) -> Circuit:
    if sign is Sign.WELL:
        return _closed(circuit) if circuit.failures else circuit
    if sign is Sign.NOTHING:
        return circuit
    noted = _noted(circuit, message, error, policy)
    many = noted.failures >= policy.failures and len(noted.messages) >= policy.messages
    return _opened(noted, now, luck, policy) if many or sign is Sign.REFUSED else noted


def _noted(
    circuit: Circuit, message: str, error: tuple[str, str] | None, policy: Policy
) -> Circuit:
    seen = circuit.messages
    if message not in seen and len(seen) < policy.messages:
        seen = (*seen, message)
    reason, code = error or (None, None)
    return replace(
        circuit,
        failures=circuit.failures + 1,
        messages=seen,
        error_reason=reason,
        error_code=code,
    )


def _closed(circuit: Circuit) -> Circuit:
    return Circuit(error_reason=circuit.error_reason, error_code=circuit.error_code)


def _opened(circuit: Circuit, now: int, luck: float, policy: Policy) -> Circuit:
    longest = max(policy.longest, policy.open_for)
    wait = min(policy.open_for * 2 ** min(circuit.openings, 30), longest)
    wait = int(wait * (1 - JITTER + 2 * JITTER * luck))
    return replace(
        circuit,
        state=State.OPEN,
        successes=0,
        openings=circuit.openings + 1,
        opened_at=now,
        retry_at=now + wait,
        probe_token=None,
        probe_until=0,
    )


def may_probe(circuit: Circuit, now: int) -> bool:
    """Whether the next message may be a probe: its time has come, and no other is under way."""
    due = circuit.state is not State.CLOSED and circuit.retry_at <= now
    return due and (circuit.probe_token is None or circuit.probe_until <= now)


def probing(circuit: Circuit, token: str, now: int, policy: Policy) -> Circuit | None:
    """The breaker with a probe under way; None: not now."""
    if not may_probe(circuit, now):
        return None
    until = now + policy.probe
    return replace(circuit, state=State.HALF_OPEN, probe_token=token, probe_until=until)


def hurried(circuit: Circuit, now: int) -> Circuit:
    """The breaker after somebody has repaired something: it may be probed at once."""
    if circuit.state is State.CLOSED or circuit.retry_at <= now:
        return circuit
    return replace(circuit, retry_at=now, openings=0)


def free_at(circuit: Circuit, now: int) -> int:
    """When it may be asked again at the earliest."""
    if circuit.state is State.CLOSED:
        return now
    return max(now, circuit.retry_at, circuit.probe_until)


def shown(circuit: Circuit, now: int) -> State:
    """Its state for people: what may be probed is half-open, though nobody had reason to yet."""
    due = circuit.state is State.OPEN and circuit.retry_at <= now
    return State.HALF_OPEN if due else circuit.state
