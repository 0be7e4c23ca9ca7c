"""A restore of one of the lab's clusters, by the domain alone: backed up, spoiled, looked over, planned, walked."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from etcdkeep.restore.engine import Engine, StepEvent
from etcdkeep.restore.options import Options
from etcdkeep.restore.prepare import Prepared, prepare_restore
from etcdkeep.restore.report import RestoreReport, inspect
from etcdkeep.restore.runbook import rollback_script
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.restore_world import open_world
from etcdkeep.site.site import Site
from lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.steps import Plan
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.site.restore_world import RestoreWorld
    from lab.site import ClusterHandle
    from tests.backup_run import BackupRun

NAMESPACE = "shop"
SETTLED_S = 150.0


@dataclass
class Markers:
    """Objects that tell whether a cluster is as it was backed up, or as it was spoiled afterwards."""

    cluster: ClusterHandle
    kept: str = field(default_factory=lambda: f"kept-{uuid.uuid4().hex[:8]}")
    late: str = field(default_factory=lambda: f"late-{uuid.uuid4().hex[:8]}")

    def write(self) -> None:
        """Before the backup."""
        self._kubectl("create", "configmap", self.kept, "--from-literal=is=as-backed-up")

    def spoil(self) -> None:
        """After the backup: one object is changed, one deleted, one made."""
        self._kubectl("patch", "configmap", self.kept, "--type=merge", "-p", '{"data":{"is":"spoiled"}}')
        self._kubectl("create", "configmap", self.late, "--from-literal=is=late")

    def seen(self) -> tuple[str, bool]:
        """Return what the kept object says, and whether the late one is there."""
        value = self._kubectl("get", "configmap", self.kept, "-o", "jsonpath={.data.is}")
        return value, bool(self._kubectl("get", "configmap", self.late, "--ignore-not-found", "-o", "name"))

    def _kubectl(self, *args: str) -> str:
        return self.cluster.kubectl("-n", NAMESPACE, *args).stdout.decode()


AS_BACKED_UP = ("as-backed-up", False)
SPOILED = ("spoiled", True)


class LabRestore:
    """A finished backup of a cluster, whose markers were spoiled afterwards."""

    def __init__(self, run: BackupRun) -> None:
        self.run = run
        self.cluster = run.handle
        self.markers = Markers(run.handle)
        self.markers.write()
        self.found: BackupSet = run.whole()
        self.markers.spoil()
        self.site = Site(run.cluster, FileCredentials(), self.found)
        self.events: list[StepEvent] = []

    def options(self, **choices: Any) -> Options:
        """Return the choices of a new restore."""
        what = ("etcd", "pki") if self.site.cluster.control_plane.has_nodes else ("etcd",)
        return Options(f"restore-{uuid.uuid4().hex[:8]}", datetime.now(UTC), **{"what": what} | choices)

    def prepare(self, **choices: Any) -> Prepared:
        """Look everything over and plan."""
        options, identities = self.options(**choices), self.site.identities()
        return prepare_restore(self.site, self.found, options, identities, now=datetime.now(UTC))

    def plan(self, **choices: Any) -> Plan:
        """Return the plan alone."""
        prepared = self.prepare(**choices)
        assert prepared.plan is not None, prepared.findings
        return prepared.plan

    @contextmanager
    def engine(self, plan: Plan) -> Iterator[Engine]:
        """Open the plan's places; what happens goes to `events`."""
        with self.world(plan) as world:
            yield Engine(plan, world, self.events.append, by_hand=partial(rollback_script, ssh=self.site.cluster.ssh))

    def world(self, plan: Plan) -> RestoreWorld:
        """Return the plan's places."""
        return open_world(self.site, plan, self.found)

    def report(self, plan: Plan) -> RestoreReport:
        """Compare the restored cluster with what was planned."""
        with self.world(plan) as world:
            return inspect(world, self.site.cluster, plan, api=lambda: self.site.api)

    def expect(self, seen: tuple[str, bool]) -> None:
        """Wait until every server of the cluster shows these markers: right after a start, one may still be on its way."""

        def shows() -> bool:
            try:
                return self.markers.seen() == seen
            except Exception:  # noqa: BLE001 - whatever kubectl meets while servers start
                return False

        wait_for(shows, f"{self.cluster.name} to show {seen}", SETTLED_S)

    def ruin(self) -> None:
        """Damage every member's database: etcd ends at each start, and the API is gone."""
        for member in self.cluster.members:
            member.ruin()
        wait_for(lambda: self.cluster.kubectl("get", "--raw=/readyz", check=False).returncode, "the API to be gone")
