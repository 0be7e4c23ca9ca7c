"""
A restore of a real cluster through the DAG `restore`, with what it must show afterwards: the second half of
``make acceptance … RESTORE=yes``. **The control plane goes down, and what was written since the backup is lost.**
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from etcdkeep import naming
from etcdkeep.acceptance.airflow import FINISHED
from etcdkeep.acceptance.gated_run import APPROVE, REJECT, NeverAsked
from etcdkeep.acceptance.markers import AS_BACKED_UP, CHANGED, markers_of, settle
from etcdkeep.acceptance.outage import Outage
from etcdkeep.acceptance.restore_run import DAG, RestoreRun
from etcdkeep.acceptance.telling import CheckFailed, follow, program
from etcdkeep.restore.outage import down_time_s
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.steps import PHASES
from etcdkeep.say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from etcdkeep.acceptance.airflow import Airflow
    from etcdkeep.acceptance.markers import Markers
    from etcdkeep.acceptance.telling import AcceptanceReport
    from etcdkeep.adapters.kube.connection import KubeConnection
    from etcdkeep.restore.engine import StepEvent
    from etcdkeep.site.site import Site

REASON = "make acceptance RESTORE=yes"
EXPECTED = "no restore is needed"
"""The one finding that acceptance overrides: the cluster is healthy."""
READY_S = 180.0
UNHURRIED_S = 10.0
"""A site's machine may be busy, and then Airflow's scheduler sees a parked gate late."""
GONE = "gone"
"""The state of a run whose Airflow does not answer."""
PEOPLE = (("approve", "alice"), ("approve_second", "bob"))


def announce(name: str) -> str:
    """Say what will be done to a cluster, before anything is."""
    return (
        f"RESTORE=yes: cluster {name} will be RESTORED from the backup that is made now. Its control plane goes down for some seconds, and what\n"
        "anybody writes to it between backup and restore is lost. Not for a cluster that somebody needs today.\n"
        "Ctrl-C before the plan is shown ends it with nothing changed."
    )


@dataclass
class Restoration:
    """
    One restore, from the changed marker to the last check.

    :param identity: File with the private age key.
    :param folder: A private folder in memory.
    :param reading_s: How long people take to answer.
    """

    airflow: Airflow
    site: Site
    identity: Path
    folder: Path
    report: AcceptanceReport
    reading_s: float = UNHURRIED_S
    run: RestoreRun | None = None
    restore: str = ""
    marked: str = ""
    approved: bool = False

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.site.cluster.name

    def under_way(self) -> bool:
        """Whether the restore may have begun, and is neither finished nor rolled back: then Airflow must go on running."""
        if not self.approved:
            return False
        if self._state() not in (*FINISHED, GONE):
            return True
        record = self.record()
        outcome = record.outcome()
        return record.begun() is not None and (outcome is None or outcome.kind in ("held", "incomplete"))

    def go(self, back_up: Callable[[], str | None]) -> None:
        """
        Mark the cluster, back it up, restore and check it, and remove the marks; tell all of it.

        :param back_up: Returns the id of a good backup, made now; None when there is none to restore from.
        """
        markers = markers_of(self.site)
        self.marked = markers.where
        try:
            if self.report.check("a marker is made", lambda: _marked(markers)) and (backup := back_up()):
                self._restore(markers, backup)
            else:
                say(
                    f"\n{self.name} was not restored, since a check above failed. Repair its cause, then start again.\n"
                )
        finally:
            if not self.under_way():
                self.report.check("the markers are removed", lambda: _removed(markers))

    def _restore(self, markers: Markers, backup: str) -> None:
        self.report.check("the marker is changed, a later one made", lambda: _spoiled(markers))
        self.run = RestoreRun.start(self.airflow, self.name, backup=backup, override=True, reason=REASON)
        self.run.reading_s = self.reading_s
        begun = self.airflow.call("GET", f"/dags/{self.run.dag}/dagRuns/{self.run.run_id}")
        self.restore = naming.restore_id(self.name, datetime.fromisoformat(begun["run_after"]), self.run.run_id)
        say(f"\n{self.run.dag}: running ({self.run.run_id})")
        with Outage(self._client()) as outage:
            self._ask(self.run)
            state = follow(self.airflow, self.run.dag, self.run.run_id)["state"]
            time.sleep(outage.once_more_s)
        say()
        if self.report.check("the restore brought the cluster back", lambda: self._restored(state, outage)):
            self.report.check("the marker is as backed up, the later one gone", lambda: settle(markers, AS_BACKED_UP))
            for what, work in self._checks():
                self.report.check(what, work)
            say(f"\n{self._set_aside()}\n")
        elif not self.under_way():
            say(f"\n{self.standing()}\n")

    def record(self) -> RestoreRecord:
        """Return the record that the restore keeps of itself."""
        return RestoreRecord(self.site.repository.records, self.name, self.restore)

    def standing(self) -> str:
        """Say in what state the cluster is after a restore that did not end well, and what to do next."""
        state, record = self._state(), self.record()
        outcome, words = record.outcome(), [f"Logs of the tasks: {self.airflow.home / 'logs'}. State of {self.name}:"]
        if state not in (*FINISHED, GONE):
            words.append(f"restore {self.restore} is running. {self._here()}: it ends or rolls back there.")
        elif record.begun() is None:
            words.append("nothing was changed. Repair the causes above, then start again.")
        elif outcome is None:
            words.append(f"restore {self.restore} was begun, and is neither finished nor rolled back.")
        else:
            words += [outcome.words, *(f"  {line}" for line in (*outcome.notes, *outcome.remaining))]
        if self.under_way() and state == GONE:
            words.append(
                f"Airflow is gone. Finish the restore or roll it back by hand, docs/runbook.md: python -m etcdkeep runbook {self.name} --begun "
                f"{self.restore}"
            )
        elif self.under_way() and state in FINISHED:
            words.append(f"{self._here()}: repair the cause, then clear its task `rollback`.")
        if self.under_way():
            words.append(
                f"The markers stay: {self.marked}. The next `make acceptance` stops this Airflow when the run has ended."
            )
        return "\n".join(words)

    # --- the run -----------------------------------------------------------------------------------------------------

    def _ask(self, run: RestoreRun) -> None:
        """Show the plan, and have two people approve it; with a blocking problem that was not expected, one rejects it."""
        try:
            page = str(run.asked("approve")["body"])
            say(f"\n{page}\n")
            if unexpected := list(overridden(page)):
                self.report.check("preflight found no other blocking problem", lambda: _fail("; ".join(unexpected)))
                run.answer("approve", "alice", REJECT)
                return
            for gate, person in PEOPLE:
                self.approved = gate == PEOPLE[-1][0]
                run.answer(gate, person, APPROVE)
                say(f"  {gate}: {person} approved")
        except NeverAsked:
            say("  nobody was asked")

    def _restored(self, state: str, outage: Outage) -> str:
        record = self.record()
        outcome = record.outcome()
        if state != "success" or outcome is None or outcome.kind != "restored":
            raise CheckFailed(f"the run ended as {state}, the restore as {outcome.kind if outcome else 'not begun'}")
        events = record.events()
        for line in timeline(events):
            say(line)
        for note in outcome.notes:
            say(f"  note: {note}")
        here = (
            "not asked from here" if outage.down_s is None else f"{outage.down_s:.1f} s as /readyz was seen from here"
        )
        return f"down for {down_time_s(events):.1f} s by its record (first stop to ready), {here}"

    # --- the checks --------------------------------------------------------------------------------------------------

    def _checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        if self.site.cluster.control_plane.has_nodes:
            yield "python -m etcdkeep kubeconfig", self._open_kubeconfig
            yield "kubectl with it: /readyz", lambda: self._kubectl("get", "--raw=/readyz")
            yield "kubectl with it: nodes are ready", lambda: self._all_ready("nodes")
        else:
            yield "pods of the control plane are ready", self._pods_ready

    def _open_kubeconfig(self) -> str:
        argv = (
            sys.executable,
            "-m",
            "etcdkeep",
            "kubeconfig",
            self.name,
            self.restore,
            "--to",
            str(self.folder / "kubeconfig"),
        )
        environment = {**os.environ, "ETCDKEEP_AGE_IDENTITY": str(self.identity)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckFailed(f"exit code {done.returncode}: {done.stdout}{done.stderr}")
        return f"as of {self.restore}"

    def _kubectl(self, *arguments: str) -> str:
        argv = (program("kubectl"), "--kubeconfig", str(self.folder / "kubeconfig"), *arguments)
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CheckFailed(f"kubectl {' '.join(arguments)}: exit code {done.returncode}: {done.stderr[-500:]}")
        return done.stdout

    def _all_ready(self, kind: str) -> str:
        return _wait_ready(lambda: json.loads(self._kubectl("get", kind, "-o", "json"))["items"])

    def _pods_ready(self) -> str:
        cluster = self.site.cluster
        names = (
            cluster.control_plane.workloads.etcd,
            *(each.partition("/")[2] for each in cluster.control_plane.workloads.clients),
        )
        pods = f"/api/v1/namespaces/{cluster.namespace}/pods"
        return _wait_ready(
            lambda: [pod for pod in self.site.api.list(pods) if pod["metadata"]["name"].startswith(names)]
        )

    # --- words -------------------------------------------------------------------------------------------------------

    def _set_aside(self) -> str:
        record = self.record()
        outcome, command = record.outcome(), f"python -m etcdkeep restore-leftovers {self.name}"
        return f"{outcome.words if outcome else ''}\nList it: {command}   Remove it: {command} --remove {self.restore}"

    def _here(self) -> str:
        run = f"{self.run.dag}/runs/{self.run.run_id}" if self.run else self.airflow.on_verify_queue(DAG)
        return f"Airflow goes on at {self.airflow.url}/dags/{run} (passwords: {self.airflow.home / 'passwords.json'})"

    def _state(self) -> str:
        if self.run is None:
            return GONE
        try:
            return str(self.airflow.call("GET", f"/dags/{self.run.dag}/dagRuns/{self.run.run_id}")["state"])
        except OSError:
            return GONE

    def _client(self) -> KubeConnection | None:
        cluster = self.site.cluster
        reference = cluster.kubeconfig if cluster.control_plane.has_nodes else cluster.own_kubeconfig
        return self.site.credentials.api_client(reference) if reference else None


def overridden(page: str) -> Iterator[str]:
    """Yield the overridden problems on an approver's page, but for the expected one."""
    for line in page.splitlines():
        _, mark, sentence = line.partition("**OVERRIDDEN:** ")
        if mark and EXPECTED not in sentence:
            yield sentence


