"""Tables for people, JSON for programs, progress on long work."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from etcdkeep.plain_text import NUMBER_LIMIT, OUT_OF_RANGE, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CELL_CHARS = 300
"""The longest name that Kubernetes or a store allows has 253."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=True))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; in a pipe nothing is wrapped, and only a cell that no table can hold is cut."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(
            column,
            no_wrap=True,
            justify="right" if column in ("size", "stored", "plain", "revision", "keys", "live", "age") else "left",
        )
    for row in rows:
        table.add_row(*(Text(one_line(cell, CELL_CHARS)) for cell in row))  # a plain str would be rich's mark-up
    Console(width=None if sys.stdout.isatty() else 400, highlight=False, soft_wrap=True).print(table)


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal's standard error; yields a function of (bytes done, bytes in all)."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(one_line(description, CELL_CHARS), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total if 0 <= total < NUMBER_LIMIT else None)


def size(size_bytes: int | None) -> str:
    """Return a size for people, binary units."""
    if size_bytes is None:
        return "-"
    if not 0 <= size_bytes < NUMBER_LIMIT:
        return OUT_OF_RANGE
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def age(seconds: float) -> str:
    """Return an age for people."""
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return (
        f"{minutes // 60} h {minutes % 60:02} min"
        if minutes < 48 * 60
        else f"{minutes // 1440} d {minutes % 1440 // 60} h"
    )
