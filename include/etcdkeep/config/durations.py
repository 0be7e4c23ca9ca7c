"""Lengths of time as restic writes them: ``2y5m7d3h`` is two years, five months, seven days and three hours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_FORM = re.compile(r"(?:(\d{1,4})y)?(?:(\d{1,5})m)?(?:(\d{1,6})d)?(?:(\d{1,7})h)?")
_FIRST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Duration:
    """A length of time; years and months are those of the calendar."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def before(self, moment: datetime) -> datetime:
        """
        Return the moment so long before another one, in UTC.

        A day that the month does not have runs over into the next month, as in Go's ``AddDate``, which restic uses: one
        month before 31 March is 3 March (2 March in a leap year).
        """
        moment = moment.astimezone(UTC)
        years, months = divmod(moment.year * 12 + moment.month - 1 - self.years * 12 - self.months, 12)
        if years < 1:
            return _FIRST
        first = moment.replace(year=years, month=months + 1, day=1)
        try:
            return first + timedelta(days=moment.day - 1 - self.days, hours=-self.hours)
        except OverflowError:
            return _FIRST

    @property
    def hours_at_least(self) -> float:
        """Hours that it has at the least: a month counts as 28 days. For comparing two of them."""
        return self.hours + 24 * (self.days + 28 * self.months + 365 * self.years)


def parse_duration(text: str) -> Duration:
    """
    Read a duration.

    :raises ValueError: when it is none, or is of no length.
    """
    found = _FORM.fullmatch(text)
    parts = [int(part or 0) for part in found.groups()] if found else []
    if not any(parts):
        raise ValueError(f"{text!r} is not a duration: expected years, months, days and hours such as 36h, 14d or 1y6m")
    return Duration(*parts)
