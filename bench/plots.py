"""Plots of what was measured, and what the servers in them are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.growth import QUESTIONS
from bench.measure import Figure, Subject

NAMES = {
    "bare": "bare Starlette",
    "least": "the least",
    "gateway": "gateway",
    "usual": "usual stack",
}
STORES = {"sqlite": "SQLite", "postgres": "PostgreSQL", "": ""}
DISKS = {"here": "this disk", "slow": "fsync + 2 ms"}
AIMS = {"accepts": 0.40, "webhooks": 0.30, "sns": 0.30}
TITLES = {"accepts": "Durable accepts", "webhooks": "Twilio's webhooks", "sns": "SNS's webhooks"}
AIM_MS = 50  # lists and searches, at p99
COLOURS = {"least": "#7fb5a3", "gateway": "#0b6e4f", "usual": "#c8553d", "bare": "#8a8a8a"}


def named(subject: Subject) -> str:
    """A server in words."""
    if subject.kind == "bare":
        return NAMES["bare"]
    return f"{NAMES[subject.kind]}, {STORES[subject.store]}, {DISKS[subject.disk]}"


def plot_growth(figures: Sequence[Figure], path: Path) -> None:
    """Lines of p99 over the messages in the store, a panel for each database."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "bench"
    subjects = list(dict.fromkeys(f.subject for f in figures))
    drawing, axes = pyplot.subplots(
        1, len(subjects), figsize=(1 + 4.5 * len(subjects), 4), squeeze=False, layout="constrained"
    )
    for axis, subject in zip(axes[0], subjects, strict=True):
        mine = [f for f in figures if f.subject == subject]
        sizes = [f.clients for f in mine]
        for name in QUESTIONS:
            axis.plot(sizes, [f.median(f"{name} p99") for f in mine], marker="o", label=name)
        axis.axhline(AIM_MS, color="#333333", linestyle=":", linewidth=1)
        axis.set_xscale("log")
        axis.set_ylim(0, None)
        axis.set_title(STORES[subject.store], fontsize=10)
        axis.set_xlabel("messages in the store")
        axis.set_ylabel("p99, ms")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][-1].legend(fontsize=7, frameon=False)
    drawing.savefig(path, metadata={"Date": None})
    pyplot.close(drawing)


def plot(found: Mapping[str, Sequence[Figure]], path: Path) -> None:
    """Bars of the shares of the bare server, a panel for each that has an aim."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "bench"
    size = (2 + 4 * len(found), 4.2)
    drawing, axes = pyplot.subplots(1, len(found), figsize=size, sharey=True, layout="constrained")
    judged = {name: _judged(figures) for name, figures in found.items()}
    order = list(dict.fromkeys(f.subject for figures in judged.values() for f in figures))
    axes[0].set_yticks(range(len(order)), [named(subject) for subject in order], fontsize=8)
    for axis, (name, figures) in zip(axes, judged.items(), strict=True):
        _bars(axis, figures, [order.index(f.subject) for f in figures], AIMS[name])
        axis.set_title(f"{TITLES[name]} at {figures[0].clients} clients", fontsize=10)
    axes[0].invert_yaxis()
    drawing.savefig(path, metadata={"Date": None})
    pyplot.close(drawing)


def _judged(figures: Sequence[Figure]) -> list[Figure]:
    judged = figures[0].clients
    return [f for f in figures if f.clients == judged and f.subject.kind != "bare"]


def _bars(axis: Any, figures: Sequence[Figure], places: Sequence[int], aim: float) -> None:
    values = [f.median("ratio") for f in figures]
    lows = [f.spread("ratio")[0] for f in figures]
    highs = [f.spread("ratio")[1] for f in figures]
    errors = [
        [max(0.0, v - low) for v, low in zip(values, lows, strict=True)],
        [max(0.0, high - v) for v, high in zip(values, highs, strict=True)],
    ]
    colours = [COLOURS[f.subject.kind] for f in figures]
    axis.barh(places, values, xerr=errors, color=colours, ecolor="#333333", height=0.7)
    axis.axvline(aim, color="#333333", linestyle=":", linewidth=1)
    axis.annotate(f"aim {aim:.2f}", (aim, -0.6), fontsize=8, ha="center")
    for place, high, figure in zip(places, highs, figures, strict=True):
        axis.annotate(f" {figure.median('rate'):,.0f}/s", (high, place), va="center", fontsize=8)
    axis.set_xlim(0, max(0.6, *highs) * 1.15)
    axis.set_xlabel("share of what a bare Starlette server answers")
    axis.spines[["top", "right"]].set_visible(False)
