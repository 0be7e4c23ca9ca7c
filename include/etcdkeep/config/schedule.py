"""When a schedule comes: cron expressions and Airflow's presets, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from typing import TYPE_CHECKING

from croniter import croniter

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUARTERLY = {"@quarterly": "0 0 1 */3 *"}
"""The one of Airflow's presets that croniter does not know."""
_FROM = datetime(2001, 1, 1, tzinfo=UTC)
_SPAN = timedelta(days=366 * 9)
"""So that 29 February comes twice; no gap of a calendar schedule is missed in it."""
_MOST = 1500
"""More than a day has minutes, so that a schedule of one day a month shows its gap."""


def moments(schedule: str, after: datetime) -> Iterator[datetime]:
    """Yield the schedule's moments after a time, without end."""
    cron = croniter(_QUARTERLY.get(schedule, schedule), after.astimezone(UTC))
    while True:
        yield cron.get_next(datetime)


@cache
def longest_gap(schedule: str) -> timedelta:
    """
    Return the longest time between two moments of a schedule, by its first 1500 moments or nine years.

    A schedule of working days has one of three days.
    """
    found = list(islice(takewhile(lambda at: at < _FROM + _SPAN, moments(schedule, _FROM)), _MOST))
    found = found if len(found) > 1 else list(islice(moments(schedule, _FROM), 2))
    return max(later - earlier for earlier, later in pairwise(found))
