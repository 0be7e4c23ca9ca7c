"""A benchmark's result as rows: printed as a table, and kept in docs/performance.md."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPETITIONS = 5
Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Row:
    """
    One figure.

    :param target: The value to reach, in words; empty for a figure without one.
    :param reached: Whether the value reaches it; None for a figure without a target.
    """

    what: str
    value: str
    target: str = ""
    reached: bool | None = None

    @property
    def verdict(self) -> str:
        return {None: "", True: "yes", False: "**no**"}[self.reached]


def taking_turns(*works: Callable[[], Measured], repetitions: int = REPETITIONS) -> list[list[Measured]]:
    """
    Return what each work measured, turn by turn, so that the machine's moods hit all alike.

    The first turn warms caches and is not counted.
    """
    measured: list[list[Measured]] = [[] for _ in works]
    for turn in range(repetitions + 1):
        for work, values in zip(works, measured, strict=True):
            value = work()
            if turn:
                values.append(value)
    return measured


def interleaved(*works: Callable[[], float], repetitions: int = REPETITIONS) -> list[float]:
    """Return the median of what each work measured, taking turns."""
    return [statistics.median(values) for values in taking_turns(*works, repetitions=repetitions)]


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Print a result as it comes."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in ("figure", "measured", "target", "reached"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(row.what, row.value, row.target, row.verdict.strip("*"))
    Console(width=160, highlight=False).print(table, "")


def markdown(rows: Sequence[Row]) -> str:
    """Return a result as a table of the page."""
    lines = ["| figure | measured | target | reached |", "|---|---|---|---|"]
    for row in rows:
        cells = (cell.replace("|", "\\|") for cell in (row.what, row.value, row.target, row.verdict))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
