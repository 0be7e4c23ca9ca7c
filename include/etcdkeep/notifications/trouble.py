"""
Once a day and not once a try: what is remembered of a trouble, and what follows from it.

A trouble is remembered from its first event to the recovery: on which day (UTC) people were last told, and who could not be
reached. Without memory there is no trouble.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import date


@dataclass(frozen=True)
class Trouble:
    """
    A trouble that people know of.

    :param day: When they were last told.
    :param missed: Names of those who could not be reached that day.
    """

    day: str
    missed: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return it as text."""
        return json.dumps({"day": self.day, "missed": list(self.missed)})


def read_trouble(text: str | None) -> Trouble | None:
    """Return what was remembered. What cannot be read counts as a trouble that nobody was told of today."""
    if text is None:
        return None
    try:
        found = json.loads(text)
        return Trouble(str(found["day"]), tuple(str(name) for name in found.get("missed") or ()))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Trouble("")


def whom_to_tell(known: Trouble | None, today: date, names: Collection[str]) -> tuple[str, ...]:
    """Return who is told of a trouble that is there: everybody on the first occasion of a day, then those who were missed."""
    if known is not None and known.day == today.isoformat():
        return tuple(name for name in names if name in known.missed)
    return tuple(names)
