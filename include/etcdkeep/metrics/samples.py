"""From what a check found to the values of the metrics."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from etcdkeep.freshness.measure import drilled_of, first_expiry, restorable_of
from etcdkeep.freshness.report import EXIT_CODES, TOPICS, worst
from etcdkeep.metrics import families
from etcdkeep.naming import backup_time
from etcdkeep.records import CLOCK_SKEW
from etcdkeep.sets.backup_set import ANY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from etcdkeep.freshness.check import Checked, StoredSets
    from etcdkeep.freshness.report import CheckReport, Status
    from etcdkeep.metrics.families import Sample
    from etcdkeep.sets.backup_set import BackupSet

AGED_TOPICS = ("good", "restorable", "drilled", "copied")


def samples_of(checked: Checked) -> tuple[Sample, ...]:
    """Return every value that is known of one cluster."""
    return tuple(_all(checked))


def _all(checked: Checked) -> Iterator[Sample]:
    name, report, stored = checked.report.cluster, checked.report, checked.stored
    yield families.REPOSITORY_READABLE.sample(stored is not None, name)
    yield families.MEASURED.sample(checked.at.timestamp(), name)
    yield from _statuses(report, readable=stored is not None)
    if stored is None:
        return
    good = [found for found in stored.sets if found.state == "good"]
    yield from _times(name, stored, good, checked.at)
    yield from _copied(checked)
    yield from _limits(report)
    for state in ANY:
        yield families.SETS.sample(sum(found.state == state for found in stored.sets), name, state)
    yield families.REPOSITORY_BYTES.sample(stored.size_bytes, name)
    yield from _database(checked)
    expiry = first_expiry(good)
    if expiry is not None:
        yield families.CERTIFICATE_EXPIRY.sample(expiry[0].timestamp(), name)
    yield from _durations(name, stored)


def _statuses(report: CheckReport, *, readable: bool) -> Iterator[Sample]:
    """Yield every topic's status, so that no series ends: without a repository, nothing is known of any."""
    unjudged: Status = "OK" if readable else "UNKNOWN"
    for topic in dict.fromkeys((*TOPICS, *(finding.topic for finding in report.findings))):
        found = [finding.status for finding in report.findings if finding.topic == topic]
        yield families.CHECK_STATUS.sample(EXIT_CODES[worst(found or [unjudged])], report.cluster, topic)


def _times(name: str, stored: StoredSets, good: Sequence[BackupSet], now: datetime) -> Iterator[Sample]:
    """Yield when the newest backup of each kind was taken."""
    times = map(backup_time, {*stored.attempts, *stored.published})
    begun = max((each for each in times if each <= now + CLOCK_SKEW), default=None)
    yield families.LAST_ATTEMPT.sample(begun.timestamp() if begun else 0, name)
    kinds = (
        (families.LAST_GOOD, good),
        (families.LAST_RESTORABLE, restorable_of(good)),
        (families.LAST_DRILLED, drilled_of(good)),
    )
    for metric, sets in kinds:
        yield metric.sample(sets[-1].taken_at.timestamp() if sets else 0, name)


def _copied(checked: Checked) -> Iterator[Sample]:
    age = checked.report.measures.get("newest_copied_age")
    if age is not None:
        taken_at = 0 if age.value is None else checked.at.timestamp() - age.value
        yield families.LAST_COPIED.sample(taken_at, checked.report.cluster)


def _limits(report: CheckReport) -> Iterator[Sample]:
    for topic in AGED_TOPICS:
        measure = report.measures.get(f"newest_{topic}_age")
        for severity, limit in (("warning", measure.warn), ("critical", measure.fail)) if measure else ():
            if limit is not None:
                yield families.AGE_LIMIT.sample(limit, report.cluster, topic, severity)


def _database(checked: Checked) -> Iterator[Sample]:
    name, measures = checked.report.cluster, checked.report.measures
    size, growth = measures.get("database"), measures.get("database_growth_per_day")
    quota = checked.cluster.freshness.quota_bytes if checked.cluster else 0
    if size is not None and size.value is not None and quota:
        yield families.DATABASE_BYTES.sample(size.value, name)
        yield families.DATABASE_QUOTA_BYTES.sample(quota, name)
        yield families.DATABASE_QUOTA_RATIO.sample(size.value / quota, name)
    if growth is not None and growth.value is not None:
        yield families.DATABASE_GROWTH.sample(growth.value / timedelta(days=1).total_seconds(), name)


def _durations(name: str, stored: StoredSets) -> Iterator[Sample]:
    published = [each for each in stored.published if each in stored.attempts]
    if published:
        newest = max(published)
        took = max(0.0, (stored.published[newest] - stored.attempts[newest]).total_seconds())
        yield families.PHASE_DURATION.sample(took, name, "backup", "total")
    records = sorted((record for found in stored.sets for record in found.verifications), key=lambda record: record.at)
    checks, drills = ([each for each in records if bool(each.drill) == is_drill] for is_drill in (False, True))
    for operation, made in (("verify", checks), ("drill", drills)):
        for phase, seconds in made[-1].seconds.items() if made else ():
            yield families.PHASE_DURATION.sample(seconds, name, operation, phase)
    rehearsals = [found.rehearsal.body for found in stored.sets if found.rehearsal]
    if rehearsals:
        newest_rehearsal = max(rehearsals, key=lambda rehearsal: rehearsal.at)
        yield families.PHASE_DURATION.sample(newest_rehearsal.seconds, name, "rehearse", "total")
    estimates = [each.drill.restore_s for each in drills if each.drill and each.drill.restore_s is not None]
    if estimates:
        yield families.RESTORE_ESTIMATE.sample(estimates[-1], name)
