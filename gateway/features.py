"""What providers can do, as tables for people: made of their capabilities alone, so that nothing is
claimed that the gateway would refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.domain import Capabilities, Channel, MessageType
from gateway.routing import CHATS, ONE_FILE, types

YES, NO = "yes", "no"

Can = Callable[[Capabilities], object]

CHATTING: tuple[tuple[str, Can], ...] = (
    ("answers that quote a message", lambda can: can.replies),
    ("people who show no number", lambda can: can.user_ids),
    ("read receipts", lambda can: can.marks_read),
    ("typing", lambda can: can.shows_typing),
)
ALWAYS: tuple[tuple[str, Can], ...] = (
    ("HTML", lambda can: can.html),
    ("templates are listed", lambda can: can.lists_templates),
    ("files of people are fetched", lambda can: can.fetches_media),
    ("delivery reports", lambda can: can.reports_delivery),
    ("a lost answer is looked up", lambda can: can.can_look_up),
)


def tables(providers: Mapping[str, Capabilities]) -> str:
    """A table for each channel that somebody has."""
    there = (
        channel for channel in Channel if any(channel in p.channels for p in providers.values())
    )
    return "\n\n".join(_table(channel, providers) for channel in there)


def _table(channel: Channel, providers: Mapping[str, Capabilities]) -> str:
    able = {name: can for name, can in providers.items() if channel in can.channels}
    rows = [(feature, [_word(can(one)) for one in able.values()]) for feature, can in _all(channel)]
    heads = ("", *(f"`{name.partition(' ')[0]}` {name.partition(' ')[2]}".strip() for name in able))
    lines = [heads, ["---"] * len(heads), *((name, *words) for name, words in _some(rows))]
    return f"### {channel}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _all(channel: Channel) -> Iterable[tuple[str, Can]]:
    yield from ((f"`{kind}`", _says(channel, kind)) for kind in MessageType)
    yield "files in one message", _files(channel)
    yield from CHATTING if channel in CHATS else ()
    yield from ALWAYS


def _files(channel: Channel) -> Can:
    most = 1 if channel in ONE_FILE else 1000
    return lambda can: min(can.max_media, most) if channel in can.media else 0


def _says(channel: Channel, kind: MessageType) -> Can:
    return lambda can: kind in types(can, channel)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return YES if value else NO
    return str(value or NO)


def _some(rows: Sequence[tuple[str, list[str]]]) -> Iterable[tuple[str, list[str]]]:
    """Without what nobody can."""
    return (row for row in rows if set(row[1]) != {NO})
