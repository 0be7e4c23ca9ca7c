"""``replicate``: brings backups to the copies that lack them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.adapters.stores.opening import duplicate
from etcdkeep.cli.common import open_cluster, who
from etcdkeep.cli.output import json_option, print_json, print_table
from etcdkeep.config.loading import load_config
from etcdkeep.copies.replicate import Replicator, raise_if_failed
from etcdkeep.errors import ConfigError, EtcdkeepError
from etcdkeep.plain_text import one_line
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.copies.replicate import CopyReport

COLUMNS = ("cluster", "copy", "present", "copied", "healed", "failed")


@click.command()
@click.argument("cluster", required=False)
@click.option("--dry-run", is_flag=True, help="Only show what would be copied; changes nothing.")
@json_option
def replicate(cluster: str | None, dry_run: bool, as_json: bool) -> None:
    """
    Copy the verified backups of CLUSTER, or of every configured cluster, to those of its `copies` that lack them, and read
    them back. Damaged and half copied backups there are replaced.
    """
    reports: list[tuple[str, CopyReport]] = []
    failure: EtcdkeepError | None = None
    for name in _clusters(cluster):
        try:
            found = _replicate(name, dry_run=dry_run)
            reports += [(name, report) for report in found]
            raise_if_failed(name, found)
        except EtcdkeepError as err:
            if failure is not None:
                say(f"error: {failure}", err=True)
            failure = err
    if as_json:
        print_json([report_json(name, report) for name, report in reports])
    else:
        _print(reports, dry_run=dry_run)
    if failure is not None:
        raise failure
    if not cluster:
        load_config().raise_for_problems()


def report_json(cluster: str, report: CopyReport) -> dict[str, Any]:
    """Return what ``replicate --json`` prints of one copy."""
    return {
        "cluster": cluster,
        "repository": report.url,
        "dry_run": report.dry_run,
        "present": report.present,
        "copied": report.copied,
        "healed": report.healed,
        "removed_there": report.removed_there,
        "failed": {identifier: str(err) for identifier, err in report.failed.items()},
    }


def _clusters(cluster: str | None) -> Sequence[str]:
    """Return the named cluster, which must have copies, or every one that has."""
    config = load_config()
    if cluster and not config.cluster(cluster).copies:
        raise ConfigError(
            f"cluster {cluster!r} has no copies. Set copies, such as [{{repository: s3://bucket/prefix}}], in its entry or in defaults."
        )
    return [cluster] if cluster else [name for name, each in config.clusters.items() if each.copies]


def _replicate(cluster: str, *, dry_run: bool) -> list[CopyReport]:
    site = open_cluster(cluster)
    replicator = Replicator(site.repository, site.cluster, duplicate, who(), lambda: datetime.now(UTC))
    return replicator.run(site.copies, dry_run=dry_run)


def _print(reports: Sequence[tuple[str, CopyReport]], *, dry_run: bool) -> None:
    rows = [
        (name, one_line(report.url), str(report.present), *(str(len(each)) for each in (report.copied, report.healed, report.failed)))
        for name, report in reports
    ]  # fmt: skip
    print_table(COLUMNS, rows)
    word = "would be copied" if dry_run else "copied"
    for name, report in reports:
        for identifier in (*report.copied, *report.healed):
            say(f"{name}/{identifier}: {word} to {one_line(report.url)}")
    if dry_run:
        say("Nothing was changed.")
