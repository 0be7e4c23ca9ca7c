"""What Airflow on Celery, Redis and PostgreSQL stands: killed workers, the broker away, the database restarted, two schedulers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from etcdkeep.acceptance.airflow import PROJECT
from etcdkeep.acceptance.celery_airflow import CeleryAirflow, missing_programs
from etcdkeep.acceptance.services import can_mount
from lab.waiting import wait_for
from tests.e2e.kills import kill_worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.acceptance.airflow import Airflow
    from etcdkeep.acceptance.services import Service
    from lab import Site
    from tests.e2e.conftest import Catalogue

MISSING = missing_programs()
pytestmark = [pytest.mark.timeout(900), pytest.mark.skipif(bool(MISSING), reason=f"Airflow with Celery: {MISSING}")]
BROKER_AWAY_S = 60.0
"""Longer than the thirty seconds from one try to the next."""
SIGNS_OF_LIFE_S = 12.0
"""A task that runs gives two in this time, and is stopped when three in a row are not taken."""
SILENT_S = 300
SLOWLY = 400
"""Bytes a second: the snapshot takes some minutes."""
RUN_S = 600
SEEN_S = 300.0


@dataclass
class Ran:
    """A run that has ended, and its tasks."""

    state: str
    tasks: dict[str, dict[str, Any]]

    def tries(self, task: str) -> int:
        return int(self.tasks[task]["try_number"])


def ended(airflow: Airflow, dag_id: str, run_id: str) -> Ran:
    return Ran(airflow.wait(dag_id, run_id, RUN_S)["state"], airflow.tasks(dag_id, run_id))


@pytest.fixture(scope="module")
def config(config: Path) -> Path:
    """The lab's clusters; a stream that is silent for long is not stopped, so that there is time to kill it."""
    document = yaml.safe_load(config.read_text())
    document["defaults"]["limits"] = {"stall_s": SILENT_S, "command_s": SILENT_S}
    config.write_text(yaml.safe_dump(document))
    return config


@pytest.fixture(scope="module")
def celery(airflow: Airflow) -> CeleryAirflow:
    assert isinstance(airflow, CeleryAirflow)
    return airflow


@pytest.fixture(scope="module")
def two_schedulers(celery: CeleryAirflow) -> Iterator[None]:
    """A second scheduler beside the first."""
    second = celery.component("second-scheduler", "scheduler")
    second.start()
    yield
    second.stop()


@dataclass
class Disturbed:
    """
    Three backups to which all that happened.

    :param outlasted: State and try of the tasks under way, after the database's restart.
    :param unsent: State of `fleet`'s first task when the broker had been away all the time.
    """

    runs: dict[str, Ran]
    outlasted: dict[str, tuple[str, int]]
    unsent: str | None


@pytest.fixture(scope="module")
def disturbed(celery: CeleryAirflow, site: Site, two_schedulers: None) -> Disturbed:
    """
    All of it in one go, since most of it is waiting.

    While `skiff` is in `copy_out` and `harbor` in `verify`, the database is restarted; then both workers are killed. When `fleet` begins
    there is no broker.
    """
    database, broker = celery.stores()
    with (
        site.faults.exec_stream(
            "slow", where="^harbor/skiff/", match="^cat .*etcdkeep-", value=SLOWLY, times=1
        ) as copying,
        site.faults.gcs("slow", match=r"GET /download/.*etcd\.db\.zst\.age", value=120, times=1) as reading,
    ):
        runs = {dag: celery.trigger(dag) for dag in ("backup__skiff", "backup__harbor")}
        at_work = {"backup__skiff": "copy_out", "backup__harbor": "verify"}
        for fault in (copying, reading):
            wait_for(lambda fault=fault: site.faults.hits(fault.id), "both tasks to be at it", SEEN_S)
        restart(database)
        time.sleep(SIGNS_OF_LIFE_S)
        now = {task: celery.tasks(dag, runs[dag])[task] for dag, task in at_work.items()}
        for dag, task in at_work.items():
            kill_worker(celery, dag, runs[dag], task)
    broker.stop()
    runs["backup__fleet"] = celery.trigger("backup__fleet")
    time.sleep(BROKER_AWAY_S)
    unsent = celery.tasks("backup__fleet", runs["backup__fleet"])["discover"]["state"]
    broker.start()
    outlasted = {task: (found["state"], found["try_number"]) for task, found in now.items()}
    return Disturbed({dag: ended(celery, dag, run) for dag, run in runs.items()}, outlasted, unsent)


def restart(database: Service) -> None:
    """Stop PostgreSQL as `docker stop` does, without waiting for its clients, and start it again."""
    database.stop(signal.SIGINT)
    database.start()


