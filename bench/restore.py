"""
A restore of a 200 MiB snapshot on harbor, from the second approval to ``/readyz``, against the vendor's commands in a script.

The product works as its users see it: a run of the DAG, answered through Airflow's REST API; its set is sealed and is in a
directory. The script's admin has the plain files at hand. Both go through the jump host. Beside them the same plan is
run without Airflow. Downtime is from the first stop to the first ``ok`` of ``/readyz``, asked from outside.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import ssl
import statistics
import tempfile
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from bench.airflow_runs import running_airflow
from bench.report import Row, taking_turns
from bench.site import filled_lab
from bench.vendor_restore import VendorRestore
from etcdkeep import naming
from etcdkeep.acceptance.restore_run import DAG, RestoreRun
from etcdkeep.config.loading import parse_config
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.options import Options
from etcdkeep.restore.prepare import prepare_restore
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.rehearse import rehearse
from etcdkeep.restore.steps import OUTAGE
from etcdkeep.sets.opening import unseal_set
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.restore_world import open_world
from etcdkeep.site.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from etcdkeep.acceptance.airflow import Airflow
    from etcdkeep.restore.engine import StepEvent
    from etcdkeep.restore.steps import Plan
    from etcdkeep.sets.backup_set import BackupSet
    from lab.site import NodeHandle

TITLE = "restore of a 200 MiB snapshot"
SIZE_MIB = 175
"""Of values; with keys and what the lab itself keeps, the snapshot is of about 200 MiB."""
TOTAL_TARGET = 1.3
KUBELET_TARGET = 0.35
MANIFESTS_TARGET = 1.0
REHEARSAL_TARGET_S = 5.0
ASK_EVERY_S = 0.05
BACK_S = 300.0
SETTLE_S = 5.0
TURNS = 3

Way = Literal["kubelet", "manifests"]


@dataclass(frozen=True)
class Times:
    """One restore, in seconds: from the approval to ``/readyz``, and from the first stop to it."""

    total_s: float
    down_s: float


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    with (
        filled_lab(folder, SIZE_MIB) as lab,
        running_airflow(folder, lab, ["harbor"]) as airflow,
        tempfile.TemporaryDirectory(dir=folder) as work,
    ):
        harbor = lab.clusters["harbor"]
        site = Site(parse_config(airflow.config.read_text(), str(airflow.config)).cluster("harbor"), FileCredentials())
        found = _back_up(airflow, site)
        bench = _Bench(site, airflow, found, ReadyProbe(lab.layout.clusters["harbor"].server), harbor.node)
        script = VendorRestore.prepare(lab, harbor, _plain(site, found, Path(work)), Path(work))
        late = lab.layout.clusters["harbor"].node(harbor.node.name).api_ends_late
        rehearsed = [_rehearse(site, found) for _ in range(TURNS)]
        at_once = _measure(bench, script)
        late.touch()
        try:
            graced = _measure(bench, script)
        finally:
            late.unlink()
    size_mib = found.manifest.snapshot.size_bytes / 2**20 if found.manifest else 0
    return [
        Row("snapshot", f"{size_mib:.0f} MiB"),
        Row(
            "rehearsal: all that preflight asks, of this set",
            f"{statistics.median(rehearsed):.2f} s",
            f"< {REHEARSAL_TARGET_S:g} s",
            statistics.median(rehearsed) < REHEARSAL_TARGET_S,
        ),
        *_rows("API server that ends at once", at_once, real=False),
        *_rows("API server that takes its 30 s of grace, as a real one", graced, real=True),
    ]


def _measure(bench: _Bench, script: VendorRestore) -> list[list[Times]]:
    """Let all take turns."""
    return taking_turns(
        lambda: bench.vendor(script),
        lambda: bench.through_airflow("kubelet"),
        lambda: bench.through_airflow("manifests"),
        lambda: bench.direct("kubelet"),
        repetitions=TURNS,
    )


def _rows(api: str, measured: list[list[Times]], *, real: bool) -> list[Row]:
    """
    Return the rows of one kind of API server.

    :param real: Whether it ends as a real one, which is what the targets are about.
    """
    vendor, *ours = measured
    total_target = TOTAL_TARGET if real else None
    down_targets = (KUBELET_TARGET, MANIFESTS_TARGET, None) if real else (None, None, None)
    works = (
        ("DAG, way `kubelet`", total_target),
        ("DAG, way `manifests`", total_target),
        ("without Airflow, way `kubelet`", None),
    )
    rows = [Row(f"{api}: the vendor's commands", f"{_shown(vendor, _total)}, of it down {_shown(vendor, _down)}")]
    for (work, target), down_target, times in zip(works, down_targets, ours, strict=True):
        rows.append(_row(f"{work}: approval to `/readyz`", times, vendor, _total, target))
        rows.append(_row(f"{work}: down", times, vendor, _down, down_target))
    return rows


def _row(
    what: str, ours: Sequence[Times], vendor: Sequence[Times], part: Callable[[Times], float], target: float | None
) -> Row:
    ratio = statistics.median(map(part, ours)) / statistics.median(map(part, vendor))
    shown = f"{_shown(ours, part)}, {ratio:.2f}×"
    return Row(what, shown) if target is None else Row(what, shown, f"≤ {target}×", ratio <= target)


class ReadyProbe:
    """
    Asks the API server's ``/readyz`` from outside, as a load balancer does.

    :param server: The API's URL.
    """

    def __init__(self, server: str) -> None:
        where = urlsplit(server)
        self._address = str(where.hostname), where.port or 443
        self._trust = ssl._create_unverified_context()

    def wait_gone(self) -> None:
        """Return when nobody listens any more."""
        self._wait(lambda: not self._listens())

    def wait_ready(self) -> float:
        """Return the time (epoch) at which it said ``ok``."""
        self._wait(self._is_ready)
        return time.time()

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + BACK_S
        while not done():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the API server at {self._address} did not stop and come back within {BACK_S:g} s")
            time.sleep(ASK_EVERY_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection(self._address, timeout=ASK_EVERY_S * 20).close()
        except OSError:
            return False
        return True

    def _is_ready(self) -> bool:
        connection = http.client.HTTPSConnection(*self._address, context=self._trust, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().read() == b"ok"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass(frozen=True)
class _Bench:
    """The works that take turns; each leaves the cluster on the same backup, and nothing behind."""

    site: Site
    airflow: Airflow
    found: BackupSet
    probe: ReadyProbe
    node: NodeHandle

    def vendor(self, script: VendorRestore) -> Times:
        """Time the vendor's commands."""
        began = _settled()
        stopped = script.run()
        ready = self.probe.wait_ready()
        script.clear()
        return Times(ready - began, ready - stopped)

    def through_airflow(self, way: Way) -> Times:
        """Time a run of the DAG, from the second answer on."""
        restore = RestoreRun.start(
            self.airflow, "harbor", backup=self.found.backup_id, way=way, override=True, reason="bench"
        )
        restore.answer("approve", "alice")
        os.sync()
        restore.answer("approve_second", "bob")
        self.probe.wait_gone()
        ready = self.probe.wait_ready()
        if restore.ended() != "success":
            raise RuntimeError(f"the restore {restore.run_id} failed: {restore.states()}")
        record = self._record(restore)
        approved = max(each.at for each in record.gates.answers()).timestamp()
        self._clear()
        return Times(ready - approved, ready - _first_stop(record.events()))

    def direct(self, way: Way) -> Times:
        """Time a plan that is run without Airflow."""
        events: list[StepEvent] = []
        plan = self._plan(way)
        with open_world(self.site, plan, self.found) as world:
            engine = Engine(plan, world, events.append)
            began = _settled()
            engine.walk(("stage", "restore_etcd", *OUTAGE))
            ready = self.probe.wait_ready()
            engine.walk(("verify",))
        self._clear()
        return Times(ready - began, ready - _first_stop(events))

    def _plan(self, way: Way) -> Plan:
        options = Options(f"restore-{uuid.uuid4().hex[:8]}", datetime.now(UTC), ("etcd", "pki"), way)
        ready = prepare_restore(self.site, self.found, options, self.site.identities(), now=datetime.now(UTC))
        return ready.plan_to_approve("harbor", override=True)

    def _record(self, restore: RestoreRun) -> RestoreRecord:
        run = self.airflow.call("GET", f"/dags/{DAG}/dagRuns/{restore.run_id}")
        name = naming.restore_id("harbor", datetime.fromisoformat(run["run_after"]), restore.run_id)
        return RestoreRecord(self.site.repository.records, "harbor", name)

    def _clear(self) -> None:
        """Remove what was set aside, so that the disk does not fill; `restore-leftovers` would ask each time."""
        for folder in self.node.root.rglob(".etcdkeep"):
            shutil.rmtree(folder)


