"""What a cluster's sets say of its backups: a pure function of what lies in the repository."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from etcdkeep.freshness.limits import AgeLimits, drill_limits, limits_of
from etcdkeep.freshness.report import CheckFinding, CheckReport, Measure
from etcdkeep.naming import backup_time
from etcdkeep.plain_text import one_line
from etcdkeep.records import CLOCK_SKEW
from etcdkeep.sets.backup_set import USABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.freshness.report import Status
    from etcdkeep.sets.judged import Looked

Set = TypeVar("Set", bound="Looked")
RUN_TAKES = timedelta(hours=3)
"""A younger attempt may still be running, and a younger set still being verified."""

QUOTA_WARN, QUOTA_FAIL = 0.8, 0.95
GROWTH_SPAN = timedelta(days=30)
GROWTH_WARN = timedelta(days=30)
"""Warn when the database reaches its quota within it, at the rate of the last 30 days."""


def measure(
    cluster: Cluster,
    sets: Sequence[Looked],
    attempts: Sequence[str],
    newest_object: datetime | None,
    now: datetime,
    lost: Sequence[str] = (),
    published: Iterable[str] | None = None,
) -> CheckReport:
    """
    Judge a cluster's backups.

    :param sets: All its sets, oldest first.
    :param attempts: Backup ids of the runs that began.
    :param newest_object: When the newest object was stored, by the store's clock.
    :param lost: Backup ids of sets with no manifest any more.
    :param published: Backup ids of all sets, where `sets` are not all.
    """
    good = [found for found in sets if found.state == "good"]
    findings, measures = [_clock(newest_object, now)], dict[str, Measure]()
    limits = limits_of(cluster, now)
    findings.append(judge_age(cluster, "good", good, limits, now, measures))
    if cluster.rehearse and good:
        finding = judge_age(cluster, "restorable", restorable_of(good), limits, now, measures)
        findings.append(finding if good[-1].restorable == "no" else _at_most_a_warning(finding))
    drills = drill_limits(cluster, now)
    if drills is not None and good:
        findings.append(_at_most_a_warning(judge_age(cluster, "drilled", drilled_of(good), drills, now, measures)))
    believed = [found for found in sets if found.state in USABLE]
    looks: tuple[Callable[[], CheckFinding | None], ...] = (
        lambda: _newest(believed, now),
        lambda: _missing(believed, lost),
        lambda: _trust(sets, attempts, now),
        lambda: _attempts(
            sets, {each.backup_id for each in sets} if published is None else set(published), attempts, now
        ),
        lambda: _certificates(cluster, good, now),
        lambda: _quota(cluster, believed, now, measures),
    )
    findings += [looked for look in looks if (looked := look()) is not None]
    for state in ("good", "unverified", "bad"):
        measures[f"sets_{state}"] = Measure(sum(found.state == state for found in sets))
    return CheckReport(cluster.name, tuple(findings), measures)


def restorable_of(good: Sequence[Set]) -> list[Set]:
    """Return those whose last rehearsal found that they can be restored."""
    return [found for found in good if found.restorable == "yes"]


def drilled_of(good: Sequence[Set]) -> list[Set]:
    """Return those whose last drill found nothing wrong."""
    return [found for found in good if found.drilled]


def first_expiry(good: Sequence[Looked]) -> tuple[datetime, str] | None:
    """Return when the first certificate in the newest good set expires, and which; None where no verification read them."""
    return good[-1].expiry if good else None


def _clock(newest_object: datetime | None, now: datetime) -> CheckFinding:
    ahead = newest_object - now if newest_object else timedelta(0)
    if ahead > CLOCK_SKEW:
        sentence = f"the repository holds an object stored {_words(ahead)} in the future. Ages cannot be trusted. Check the clocks of this machine and of the store (NTP)"
        return CheckFinding("UNKNOWN", "clock", sentence)
    return CheckFinding("OK", "clock", "clocks agree as far as the repository shows")


def judge_age(
    cluster: Cluster,
    topic: str,
    sets: Sequence[Looked],
    limits: AgeLimits,
    now: datetime,
    measures: dict[str, Measure],
) -> CheckFinding:
    """Judge the age of the newest of some sets."""
    warn, fail = (limit.total_seconds() if limit else None for limit in (limits.warn, limits.fail))
    measures[f"newest_{topic}_age"] = Measure((now - sets[-1].taken_at).total_seconds() if sets else None, "s", warn, fail)  # fmt: skip
    if not sets:
        return CheckFinding(
            "CRITICAL", topic, f"there is no {topic} backup; see python -m etcdkeep list {cluster.name}"
        )
    old = now - sets[-1].taken_at
    said = f"newest {topic} backup {sets[-1].backup_id} is {_words(old)} old"
    if limits.fail and old > limits.fail:
        return CheckFinding("CRITICAL", topic, f"{said}, limit {_words(limits.fail)}")
    if limits.warn and old > limits.warn:
        return CheckFinding("WARNING", topic, f"{said}, expected within {_words(limits.warn)}")
    unjudged = "" if limits.warn or limits.fail else "; not judged: no schedule, and no freshness.warn_after"
    return CheckFinding("OK", topic, said + unjudged)


def _at_most_a_warning(finding: CheckFinding) -> CheckFinding:
    status: Status = "WARNING" if finding.status == "CRITICAL" else finding.status
    return CheckFinding(status, finding.topic, finding.sentence)


def _newest(believed: Sequence[Looked], now: datetime) -> CheckFinding | None:
    """Say when the newest set is not good although its run must be over."""
    if not believed or believed[-1].state == "good":
        return None
    found = believed[-1]
    if found.state == "bad":
        return CheckFinding(
            "WARNING", "newest", f"newest backup {found.backup_id} is bad: {one_line('; '.join(found.problems))}"
        )
    if now - found.taken_at > RUN_TAKES:
        return CheckFinding("WARNING", "newest", f"newest backup {found.backup_id} was not verified; run python -m etcdkeep verify {found.name}")  # fmt: skip
    return None


def _missing(believed: Sequence[Looked], lost: Sequence[str]) -> CheckFinding | None:
    if lost:
        return CheckFinding("WARNING", "missing", f"{len(lost)} backup(s) have lost their manifest, such as {lost[-1]}. They are no longer listed. Check who deleted it")  # fmt: skip
    found = [each for each in believed if each.missing]
    if not found:
        return None
    first = found[-1]
    return CheckFinding("WARNING", "missing", f"{len(found)} backup(s) lack artifacts, such as {first.backup_id}: {one_line(first.missing[0])}")  # fmt: skip


def _trust(sets: Sequence[Looked], attempts: Sequence[str], now: datetime) -> CheckFinding | None:
    found = [each for each in sets if not each.believed]
    future = [each for each in attempts if backup_time(each) > now + CLOCK_SKEW]
    if future and not found:
        return CheckFinding("WARNING", "trust", f"{len(future)} record(s) of runs that began in the future, such as attempts/{max(future)}.json. They are ignored. Check who wrote them, then remove them")  # fmt: skip
    if not found:
        doubted = [record for each in sets if (record := each.doubted)]
        return CheckFinding("WARNING", "trust", f"{len(doubted)} backup(s) have records that are not believed, such as {one_line(doubted[-1])}") if doubted else None  # fmt: skip
    return CheckFinding("WARNING", "trust", f"{len(found)} backup(s) are not believed, such as {found[-1].backup_id} ({found[-1].state})")  # fmt: skip


def _attempts(
    sets: Sequence[Looked], published: set[str], attempts: Sequence[str], now: datetime
) -> CheckFinding | None:
    """Say how many runs since the newest set left none. A set that is not believed, or is of the future, ends no such row."""
    latest = now + CLOCK_SKEW
    known = {each.backup_id for each in sets if each.believed and backup_time(each.backup_id) <= latest}
    newest = max(map(backup_time, known), default=None)
    begun = [(backup_time(each), each) for each in attempts if each not in published]
    failed = sorted(each for at, each in begun if (newest is None or at > newest) and now - at > RUN_TAKES)
    if not failed:
        return None
    since = f"since {max(known)}" if known else "ever"
    return CheckFinding("WARNING", "attempts", f"{len(failed)} run(s) {since} left no backup, the last one {failed[-1]}; see its log in Airflow")  # fmt: skip


def _certificates(cluster: Cluster, good: Sequence[Looked], now: datetime) -> CheckFinding | None:
    expiry = first_expiry(good)
    if expiry is None:
        return None
    expires_at, first = expiry
    left = expires_at - now
    said = f"certificate {one_line(first)} of the cluster expires on {expires_at.astimezone(UTC):%Y-%m-%d}"
    if left <= timedelta(0):
        return CheckFinding("CRITICAL", "certificates", f"{said}: it has expired")
    status: Status = "WARNING" if left < timedelta(days=cluster.cert_warning_days) else "OK"
    return CheckFinding(status, "certificates", f"{said}, in {left.days} days")


def _quota(
    cluster: Cluster, believed: Sequence[Looked], now: datetime, measures: dict[str, Measure]
) -> CheckFinding | None:
    """Judge the size of the database against etcd's quota, now and as it grows."""
    sizes = [(found.taken_at, found.database_bytes) for found in believed if found.database_bytes is not None]
    if not sizes:
        return None
    quota, (at, size) = cluster.freshness.quota_bytes, sizes[-1]
    measures["database"] = Measure(size, "B", QUOTA_WARN * quota, QUOTA_FAIL * quota)
    said = f"the database has {size / 2**20:.1f} MiB, {size / quota:.0%} of its quota of {quota / 2**20:.0f} MiB"
    if size >= QUOTA_FAIL * quota:
        return CheckFinding("CRITICAL", "quota", f"{said}; above the quota etcd refuses writes")
    if size >= QUOTA_WARN * quota:
        return CheckFinding("WARNING", "quota", f"{said}; above the quota etcd refuses writes")
    first_at, first = next(each for each in sizes if each[0] > at - GROWTH_SPAN)
    days = (at - first_at) / timedelta(days=1)
    rate = (size - first) / days if days >= 1 else 0.0
    measures["database_growth_per_day"] = Measure(rate, "B")
    if rate > 0 and (quota - size) / rate < GROWTH_WARN / timedelta(days=1):
        return CheckFinding(
            "WARNING", "quota", f"{said}, and reaches it in {(quota - size) / rate:.0f} days at its present growth"
        )
    return CheckFinding("OK", "quota", said)


def _words(time: timedelta) -> str:
    minutes = int(time.total_seconds() // 60)
    if minutes < 60:
        return f"{minutes} min"
    return (
        f"{minutes // 60} h {minutes % 60:02} min"
        if minutes < 2880
        else f"{minutes // 1440} d {minutes % 1440 // 60} h"
    )
