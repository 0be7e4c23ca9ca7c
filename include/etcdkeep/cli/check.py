"""``check``: are the backups fresh? For people, programs and monitoring plugins."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from etcdkeep.cli.common import open_cluster
from etcdkeep.cli.output import print_json
from etcdkeep.config.loading import load_config
from etcdkeep.errors import ConfigError, EtcdkeepError
from etcdkeep.freshness.check import check_stored, not_checked
from etcdkeep.freshness.report import EXIT_CODES, CheckReport, unknown, worst
from etcdkeep.plain_text import one_line
from etcdkeep.say import say
from etcdkeep.side_by_side import side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.freshness.check import Checked
    from etcdkeep.freshness.report import CheckFinding, Measure


class _WrongUsage(click.UsageError):
    exit_code = EXIT_CODES["UNKNOWN"]


class _Plugin(click.Command):
    """Ends with 3 on wrong usage, as monitoring plugins do."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as err:
            raise _WrongUsage(err.format_message(), err.ctx) from err


@click.command(cls=_Plugin)
@click.argument("cluster", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--nagios", is_flag=True, help="Print as a monitoring plugin does: one line, with performance data.")
def check(cluster: str | None, as_json: bool, nagios: bool) -> None:
    """
    Say whether the backups of CLUSTER, or of every configured cluster, are fresh and good, by their repository alone.

    Exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    """
    reports = _check_all(cluster)
    status = worst(report.status for report in reports)
    if as_json:
        print_json({"status": status, "clusters": [report_json(report) for report in reports]})
    elif nagios:
        _print_plugin(reports)
    else:
        _print_people(reports)
    sys.exit(EXIT_CODES[status])


def report_json(report: CheckReport) -> dict[str, Any]:
    """Return what ``check --json`` prints of a cluster."""
    return {
        "cluster": report.cluster,
        "status": report.status,
        "findings": [vars(finding) for finding in report.findings],
        "measures": {name: vars(measure) for name, measure in report.measures.items()},
    }


def _check_all(cluster: str | None) -> list[CheckReport]:
    """Check one cluster or all; what cannot be read, and an entry that is not usable, is UNKNOWN."""
    try:
        config = load_config()
    except EtcdkeepError as err:
        return [unknown(cluster or "configuration", str(err))]
    reports = list(side_by_side(lambda name: check_one(name).report, [cluster] if cluster else config.clusters))
    if not cluster:
        try:
            config.raise_for_problems()
        except ConfigError as err:
            reports.append(unknown("configuration", str(err)))
        if not reports:
            reports.append(unknown("configuration", f"{config.source} names no cluster"))
    return reports


def check_one(name: str) -> Checked:
    """Check one cluster; what cannot be read is UNKNOWN."""
    try:
        site = open_cluster(name)
        return check_stored(site.repository, site.cluster, datetime.now(UTC), site.copies)
    except (EtcdkeepError, OSError) as err:
        return not_checked(name, str(err), datetime.now(UTC))


def _print_people(reports: Sequence[CheckReport]) -> None:
    for report in reports:
        say(f"{report.cluster}: {report.status}")
        for finding in (*report.alarms, *(each for each in report.findings if each.status == "OK")):
            say(f"  {finding.status:<8} {finding.topic:<12} {one_line(finding.sentence)}")


def _print_plugin(reports: Sequence[CheckReport]) -> None:
    status = worst(report.status for report in reports)
    alarms = [f"{report.cluster}: {_words(finding)}" for report in reports for finding in report.alarms[:1]]
    said = "; ".join(alarms) or f"the backups of {len(reports)} cluster(s) are fresh and good"
    graphs = [
        f"'{report.cluster}_{name}'={_graph(measure)}"
        for report in reports
        for name, measure in report.measures.items()
        if measure.value is not None
    ]
    say(f"ETCDKEEP {status} - {said}" + (f" | {' '.join(graphs)}" if graphs else ""))
    for report in reports:
        for finding in report.alarms:
            say(f"{report.cluster} {finding.status} {finding.topic}: {_words(finding)}")


def _words(finding: CheckFinding) -> str:
    """Return a sentence without what would begin performance data."""
    return one_line(finding.sentence).replace("|", "/")


def _graph(measure: Measure) -> str:
    limits = (f"{limit:.0f}" if limit is not None else "" for limit in (measure.warn, measure.fail))
    return ";".join((f"{measure.value:.0f}{measure.unit}", *limits)).rstrip(";")
