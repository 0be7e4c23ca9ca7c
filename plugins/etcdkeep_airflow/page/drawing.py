"""Words and small pictures for the templates. Pictures are SVG made of numbers alone: nothing that was read gets into their source."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from markupsafe import Markup

from etcdkeep.overview.calendar import BAD, GOOD, MISSED, REMOVED, UNREAD
from etcdkeep.plain_text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MARKS = (
    (GOOD, "good", 0, 20),
    (BAD, "bad", 10, 10),
    (MISSED, "missed", 0, 6),
    (REMOVED, "removed", 0, 20),
    (UNREAD, "unread", 9, 2),
)
"""Letter, class, top and height: a mark is known by its shape too, not by colour alone."""
_WORDS = {
    GOOD: "good",
    BAD: "bad",
    MISSED: "missed",
    REMOVED: "removed by retention",
    UNREAD: "not read yet",
    "-": "no backup was due",
}
BAR_PX, STRIP_PX = 1.5, 20


def age(at: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago something was, or until it is, as ``2 h 05 min``."""
    if at is None:
        return "never"
    return span(abs(((now or datetime.now(UTC)) - at).total_seconds()))


def until(at: datetime | None, past: str = "overdue for {}") -> str:
    """Return when something is to come, or in the words of `past` for how long it has been over."""
    if at is None:
        return "–"
    left = (at - datetime.now(UTC)).total_seconds()
    return f"in {span(left)}" if left >= 0 else past.format(span(-left))


def span(seconds: float | None) -> str:
    """Return seconds in words."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    return (
        f"{minutes // 60} h {minutes % 60:02} min"
        if minutes < 2880
        else f"{minutes // 1440} d {minutes % 1440 // 60} h"
    )


def size(value: int | None) -> str:
    """Return bytes in words."""
    if value is None:
        return "–"
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if units[0] == "B" or amount >= 100 else f"{amount:.1f} {units[0]}"


def moment(at: datetime | None) -> str:
    """Return a time in UTC."""
    return "–" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def count(value: int | None) -> str:
    """Return a number for people."""
    return "–" if value is None else number(value)


def strip(calendar: str) -> Markup:
    """Return the last days as thin bars, today on the right."""
    width = round(len(calendar) * BAR_PX)
    paths = []
    for letter, word, top, height in _MARKS:
        bars = "".join(
            f"M{index * BAR_PX:g} {top}h{BAR_PX - 0.3}v{height}h-{BAR_PX - 0.3}z"
            for index, each in enumerate(calendar)
            if each == letter
        )
        if bars:
            paths.append(f'<path class="day-{word}" d="{bars}"/>')
    return Markup(f'<svg class="strip" role="img" aria-label="{in_words(calendar)}" width="{width}" height="{STRIP_PX}" viewBox="0 0 {width} {STRIP_PX}"><title>{in_words(calendar)}</title>{"".join(paths)}</svg>')  # noqa: S704  # fmt: skip


def in_words(calendar: str) -> str:
    """Return what a calendar shows, for those who do not see it."""
    said = [
        f"{calendar.count(letter)} {word}" for letter, word in _WORDS.items() if letter in calendar and letter != "-"
    ]
    return f"last {len(calendar)} days: {', '.join(said) or 'no backup'}"


def sparkline(sizes: Sequence[int], width: int = 90, height: int = 20) -> Markup:
    """Return sizes as a line."""
    if len(sizes) < 2:
        return Markup("")
    low, high = min(sizes), max(sizes)
    scale = (height - 4) / (high - low) if high > low else 0
    base = height - 2 if high > low else height / 2
    points = " ".join(
        f"{index * (width - 4) / (len(sizes) - 1) + 2:.1f},{base - (each - low) * scale:.1f}"
        for index, each in enumerate(sizes)
    )
    said = f"database of {len(sizes)} backups: from {size(sizes[0])} to {size(sizes[-1])}"
    return Markup(f'<svg class="spark" role="img" aria-label="{said}" width="{width}" height="{height}" viewBox="0 0 {width} {height}"><title>{said}</title><polyline points="{points}"/></svg>')  # noqa: S704  # fmt: skip


def month_grid(calendar: str, first_day: date) -> Markup:
    """Return the last days as weeks, Monday on top."""
    cell, cells, shift = 15, [], first_day.weekday()
    for index, letter in enumerate(calendar):
        day = first_day + timedelta(days=index)
        left, top = (index + shift) // 7 * cell, (index + shift) % 7 * cell
        word = _WORDS.get(letter, "")
        name = next((each for mark, each, _, _ in _MARKS if mark == letter), "none")
        cells.append(
            f'<rect class="day-{name}" x="{left}" y="{top}" width="{cell - 2}" height="{cell - 2}" rx="2"><title>{day:%a %Y-%m-%d}: {word}</title></rect>'
        )
        if letter in (BAD, MISSED):
            cells.append(
                f'<text class="mark" x="{left + (cell - 2) / 2}" y="{top + 10}">{"×" if letter == BAD else "–"}</text>'
            )
    width, height = ((len(calendar) + shift) // 7 + 1) * cell, 7 * cell
    return Markup(f'<svg class="grid90" role="img" aria-label="{in_words(calendar)}" width="{width}" height="{height}" viewBox="0 0 {width} {height}">{"".join(cells)}</svg>')  # noqa: S704  # fmt: skip


def stacked(seconds: Mapping[str, float], longest_s: float, width: int = 320) -> Markup:
    """Return phases as a bar, as long as the longest of all allows; the names are in the legend beside it, not in here."""
    left, parts = 0.0, []
    for index, each in enumerate(seconds.values()):
        part = max(1.0, width * max(0.0, each) / longest_s) if longest_s > 0 else 0.0
        parts.append(f'<rect class="phase-{index % 6}" x="{left:.1f}" y="0" width="{part:.1f}" height="14"/>')
        left += part
    return Markup(f'<svg class="phases" aria-hidden="true" width="{width}" height="14" viewBox="0 0 {width} 14">{"".join(parts)}</svg>')  # noqa: S704  # fmt: skip
