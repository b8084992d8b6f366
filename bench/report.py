"""Tables of what was measured, put between the markers of docs/performance.md, and its plots.

The text around the markers is written by hand and stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.growth import QUESTIONS
from bench.measure import Figure, Subject
from bench.plots import AIMS, NAMES, STORES, named, plot, plot_growth

DOCS = Path(__file__).parent.parent / "docs"
Facts = Mapping[str, Any]
Row = Sequence[str]


def markdown(head: Row, rows: Sequence[Row]) -> str:
    """A table; its first column is text, the others are numbers."""
    rule = ["---", *("---:" for _ in head[1:])]
    lines = [head, rule, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )


def number(value: float, digits: int = 0) -> str:
    """A number as people read it; a dash for none."""
    return "-" if value != value else f"{value:,.{digits}f}"


SOAKED = 8  # rounds that are shown
FOLLOWED = {"sse": "server-sent events", "ws": "WebSocket"}


def verdict(figure: Figure) -> str:
    """Whether the figure counts."""
    return "yes" if not figure.wrong else "no: " + "; ".join(sorted(set(figure.wrong)))


def ratio(figure: Figure) -> str:
    """The median of a ratio, with its lowest and highest turn."""
    low, high = figure.spread("ratio")
    return f"{figure.median('ratio'):.2f} ({low:.2f} to {high:.2f})"


def throughput(figures: Sequence[Figure], what: str) -> str:
    """Requests in a second: in full for the number of clients that is judged, then the rest."""
    judged = figures[0].clients
    head = (
        f"{judged} clients",
        what,
        "of bare",
        "p50 ms",
        "p99 ms",
        "server CPU µs",
        "rows checked",
    )
    rows = [
        (
            named(f.subject),
            number(f.median("rate")),
            ratio(f),
            number(f.median("p50"), 1),
            number(f.median("p99"), 1),
            number(f.median("cpu")),
            verdict(f),
        )
        for f in figures
        if f.clients == judged
    ]
    return markdown(head, rows) + _by_clients(figures, judged)


def _by_clients(figures: Sequence[Figure], judged: int) -> str:
    numbers = sorted({f.clients for f in figures})
    if len(numbers) == 1:
        return ""
    by = {(f.subject, f.clients): f for f in figures}
    head = ("in a second, and p99 in ms, by clients", *map(str, numbers))
    rows = [
        (named(subject), *(_cell(by.get((subject, n))) for n in numbers))
        for subject in dict.fromkeys(f.subject for f in figures)
    ]
    return "\n\n" + markdown(head, rows)


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    sign = " (!)" if figure.wrong else ""
    return f"{number(figure.median('rate'))} ({number(figure.median('p99'), 1)}){sign}"


def certificates(figures: Sequence[Figure]) -> str:
    """What a certificate costs that is not at hand."""
    names = ("first", "cold", "cold_worst", "warm", "warm_p99")
    head = (
        "one client, ms",
        "first of the process",
        "new certificate, p50",
        "worst",
        "certificate at hand, p50",
        "p99",
        "rows and fetches checked",
    )
    rows = [
        (named(f.subject), *(number(f.median(name), 1) for name in names), verdict(f))
        for f in figures
    ]
    return markdown(head, rows)


def stream(figures: Sequence[Figure]) -> str:
    """From a webhook to the feed."""
    head = ("from due to seen", "p50 ms", "p99 ms", "worst ms", "p99 of the answer", "each once")
    rows = [
        (
            named(f.subject),
            *(number(f.median(name), 1) for name in ("p50", "p99", "worst", "answered_p99")),
            verdict(f),
        )
        for f in figures
    ]
    return markdown(head, rows)


def followers(figures: Sequence[Figure]) -> str:
    """A crowd on the feed."""
    head = (
        f"{figures[0].clients:,} clients",
        "told in a second",
        "p50 ms",
        "p99 ms",
        "worst ms",
        "KB a client, open",
        "after the run",
        "µs an event",
        "server's core",
        "each once",
    )
    rows = [
        (
            f"{FOLLOWED[f.subject.kind]}, {f.median('asked'):,.0f} events/s",
            number(f.median("rate")),
            *(number(f.median(name), 1) for name in ("p50", "p99", "worst")),
            *(number(f.median(name)) for name in ("opened", "after")),
            number(f.median("cpu"), 1),
            f"{f.median('share'):.0%}",
            verdict(f),
        )
        for f in figures
    ]
    return markdown(head, rows)


def end_to_end(figures: Sequence[Figure]) -> str:
    """From the first POST to the last outcome."""
    head = ("", "messages/s", "of bare", "accepts/s meanwhile", "server CPU µs", "each once")
    rows = [
        (
            named(f.subject),
            number(f.median("rate")),
            ratio(f),
            number(f.median("accepted_rate")),
            number(f.median("cpu")),
            verdict(f),
        )
        for f in figures
    ]
    return markdown(head, rows)


def failover(figures: Sequence[Figure]) -> str:
    """From one provider to the next."""
    words = {
        "failover": "from a refusal until the next has it",
        "passed": "from due until the second has it, the first one's breaker open",
        "alone": "the same without a first one",
    }
    head = ("", "p50 ms", "p99 ms", "worst ms", "each once")
    rows = [
        (
            f"{STORES[f.subject.store]}, {words[f.subject.kind]}",
            *(number(f.median(name), 2) for name in ("p50", "p99", "worst")),
            verdict(f),
        )
        for f in figures
    ]
    half = {f.subject: f.median("p50") for f in figures}
    costs = [
        f"{number(value - half[Subject('alone', subject.store)], 2)} ms ({STORES[subject.store]})"
        for subject, value in half.items()
        if subject.kind == "passed"
    ]
    said = f"Passing over an open breaker costs {' and '.join(costs)} at the median."
    return f"{markdown(head, rows)}\n\n{said}"


def growth(figures: Sequence[Figure]) -> str:
    """How long questions take while the store grows."""
    sizes = list(dict.fromkeys(f.clients for f in figures))
    by = {(f.subject, f.clients): f for f in figures}
    head = ("p50 and p99 in ms, by messages in the store", *(f"{size:,}" for size in sizes))
    rows = [
        (f"{STORES[subject.store]}, {name}", *(_times(by.get((subject, n)), name) for n in sizes))
        for subject in dict.fromkeys(f.subject for f in figures)
        for name in QUESTIONS
    ]
    checked = [verdict(f) for f in figures if f.wrong]
    return markdown(head, rows) + "".join(f"\n\n{text}" for text in checked)


def _times(figure: Figure | None, name: str) -> str:
    if figure is None:
        return "-"
    return f"{figure.median(f'{name} p50'):.1f}, {figure.median(f'{name} p99'):.1f}"


def start(figures: Sequence[Figure]) -> str:
    """How long a start takes."""
    words = {
        "new": "`gateway serve`, empty folder",
        "gateway": "`gateway serve`, folder in use",
        "bare": NAMES["bare"],
        "usual": "usual stack, SQLite",
    }
    head = ("", "first /health, ms", "first 202, ms", "slowest 202, ms")
    rows = [
        (
            words[f.subject.kind],
            number(f.median("healthy")),
            number(f.median("accepted")),
            number(f.spread("accepted")[1]),
        )
        for f in figures
    ]
    return markdown(head, rows)


def memory(figures: Sequence[Figure]) -> str:
    """What a process holds."""
    head = ("resident, MB", "idle", "after", "messages")
    rows = [
        (
            NAMES[f.subject.kind],
            number(f.median("idle")),
            number(f.median("after")),
            number(f.median("messages")),
        )
        for f in figures
    ]
    return markdown(head, rows)


def soak(figures: Sequence[Figure]) -> str:
    """One process for long: what it holds after each of some rounds."""
    (figure,) = figures
    head = ("after messages", "sent/s", "received/s", "MB", "open files", "threads", "each once")
    chosen = {round((i + 1) * len(figure.turns) / SOAKED) for i in range(SOAKED)} - {0}
    rows = [
        (
            f"{each['messages']:,.0f}",
            *(number(each[name]) for name in ("rate", "heard", "memory", "open", "threads")),
            verdict(figure) if place == len(figure.turns) else "",
        )
        for place, each in enumerate(figure.turns, 1)
        if place in chosen
    ]
    return markdown(head, rows)


TABLES: Mapping[str, Callable[[Sequence[Figure]], str]] = {
    "accepts": lambda figures: throughput(figures, "accepts/s"),
    "webhooks": lambda figures: throughput(figures, "webhooks/s"),
    "sns": lambda figures: throughput(figures, "webhooks/s"),
    "sns-certificates": certificates,
    "stream": stream,
    "followers": followers,
    "end-to-end": end_to_end,
    "failover": failover,
    "store": growth,
    "start": start,
    "memory": memory,
    "soak": soak,
}
BESIDE = frozenset({"soak"})  # commands of their own


def table(name: str, figures: Sequence[Figure]) -> str:
    """A measurement as a table in Markdown."""
    return TABLES[name](figures)


def environment(facts: Facts) -> str:
    """The machine, in a paragraph."""
    apart = (
        f"Servers on core {facts['server_core']}; the load generator, the vendor and PostgreSQL "
        f"on core {facts['other_core']}."
        if facts["server_core"] != facts["other_core"]
        else "One core for everything: servers, load generator, vendor and PostgreSQL."
    )
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, "
        f"Python {facts['python']}, SQLite {facts['sqlite']}. {apart} "
        f"fdatasync after 4 KiB on {facts['filesystem']}: {facts['sync_ms']:.2f} ms "
        f"(p99 {facts['sync_p99_ms']:.2f}), with the shim {facts['slow_sync_ms']:.2f} ms. "
        f"Before the run {facts['busy']:.0%} of the machine was busy with something else."
    )


def closing(facts: Facts) -> str:
    """What is known at the end of a run."""
    return (
        f"Measured on {facts['day']} in {facts['took'] / 60:.1f} minutes: medians of "
        f"{facts['rounds']} turns of {facts['seconds']} s. The load generator used at most "
        f"{facts['generator']:.0%} of its core"
        + (", so it may have been the limit." if facts["generator"] > 0.85 else ".")
    )


def write(found: Mapping[str, Sequence[Figure]], facts: Facts, docs: Path = DOCS) -> None:
    """Replaces what stands between the markers of what was measured."""
    page = docs / "performance.md"
    text = page.read_text()
    parts = {name: table(name, figures) for name, figures in found.items()}
    if "store" in parts:
        parts["store"] += "\n\n![p99 while the store grows](growth.svg)"
    if found.keys() == TABLES.keys() - BESIDE:
        parts["machine"] = f"{environment(facts)}\n\n{closing(facts)}"
    for name, part in parts.items():
        text = between(text, name, part)
    page.write_text(text)
    if "store" in found:
        plot_growth(found["store"], docs / "growth.svg")
    if "accepts" in found and "webhooks" in found:
        plot({name: found[name] for name in AIMS if name in found}, docs / "performance.svg")


def between(text: str, name: str, part: str) -> str:
    """A text with other words between two markers.

    Raises:
        ValueError: the markers are not there.
    """
    begin, end = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(found.findall(text)) != 1:
        raise ValueError(f"docs/performance.md needs {begin} and {end} once each")
    return found.sub(lambda _: f"{begin}\n{part}\n{end}", text)
