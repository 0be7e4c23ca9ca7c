"""The operators that keep a cluster's backups as its retention says, check them, and report on all clusters."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from etcdkeep.errors import EtcdkeepError, NeedsAttention, RequestRefused
from etcdkeep.freshness.check import check_stored, not_checked
from etcdkeep.metrics.samples import samples_of
from etcdkeep.plain_text import one_line
from etcdkeep.retention.prune import Pruner
from etcdkeep_airflow.gauges import send_gauges
from etcdkeep_airflow.notifications.staleness import tell_checks
from etcdkeep_airflow.operators.base import CLEANUP_COLOR, ClusterOperator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from airflow.sdk import Context

    from etcdkeep.config.copies import Copy
    from etcdkeep.freshness.report import CheckReport
    from etcdkeep.retention.prune import PruneReport


class HousekeepingOperator(ClusterOperator):
    """
    Prunes one cluster, as a dry run unless its retention is enforced, checks its backups, and sends their metrics.

    What is wrong with the backups is its answer and no failure: the report fails. It fails where the repository or the
    signing key cannot be read.
    """

    ui_color = CLEANUP_COLOR

    def execute(self, context: Context) -> dict[str, Any]:
        try:
            kept = self._keep(context)
        except EtcdkeepError:
            with suppress(EtcdkeepError):  # the metrics say how the backups are, whatever failed
                self._check()
            raise
        of_copies = [problem for copy in self.site.cluster.copies for problem in self._keep_copy(copy, context)]
        checked = self._check()
        for finding in checked.findings:
            self.log.info(
                "cluster %s: %s %s: %s", self.cluster, finding.status, finding.topic, one_line(finding.sentence)
            )
        return {
            "cluster": self.cluster,
            "status": checked.status,
            "alarms": [f"{finding.status}: {finding.sentence}" for finding in checked.alarms],
            "late": [finding.sentence for finding in checked.alarms if finding.topic == "good"],
            **kept,
            **({"copies": of_copies} if self.site.cluster.copies else {}),
        }

    def _check(self) -> CheckReport:
        try:
            checked = check_stored(self.site.repository, self.site.cluster, _now(), self.site.copies)
        except EtcdkeepError as err:
            send_gauges(samples_of(not_checked(self.cluster, str(err), _now())))
            raise
        send_gauges(samples_of(checked))
        return checked.report

    def _keep(self, context: Context) -> dict[str, Any]:
        site = self.site
        return self._kept(Pruner(site.repository, site.cluster, lambda: site.spool_store, self._by(context), _now))

    def _keep_copy(self, copy: Copy, context: Context) -> list[str]:
        """Keep a copy by its own rules, and return what is wrong; a copy that is gone does not keep the rest from being done."""
        site, kept = self.site, self.site.cluster.at_copy(copy)
        try:
            repository = site.copies[copy.repository]()
            answer = self._kept(
                Pruner(
                    repository,
                    kept,
                    lambda: site.store_at(kept.spool_url, kept.repository_connection),
                    self._by(context),
                    _now,
                )
            )
        except EtcdkeepError as err:
            return [f"copy {copy.repository}: {err}"]
        return [f"copy {copy.repository}: {sentence}" for sentence in _not_kept(answer)]

    def _by(self, context: Context) -> str:
        return f"{self.dag_id} {context['run_id']}"

    def _kept(self, pruner: Pruner) -> dict[str, Any]:
        """Prune, or say what would go, and extend locks; another housekeeping at work is an answer, no failure."""
        try:
            unlocked = pruner.renew_locks()
            return self._pruned(pruner) | {"unlocked": unlocked}
        except RequestRefused as err:
            self.log.warning("cluster %s: %s", self.cluster, one_line(str(err)))
            return {"retention": "enforced", "refused": [str(err)], "unlocked": []}

    def _pruned(self, pruner: Pruner) -> dict[str, Any]:
        rules = pruner.cluster.retention
        if rules is None:
            self.log.info("cluster %s: no retention, so nothing is removed", self.cluster)
            return {"retention": "none"}
        report = pruner.run() if rules.enforce else pruner.dry_run()
        for verdict in report.plan.verdicts:
            word = "keep" if verdict.keep else "remove" if rules.enforce else "would remove"
            self.log.info("backup %s/%s: %s: %s", self.cluster, verdict.found.backup_id, word, one_line("; ".join(verdict.reasons)))  # fmt: skip
        for sentence in (*report.refused, *report.attention, *report.warnings):
            self.log.warning("cluster %s: %s", self.cluster, one_line(sentence))
        return _pruned_json(report)


class ReportOperator(BaseOperator):
    """
    Tells of every cluster what was found and done, and fails when a person has to act.

    :param clusters: Which clusters must have an answer.
    :param results: What the housekeeping tasks returned, a list for each queue. For reading only: `check` asks the repository.
    """

    ui_color = CLEANUP_COLOR
    template_fields: Sequence[str] = ("results",)

    def __init__(self, *, clusters: Sequence[str], results: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clusters = clusters
        self.results = results

    def execute(self, context: Context) -> dict[str, Any]:
        found = {each["cluster"]: each for each in _answers(self.results)}
        problems, to_tell = [], dict[str, list[str]]()
        for name in self.clusters:
            answer = found.get(name)
            self.log.info("cluster %s: %s", name, one_line(_summary(answer)))
            found_wrong = list(_problems(answer))
            problems += [f"{name}: {problem}" for problem in found_wrong]
            to_tell[name] = found_wrong or _late(answer)
        tell_checks(to_tell, context)
        if problems:
            raise NeedsAttention(f"the backups of {len(self.clusters)} cluster(s) were checked:", tuple(problems))
        return {name: found[name]["status"] for name in self.clusters}


def _pruned_json(report: PruneReport) -> dict[str, Any]:
    going = [each.found.backup_id for each in report.plan.removed]
    return {
        "retention": "dry run" if report.dry_run else "enforced",
        "removed": report.removed,
        "would_remove": going if report.dry_run else [],
        "refused": list(report.refused),
        "stayed": report.stayed,
        "attention": list(report.attention),
        "kept": len(report.plan.kept),
    }


def _answers(results: Any) -> Iterator[Mapping[str, Any]]:
    for queue in results or ():
        for each in queue or ():
            if isinstance(each, dict) and isinstance(each.get("cluster"), str):
                yield each


def _summary(answer: Mapping[str, Any] | None) -> str:
    if answer is None:
        return "no answer"
    counts = {name: len(answer[name]) for name in ("removed", "would_remove", "stayed") if answer.get(name)}
    pruned = ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing to remove"
    return f"{answer.get('status')}; retention {answer.get('retention')}: {pruned}"


def _late(answer: Mapping[str, Any] | None) -> list[str]:
    """Return that the newest good backup is older than `warn_after`: people are told, and the report does not fail yet."""
    late = (answer or {}).get("late")
    return [str(sentence) for sentence in late] if isinstance(late, list) else []


def _problems(answer: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what a person has to act on."""
    if answer is None:
        yield "its housekeeping failed; see that task's log"
        return
    if answer.get("status") not in ("OK", "WARNING"):
        yield from (str(alarm) for alarm in answer.get("alarms") or [str(answer.get("status"))])
    yield from _not_kept(answer)
    yield from (str(problem) for problem in answer.get("copies") or ())


def _not_kept(answer: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(sentence) for name in ("unlocked", "attention") for sentence in answer.get(name) or ())
    if answer.get("retention") == "enforced":
        ended = "removing has stopped" if answer.get("removed") else "nothing was removed"
        yield from (f"{ended}: {sentence}" for sentence in answer.get("refused") or ())
        yield from (f"{identifier} was not removed: {why}" for identifier, why in (answer.get("stayed") or {}).items())


def _now() -> datetime:
    return datetime.now(UTC)
