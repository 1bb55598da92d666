"""The results of a phase: samples of ours and of the floor, in pairs; their ratio; the bar; the table and the file."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


class BenchError(Exception):
    """A measurement failed, or would be misleading."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar: a bound on the ratio to the floor, or on our own number."""

    kind: Literal["at least", "at most"]
    limit: float
    of: Literal["ratio", "ours"] = "ratio"

    def verdict(self, ratio: float, ours: float) -> str:
        """Return "met", or by what share of the bar it is missed; if the bar is 0, by how much."""
        value = ratio if self.of == "ratio" else ours
        short = (self.limit - value) if self.kind == "at least" else (value - self.limit)
        if short <= 0:
            return "met"
        return f"short by {short / self.limit:.0%}" if self.limit else f"short by {short:,.0f}"

    def __str__(self) -> str:
        """Write the bound as the table shows it."""
        return f"{self.of} {'>=' if self.kind == 'at least' else '<='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A phase's samples. Sample k of ours and sample k of the floor were measured directly after each other."""

    phase: str
    title: str
    unit: str
    bar: Bar
    ours: Sequence[float]
    floor: Sequence[float]
    floor_is: str
    more: dict[str, Any] = field(default_factory=dict[str, Any])
    """Other results for the file: any JSON."""

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios: a machine that slows down slows both of a pair."""
        return median(
            ours / floor if floor else float("inf") for ours, floor in zip(self.ours, self.floor, strict=True)
        )

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        return self.bar.verdict(self.ratio, median(self.ours))

    def document(self) -> dict[str, Any]:
        """Return this phase's object in the file."""
        return {
            "title": self.title,
            "ours": median(self.ours),
            "floor": median(self.floor),
            "ratio": self.ratio,
            "unit": self.unit,
            "repetitions": len(self.ours),
            "floor_is": self.floor_is,
            "bar": str(self.bar),
            "verdict": self.verdict,
            "samples": {"ours": list(self.ours), "floor": list(self.floor)},
            **self.more,
        }

    def line(self) -> str:
        """Return the phase's line of the table."""
        return (
            f"{self.phase:<12} {spread(self.ours):>27} {spread(self.floor):>27} {self.ratio:>7.2f} {self.unit:<12}"
            f" {self.bar!s:<14} {self.verdict:<13} {self.title}"
        )


HEAD = (
    f"{'phase':<12} {'ours: median (range)':>27} {'floor: median (range)':>27} {'ratio':>7} {'unit':<12}"
    f" {'bar':<14} {'verdict':<13} what"
)


def spread(values: Sequence[float]) -> str:
    """Write a median with its range."""
    form = ",.0f" if median(values) >= 100 else ".2f"  # noqa: PLR2004 - three digits say enough
    middle = format(median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}-{max(values):{form}})"


def worst_but_one(values: Iterable[float]) -> float:
    """Return the second highest: one claim may do the work for all others."""
    return sorted(values)[-2]


def say(line: str = "") -> None:
    """Print a line at once: a run takes minutes, and is read while it runs."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def save(comparisons: Iterable[Comparison], file: Path) -> None:
    """Write ``{phase: {ours, floor, ratio, unit, repetitions, ...}}``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({c.phase: c.document() for c in comparisons}, indent=1) + "\n")
