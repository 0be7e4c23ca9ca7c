"""
Which sets of a cluster are kept and which are removed, and why: a pure function of what is known of them.

The rules mean what they mean in restic's ``forget``: ``daily: 7`` keeps one set of each of the last seven days *that have one*,
days without a set do not count, and a set that any rule keeps is kept. Only good sets count. Sets taken by hand are ruled
by themselves, as if they were another series, so that they never use up the nightly ones.

A set that is unverified takes no place of a good one, but it stays where a rule would keep it if it were good: verifications
can be deleted by whoever can write to the repository, and must not make the rules drop what they were about.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from etcdkeep.config.durations import parse_duration
from etcdkeep.config.retention import CALENDAR, Retention
from etcdkeep.records import CLOCK_SKEW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from etcdkeep.sets.backup_set import State
    from etcdkeep.sets.results import Restorable


@dataclass(frozen=True)
class SetFacts:
    """
    What the plan needs to know of a set.

    :param believed: Whether its manifest is believed. Of others nothing is known, and they are never removed.
    :param drilled: Whether its last drill found nothing wrong.
    :param by_hand: Whether a person started the run that took it.
    :param pinned: Why it is pinned; None where it is not.
    :param locked_until: Until when the store keeps it.
    :param in_use: What uses it, such as an open restore.
    :param doubted: A record beside it that would keep it, or say that it is good, if it were believed.
    """

    backup_id: str
    taken_at: datetime
    state: State = "good"
    believed: bool = True
    restorable: Restorable | None = None
    drilled: bool = False
    by_hand: bool = False
    pinned: str | None = None
    locked_until: datetime | None = None
    in_use: str | None = None
    doubted: str | None = None

    @property
    def order(self) -> tuple[datetime, str]:
        """Sorts sets by when they were taken."""
        return self.taken_at, self.backup_id

    @property
    def could_be_restored(self) -> bool:
        """Whether it is good and no rehearsal found otherwise."""
        return self.state == "good" and self.restorable != "no"

    @property
    def _worth(self) -> tuple[bool, bool, bool, bool, datetime, str]:
        """Sorts the sets of one period: the best is kept."""
        return self.state == "good", self.restorable != "no", self.drilled, self.restorable == "yes", *self.order


@dataclass(frozen=True)
class Verdict:
    """
    What becomes of one set.

    :param by_rule: Which rules keep it, and for which period.
    :param settled: Names of those rules with a period that is over.
    :param reasons: All that keeps it, or why it is removed.
    """

    found: SetFacts
    keep: bool
    reasons: tuple[str, ...]
    by_rule: tuple[str, ...] = ()
    settled: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PrunePlan:
    """
    What becomes of every set, in the order in which they were taken.

    :param floor: The verified sets that must be read back before anything is removed, newest first.
    :param over_share: Why a person must confirm; None where that is not needed.
    """

    verdicts: tuple[Verdict, ...]
    floor: tuple[SetFacts, ...] = ()
    over_share: str | None = None

    @property
    def kept(self) -> tuple[Verdict, ...]:
        """The sets that stay."""
        return tuple(each for each in self.verdicts if each.keep)

    @property
    def removed(self) -> tuple[Verdict, ...]:
        """The sets that go."""
        return tuple(each for each in self.verdicts if not each.keep)


def plan_prune(sets: Iterable[SetFacts], rules: Retention, now: datetime) -> PrunePlan:
    """
    Decide which sets of one cluster are kept.

    :param sets: Every set of the cluster, in any order.
    :param now: The present, by the worker's clock.
    """
    known = sorted(sets, key=lambda each: each.order)
    present = [each for each in known if not _is_of_the_future(each, now)]
    good = [each for each in present if each.state == "good"]
    ruled = _by_rules(good, rules, now)
    if_verified = _by_rules([each for each in present if each.state in ("good", "unverified")], rules, now)
    floor = _floor(good, ruled, rules.min_good)
    judge = _Judge(rules, now, ruled, if_verified, floor, good[-1] if good else None)
    verdicts = tuple(judge.verdict(each) for each in known)
    removed = sum(not verdict.keep for verdict in verdicts)
    ours = sum(each.believed for each in known)  # others can be added by anybody, and would make the share small
    return PrunePlan(verdicts, tuple(reversed(floor)), _over_share(removed, ours, rules.max_remove_share))


def _is_of_the_future(found: SetFacts, now: datetime) -> bool:
    return found.state == "future" or found.taken_at > now + CLOCK_SKEW


@dataclass
class _Ruled:
    """What rules say of one set: for which periods they keep it, and which of them have one that is over."""

    reasons: list[str] = field(default_factory=list)
    settled: set[str] = field(default_factory=set)


def _by_rules(sets: Sequence[SetFacts], rules: Retention, now: datetime) -> dict[str, _Ruled]:
    """Apply the rules to the sets that a schedule took, and by themselves to those taken by hand."""
    ruled = defaultdict[str, _Ruled](_Ruled)
    for by_hand in (False, True):
        series = [each for each in reversed(sets) if each.by_hand == by_hand]
        said = "by hand, " if by_hand else ""
        for found in series[: rules.keep_last or 0]:
            ruled[found.backup_id].reasons.append(f"{said}last {rules.keep_last}")
        for name in CALENDAR:
            present = _PERIODS[name](now.astimezone(UTC))
            for period, found in _newest_periods(series, _PERIODS[name], getattr(rules, name) or 0):
                ruled[found.backup_id].reasons.append(f"{said}{name} {period}")
                if period != present:
                    ruled[found.backup_id].settled.add(name)
        if rules.keep_within and series:
            since = parse_duration(rules.keep_within).before(series[0].taken_at)
            for found in series:
                if found.taken_at > since:
                    ruled[found.backup_id].reasons.append(f"{said}within {rules.keep_within}")
    return ruled


_PERIODS: Mapping[str, Callable[[datetime], str]] = {
    "hourly": lambda at: f"{at:%Y-%m-%d %H}h",
    "daily": lambda at: f"{at:%Y-%m-%d}",
    "weekly": lambda at: "{}-W{:02}".format(*at.isocalendar()[:2]),
    "monthly": lambda at: f"{at:%Y-%m}",
    "yearly": lambda at: f"{at:%Y}",
}


def _newest_periods(
    newest_first: Sequence[SetFacts], period: Callable[[datetime], str], count: int
) -> list[tuple[str, SetFacts]]:
    """Return the best set of each of the newest so many periods that have one."""
    periods: dict[str, list[SetFacts]] = {}
    for found in newest_first:
        name = period(found.taken_at.astimezone(UTC))
        if name not in periods and len(periods) == count:
            break
        periods.setdefault(name, []).append(found)
    return [(name, max(those, key=lambda each: each._worth)) for name, those in periods.items()]


def _floor(good: Sequence[SetFacts], ruled: Mapping[str, _Ruled], min_good: int) -> list[SetFacts]:
    """
    Return the verified sets that hold the floor, oldest first.

    Restorable ones come first, then those that are kept anyway, then the newest.
    """
    kept_anyway = {*ruled, *(each.backup_id for each in good[-1:])}
    best = sorted(
        good, key=lambda each: (each.could_be_restored, each.backup_id in kept_anyway, *each.order), reverse=True
    )
    return sorted(best[:min_good], key=lambda each: each.order)


@dataclass(frozen=True)
class _Judge:
    """Gives each set its verdict, by what is known of all of them."""

    rules: Retention
    now: datetime
    ruled: Mapping[str, _Ruled]
    if_verified: Mapping[str, _Ruled]
    floor: Sequence[SetFacts]
    newest: SetFacts | None

    def verdict(self, found: SetFacts) -> Verdict:
        ruled = self.ruled.get(found.backup_id, _Ruled())
        keeps = [*ruled.reasons, *self._floors(found, ruled), *_held(found, self.now)]
        if found.state == "unverified" and found.backup_id in self.if_verified:
            keeps.append(f"unverified; if it were good: {', '.join(self.if_verified[found.backup_id].reasons)}")
        keeps = keeps or self._waits(found)
        if keeps:
            settled = frozenset(ruled.settled)
            return Verdict(found, keep=True, reasons=tuple(keeps), by_rule=tuple(ruled.reasons), settled=settled)
        if found.state == "good":
            return Verdict(found, keep=False, reasons=("no rule keeps it",))
        return Verdict(found, keep=False, reasons=(f"{found.state}, older than {self.rules.keep_bad_days} days",))

    def _floors(self, found: SetFacts, ruled: _Ruled) -> list[str]:
        if found == self.newest:
            return ["newest verified"]
        return [f"floor of {self.rules.min_good}"] if found in self.floor and not ruled.reasons else []

    def _waits(self, found: SetFacts) -> list[str]:
        """Return why a set that nothing else keeps cannot go yet."""
        if self.newest is None or found.order > self.newest.order:
            return ["no newer verified set"]
        if len(self.floor) < self.rules.min_good:
            return [f"fewer than {self.rules.min_good} verified sets"]
        until = found.taken_at + timedelta(days=self.rules.keep_bad_days)
        if found.state != "good" and self.now < until:
            return [f"{found.state}, kept for analysis until {until.astimezone(UTC):%Y-%m-%d}"]
        return []


def _held(found: SetFacts, now: datetime) -> list[str]:
    """Return what keeps a set, apart from the rules and the floor."""
    held = []
    if _is_of_the_future(found, now):
        held.append("from the future, and ignored")
    elif not found.believed:
        held.append(f"{found.state}: cannot confirm that it belongs to this cluster; check it")
    if found.pinned is not None:
        held.append(f"pinned: {found.pinned or 'no reason given'}")
    if found.doubted is not None:
        held.append(f"{found.doubted} is not believed; check it")
    if found.in_use is not None:
        held.append(f"in use by {found.in_use}")
    if found.locked_until is not None and found.locked_until > now:
        held.append(f"locked until {found.locked_until:%Y-%m-%d}")
    return held


def _over_share(removed: int, total: int, share: float) -> str | None:
    allowed = max(1, int(share * total))
    if removed <= allowed:
        return None
    return f"{removed} of {total} sets would be removed, more than {allowed} (max_remove_share: {share:g}). A person must confirm: prune --yes"