def _back_up(airflow: Airflow, site: Site) -> BackupSet:
    """Back harbor up, and return the set."""
    run_id = airflow.trigger("backup__harbor", {"reason": "bench"})
    run = airflow.wait("backup__harbor", run_id)
    if run["state"] != "success":
        raise RuntimeError(f"backup__harbor {run_id} ended as {run['state']}")
    identifier = naming.backup_id("harbor", datetime.fromisoformat(run["logical_date"]), run_id)
    return site.repository.get("harbor", identifier)


def _rehearse(site: Site, found: BackupSet) -> float:
    """Rehearse a restore of the set as the nightly task does; return the seconds that it took."""
    rehearsal = rehearse(site, found, site.identities(), now=datetime.now(UTC))
    if rehearsal.restorable != "yes":
        raise RuntimeError(f"{found.name} is not restorable: {'; '.join(rehearsal.reasons)}")
    return rehearsal.seconds


def _plain(site: Site, found: BackupSet, folder: Path) -> Path:
    """Unseal a set, and return its folder: ``etcd.db`` and ``pki/``."""
    identities = site.identities()
    if found.manifest is None or identities is None:
        raise RuntimeError(f"{found.name} cannot be opened")
    plain = folder / "plain"
    plain.mkdir(mode=0o700)
    unseal_set(site.repository.store, found, found.manifest, identities, plain, lambda done, of: None)
    (pki,) = plain.glob("control-plane*/pki")
    (plain / "pki").symlink_to(pki)
    return plain


def _settled() -> float:
    """Let the cluster come to rest and the disk write what it has to, and return the time (epoch)."""
    time.sleep(SETTLE_S)
    os.sync()
    return time.time()


def _first_stop(events: Sequence[StepEvent]) -> float:
    return min(event.at for event in events if event.phase == "stop")


def _total(times: Times) -> float:
    return times.total_s


def _down(times: Times) -> float:
    return times.down_s


def _shown(measured: Sequence[Times], part: Callable[[Times], float]) -> str:
    """Return median and range."""
    values = [part(times) for times in measured]
    return f"{statistics.median(values):.2f} s ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    from bench.report import print_rows
    from bench.snapshot_file import bench_dir

    print_rows(TITLE, run(bench_dir()))