def timeline(events: list[StepEvent]) -> Iterator[str]:
    """Yield a line per phase: when it began, counted from the first stop, and how long it took."""
    stopped = min((event.at for event in events if event.phase == "stop"), default=None)
    for phase in PHASES:
        times = [event.at for event in events if event.phase == phase]
        if times and stopped is not None:
            yield f"  {phase:<14} at {min(times) - stopped:+6.1f} s, for {max(times) - min(times):5.1f} s"


def _wait_ready(listing: Callable[[], list[dict[str, Any]]]) -> str:
    deadline = time.monotonic() + READY_S
    while True:
        items = listing()
        late = [item["metadata"]["name"] for item in items if not _is_ready(item)]
        if items and not late:
            return ", ".join(item["metadata"]["name"] for item in items)
        if time.monotonic() > deadline:
            raise CheckFailed(f"not ready after {READY_S:.0f} s: {', '.join(late) or 'there is none'}")
        time.sleep(1)


def _is_ready(item: dict[str, Any]) -> bool:
    conditions = item["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _marked(markers: Markers) -> str:
    markers.write()
    return settle(markers, AS_BACKED_UP)


def _spoiled(markers: Markers) -> str:
    markers.spoil()
    return settle(markers, CHANGED)


def _removed(markers: Markers) -> str:
    markers.remove()
    return markers.where


def _fail(words: str) -> str:
    raise CheckFailed(words)
