"""From which age on a backup is too old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.config.durations import parse_duration
from etcdkeep.config.schedule import longest_gap
from etcdkeep.config.values import AFTER_BACKUP

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from etcdkeep.config.models import Cluster

WARN_GAPS, FAIL_GAPS = 1.5, 2.5
"""Longest gaps of the schedule after which a backup is late, and after which more than one must have failed."""


@dataclass(frozen=True)
class AgeLimits:
    """
    Ages.

    :param warn: None where no age is judged.
    """

    warn: timedelta | None
    fail: timedelta | None


def limits_of(cluster: Cluster, now: datetime) -> AgeLimits:
    """Return the limits for a cluster's backups: its settings, else by its schedule."""
    settings = cluster.freshness
    warn, fail = (now - parse_duration(text).before(now) if text else None for text in (settings.warn_after, settings.fail_after))  # fmt: skip
    if cluster.schedule is not None and (warn is None or fail is None):
        gap = longest_gap(cluster.schedule)
        if warn is None:
            warn = min(gap * WARN_GAPS, fail) if fail else gap * WARN_GAPS
        if fail is None:
            fail = max(gap * FAIL_GAPS, warn)
    return AgeLimits(warn, fail)


def drill_limits(cluster: Cluster, now: datetime) -> AgeLimits | None:
    """Return the limits for the newest drilled backup; None where no drills are scheduled."""
    if cluster.drill is None or cluster.drill.schedule is None:
        return None
    if cluster.drill.schedule == AFTER_BACKUP:
        return limits_of(cluster, now)
    # A drill takes the newest backup, which is itself as old as a backup may be.
    gap, of_backup = longest_gap(cluster.drill.schedule), limits_of(cluster, now)
    extra = of_backup.warn or gap * 0
    return AgeLimits(gap * WARN_GAPS + extra, gap * FAIL_GAPS + (of_backup.fail or gap * 0))
