"""What would be there after so many days, if every scheduled backup came out good and was pruned once a day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from etcdkeep.config.schedule import moments
from etcdkeep.retention.plan import SetFacts, Verdict, plan_prune

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from etcdkeep.config.retention import Retention

SIMULATED = "simulated"
"""How ids of simulated sets end."""


@dataclass(frozen=True)
class Simulation:
    """
    How a policy turns out.

    :param at: The last day.
    :param verdicts: What is there then, in the order in which it was taken, with what keeps it.
    :param most: The largest number of sets on any day, before that day's pruning.
    :param goes: When each set that was there at first would be removed, by backup id; one that stays to the end has no entry.
    """

    at: datetime
    verdicts: tuple[Verdict, ...]
    most: int
    goes: Mapping[str, datetime]


def simulate(
    sets: Iterable[SetFacts],
    rules: Retention,
    schedule: str | None,
    now: datetime,
    days: int,
    immutable_days: int = 0,
) -> Simulation:
    """
    Simulate a policy.

    :param sets: What is there now.
    :param schedule: Cron expression; None for no new sets.
    :param immutable_days: For how long the store keeps each set.
    """
    present, most, at = list(sets), 0, now
    known: set[str] = {each.backup_id for each in present}
    goes: dict[str, datetime] = {}
    coming = moments(schedule, now) if schedule else iter(())
    following = next(coming, None)
    for day in range(1, days + 1):
        at = now + timedelta(days=day)
        while following is not None and following <= at:
            locked = following + timedelta(days=immutable_days) if immutable_days else None
            present.append(SetFacts(f"{following:%Y%m%dT%H%M%SZ}-{SIMULATED}", following, locked_until=locked))
            following = next(coming, None)
        most = max(most, len(present))
        plan = plan_prune(present, rules, at)
        goes |= {each.found.backup_id: at for each in plan.removed if each.found.backup_id in known}
        present = [each.found for each in plan.kept]
    return Simulation(at, plan_prune(present, rules, at).verdicts, most, goes)
