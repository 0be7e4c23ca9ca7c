"""``prune``, ``retention plan``: which backups stay and which go."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli import Group
from etcdkeep.cli.common import one_repository_option, open_cluster, who
from etcdkeep.cli.output import age, json_option, print_json, print_table, size
from etcdkeep.plain_text import one_line
from etcdkeep.retention.gather import gather
from etcdkeep.retention.prune import Pruner, PruneReport, rules_of
from etcdkeep.retention.simulate import simulate
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.retention.plan import Verdict


@click.command()
@click.argument("cluster")
@one_repository_option
@click.option("--dry-run", is_flag=True, help="Only show what would be removed, and why; changes nothing.")
@click.option("--yes", "confirmed", is_flag=True, help="Confirm that more than retention.max_remove_share is removed.")
@json_option
def prune(cluster: str, dry_run: bool, confirmed: bool, as_json: bool) -> None:
    """
    Remove the backups of CLUSTER that no rule of its `retention` keeps. The verified ones that must stay are read back first.
    """
    site = open_cluster(cluster)
    kept = kept_as(site.cluster, site.repository.store.url)
    pruner = Pruner(
        site.repository,
        kept,
        lambda: site.store_at(kept.spool_url, kept.repository_connection),
        by=f"{who()}, process {os.getpid()}",
        clock=lambda: datetime.now(UTC),
    )
    unlocked = [] if dry_run else pruner.renew_locks()
    report = pruner.dry_run() if dry_run else pruner.run(confirmed=confirmed)
    report.warnings += unlocked
    if as_json:
        print_json(report_json(cluster, report))
    else:
        _print_report(report, confirmed=confirmed)
    for warning in (*report.attention, *report.warnings):
        say(f"warning: {one_line(warning)}", err=True)
    if not dry_run:
        report.raise_if_refused(cluster)


@click.group(cls=Group)
def retention() -> None:
    """Preview what the rules of retention keep."""


@retention.command()
@click.argument("cluster")
@click.option("--days", type=click.IntRange(1, 4000), default=400, show_default=True, help="How far to look ahead.")
@json_option
def plan(cluster: str, days: int, as_json: bool) -> None:
    """
    Simulate the rules of CLUSTER: which backups will exist in --days days, if every scheduled one is good.
    """
    site, now = open_cluster(cluster), datetime.now(UTC)
    rules = rules_of(site.cluster)
    known = gather(site.repository, site.cluster, now)
    found = simulate(known.facts, rules, site.cluster.schedule, now, days, site.cluster.immutable_days)
    sizes = [each.manifest.stored_bytes for each in known.sets.values() if each.manifest]
    if as_json:
        facts = {"cluster": cluster, "at": found.at.isoformat(), "most": found.most}
        print_json({**facts, "sets": [_row(each) for each in found.verdicts]})
        return
    rows = [(*_cells(each)[:2], age((found.at - each.found.taken_at).total_seconds()), *_cells(each)[4:]) for each in found.verdicts]  # fmt: skip
    print_table(("backup", "taken (UTC)", "age", "why"), rows)
    about = f", about {size(sizes[-1] * len(rows))} at the size of the newest" if sizes else ""
    say(f"{len(rows)} backup(s) on {found.at:%Y-%m-%d}{about}; at most {found.most} at a time.")
    if site.cluster.schedule is None:
        say("The cluster has no schedule: no new backups were simulated.", err=True)


def kept_as(cluster: Cluster, url: str) -> Cluster:
    """Return the cluster as it is kept in one of its repositories: with the rules that hold there."""
    copies = [copy for copy in cluster.copies if copy.repository.rstrip("/") == url]
    return cluster.at_copy(copies[0]) if copies else cluster


def report_json(cluster: str, report: PruneReport) -> dict[str, Any]:
    """Return what ``prune --json`` prints."""
    return {
        "cluster": cluster,
        "dry_run": report.dry_run,
        "refused": list(report.refused),
        "removed": report.removed,
        "would_remove": [each.found.backup_id for each in report.plan.removed] if report.dry_run else [],
        "stayed": report.stayed,
        "finished": report.finished,
        "read_back": report.read_back,
        "orphans": report.orphans,
        "attention": list(report.attention),
        "warnings": report.warnings,
        "sets": [_row(each) for each in report.plan.verdicts],
    }


def _print_report(report: PruneReport, *, confirmed: bool) -> None:
    print_table(("backup", "taken (UTC)", "state", "plan", "why"), [_cells(each) for each in report.plan.verdicts])
    total, going = len(report.plan.verdicts), len(report.plan.removed)
    if report.dry_run:
        say(
            f"{going} of {total} backup(s) would be removed, and {report.orphans} orphaned object(s). Nothing was changed."
        )
        for sentence in report.refused:
            if not (confirmed and sentence == report.plan.over_share):
                say(f"a run would refuse this: {one_line(sentence)}", err=True)
        return
    said = f"{len(report.removed)} of {total} backup(s) removed, {report.orphans} orphaned object(s) swept"
    finished = f", {len(report.finished)} earlier removal(s) finished" if report.finished else ""
    say(f"{said}{finished}. Read back first: {', '.join(report.read_back) or 'nothing'}.")


def _row(verdict: Verdict) -> dict[str, Any]:
    found = verdict.found
    return {
        "backup_id": found.backup_id,
        "taken_at": found.taken_at.isoformat(),
        "state": found.state,
        "keep": verdict.keep,
        "reasons": list(verdict.reasons),
    }


def _cells(verdict: Verdict) -> Sequence[str]:
    found = verdict.found
    return (
        found.backup_id,
        f"{found.taken_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        f"{found.state}, not restorable" if found.state == "good" and found.restorable == "no" else found.state,
        "keep" if verdict.keep else "REMOVE",
        "; ".join(verdict.reasons),
    )