def test_tasks_outlast_a_restart_of_the_database(disturbed: Disturbed) -> None:
    assert disturbed.outlasted == {"copy_out": ("running", 1), "verify": ("running", 1)}


def test_workers_killed_in_copy_out_and_in_verify_are_followed_by_others(disturbed: Disturbed) -> None:
    skiff, harbor = disturbed.runs["backup__skiff"], disturbed.runs["backup__harbor"]
    assert (skiff.state, harbor.state) == ("success", "success")
    assert skiff.tries("copy_out") >= 2
    assert harbor.tries("verify") >= 2


def test_a_run_outlasts_the_broker(disturbed: Disturbed) -> None:
    assert disturbed.unsent in (None, "scheduled", "queued", "up_for_retry")
    assert disturbed.runs["backup__fleet"].state == "success"


def test_each_run_made_one_good_set(disturbed: Disturbed, catalogue: Catalogue) -> None:
    for dag in disturbed.runs:
        assert [found["state"] for found in catalogue.sets(dag.removeprefix("backup__"))] == ["good"]


def test_with_two_schedulers_a_backup_runs_once(
    celery: CeleryAirflow, disturbed: Disturbed, catalogue: Catalogue
) -> None:
    run_id = celery.trigger("backup__skiff")
    run = ended(celery, "backup__skiff", run_id)
    began = celery.call("GET", f"/dags/backup__skiff/dagRuns/{run_id}")["start_date"]
    jobs = celery.call("GET", "/jobs?job_type=SchedulerJob")["jobs"]
    at_work = [job for job in jobs if datetime.fromisoformat(job["latest_heartbeat"]) > datetime.fromisoformat(began)]
    assert (len(at_work), run.state) == (2, "success")
    assert {task: run.tries(task) for task in run.tasks} == dict.fromkeys(run.tasks, 1)
    assert len(catalogue.sets("skiff")) == 2


# --- the split of keys, in the mount namespaces of the workers that just did all that ------------------------------------

needs_mounts = pytest.mark.skipif(not can_mount(), reason="only root gives each worker a mount namespace of its own")
SIGN = """
from etcdkeep.config.loading import load_cluster
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
Site(load_cluster("skiff"), FileCredentials()).signer("backup")
print("has the key")
"""


def inside(airflow: CeleryAirflow, worker: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a command where a running worker is: its environment and its mounts."""
    (service,) = [airflow.worker(kind) for kind in airflow.kinds if kind.name == worker]
    line = ("nsenter", "--mount", f"--target={service.pid}", f"--wd={PROJECT}", "--", *argv)
    environment = {**service.environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=60)


@needs_mounts
def test_the_backup_worker_cannot_open_a_set_and_the_verify_worker_can(
    celery: CeleryAirflow, disturbed: Disturbed, tmp_path: Path
) -> None:
    unseal = (sys.executable, "-m", "etcdkeep", "unseal", "skiff", "--to")
    refused = inside(celery, "backup", *unseal, str(tmp_path / "backup"))
    opened = inside(celery, "verify", *unseal, str(tmp_path / "verify"))
    assert refused.returncode != 0
    assert "the age identity file holds no key" in refused.stderr
    assert not list(tmp_path.glob("backup/*"))
    assert opened.returncode == 0, opened.stderr
    assert list(tmp_path.glob("verify/*"))


@needs_mounts
def test_the_verify_worker_cannot_sign_a_manifest_and_the_backup_worker_can(celery: CeleryAirflow) -> None:
    sign = (sys.executable, "-c", SIGN)
    refused, signs = inside(celery, "verify", *sign), inside(celery, "backup", *sign)
    assert refused.returncode != 0
    assert "SecretUnavailable" in refused.stderr
    assert "has the key" in signs.stdout, signs.stderr


@needs_mounts
def test_neither_worker_sees_a_file_of_the_other(celery: CeleryAirflow) -> None:
    for one, other in (("backup", "verify"), ("verify", "backup")):
        folder = celery.home / "workers" / one / "tmp"
        (folder / "seen").write_text("mine")
        for path in (folder / "seen", Path(f"/dev/shm/etcdkeep-{os.getpid()}")):
            assert inside(celery, one, "sh", "-c", f"echo mine > {path}").returncode == 0
            assert inside(celery, one, "cat", str(path)).stdout == "mine\n"
            assert inside(celery, other, "cat", str(path)).returncode != 0
            inside(celery, one, "rm", str(path))
        assert inside(celery, one, "cat", str(celery.home / "celery.json")).stdout == "", "the database's password"
