"""The last 90 days of a cluster, a letter for each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING

from etcdkeep.config.schedule import moments
from etcdkeep.freshness.measure import RUN_TAKES
from etcdkeep.naming import backup_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import date

    from etcdkeep.freshness.check import StoredNames
    from etcdkeep.sets.judged import Looked

DAYS = 90
GOOD, BAD, MISSED, REMOVED, NONE, UNREAD = "g", "b", "m", "r", "-", "u"
"""
A good backup; only bad ones, or runs that left none; none although one was due; one that retention removed, by its signed record;
nothing was due; one that nobody has opened yet.
"""


def calendar(
    names: StoredNames,
    sets: Sequence[Looked],
    schedule: str | None,
    now: datetime,
    gone: Collection[str] = (),
    unread: Collection[str] = (),
) -> str:
    """
    Return a letter for each of the last days (UTC), the oldest first, today last.

    A day before the first sign of a backup has nothing due. A run that may still be going on counts as nothing.

    :param gone: Backup ids whose removal is signed.
    :param unread: Backup ids of sets, or of removals, that nobody has opened yet.
    """
    good = {_day(each.taken_at) for each in sets if each.state == "good"}
    removed, not_read = ({_day(backup_time(each)) for each in those} for those in (gone, unread))
    unmade = [each for each in names.attempts if each not in names.published and each not in gone and each not in unread]  # fmt: skip
    failed = {_day(backup_time(each)) for each in unmade if now - backup_time(each) > RUN_TAKES}
    bad = failed | {_day(each.taken_at) for each in sets if each.state not in ("good", "unverified")}
    unverified = {_day(each.taken_at) for each in sets if each.state == "unverified"}
    due = _due(schedule, now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)) if schedule else frozenset()
    first = min(good | bad | removed | unverified | not_read, default=None)
    letters = []
    for day in _days(_day(now)):
        is_due = first is not None and first <= day and day in due
        marks = ((good, GOOD), (not_read, UNREAD), (bad, BAD), (unverified, NONE), (removed, REMOVED))
        letters.append(next((mark for days, mark in marks if day in days), MISSED if is_due else NONE))
    return "".join(letters)


def first_day(now: datetime) -> date:
    """Return the day of the first letter."""
    return _day(now) - timedelta(days=DAYS - 1)


def _days(today: date) -> Iterable[date]:
    return (today - timedelta(days=back) for back in range(DAYS - 1, -1, -1))


def _day(at: datetime) -> date:
    return at.astimezone(UTC).date()


@lru_cache(256)  # most clusters share a schedule
def _due(schedule: str, hour: datetime) -> frozenset[date]:
    """Return the days on which a backup was due and its run must be over, as of an hour."""
    until = hour - RUN_TAKES
    return frozenset(
        at.date() for at in takewhile(lambda at: at <= until, moments(schedule, hour - timedelta(days=DAYS)))
    )
