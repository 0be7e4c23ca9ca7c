"""
One lab and one Airflow for all modules; repositories of its own for each.

Where PostgreSQL and Redis are installed, the Airflow is a team's: Celery, and two kinds of workers that share no private key.
Elsewhere it is one machine's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from demo.kinds import kinds_of, split
from etcdkeep.acceptance.airflow import PROJECT, Airflow
from etcdkeep.acceptance.celery_airflow import CeleryAirflow, missing_programs
from tests.labs import running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Site


LOST_S = 30
"""After so long without a sign of life a task counts as lost. Airflow's default is five minutes."""


def write_clusters(path: Path, site: Site, repositories: Path) -> None:
    """Write the lab's clusters, with repositories of that name: a bucket for `harbor`, a directory for the others."""
    document = yaml.safe_load(site.config.read_text())
    if not missing_programs():
        split(document, site)
    bucket = f"gs://{site.bucket}/{repositories.name}-{os.getpid()}"
    for entry in document["clusters"]:
        entry["schedule"] = None  # else Airflow would begin with the run that was due last night
        entry["repository"] = bucket if entry["name"] == "harbor" else f"file://{repositories}"
    path.write_text(yaml.safe_dump(document))


@dataclass(frozen=True)
class Rig:
    """
    A running site and a running Airflow.

    :param config: What Airflow reads all the time; each module writes its own clusters there.
    """

    site: Site
    airflow: Airflow
    config: Path


@contextmanager
def running_rig(folders: pytest.TempPathFactory) -> Iterator[Rig]:
    """Start a site and an Airflow, and stop both in the end."""
    with running_lab(folders) as site:
        config = folders.mktemp("e2e") / "clusters.yaml"
        write_clusters(config, site, config.parent / "repositories")
        extra = {
            "STORAGE_EMULATOR_HOST": site.gcs_url,
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(LOST_S),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": str(LOST_S),
        }
        home = folders.mktemp("airflow")
        celery = not missing_programs()
        airflow = CeleryAirflow(home, config, kinds_of(site), extra) if celery else Airflow(home, config, extra)
        try:
            airflow.start()
            yield Rig(site, airflow, config)
        finally:
            airflow.stop()


@dataclass
class Rigs:
    """One rig for all modules, until a test fails."""

    folders: pytest.TempPathFactory
    stack: ExitStack
    running: Rig | None = None

    def current(self) -> Rig:
        if self.running is None:
            self.running = self.stack.enter_context(running_rig(self.folders))
        return self.running

    def stop(self) -> None:
        self.running = None
        self.stack.close()


@pytest.fixture(scope="session")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rigs]:
    """The rigs, of which one runs at a time."""
    with ExitStack() as stack:
        yield Rigs(tmp_path_factory, stack)


@pytest.fixture(scope="module")
def rig(rigs: Rigs, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """
    A site without faults, and an Airflow.

    A test that fails may leave a cluster without its control plane or a run at a gate. The next module then gets another
    rig, so that one failure stays one.
    """
    failed = request.session.testsfailed
    rig = rigs.current()
    yield rig
    rig.site.faults.clear()
    if request.session.testsfailed > failed:
        rigs.stop()


@pytest.fixture(scope="module")
def site(rig: Rig) -> Site:
    rig.site.check()
    return rig.site


@pytest.fixture(scope="module")
def repositories(rig: Rig, request: pytest.FixtureRequest) -> Path:
    """Where the module's directories are; its bucket has the same name."""
    return rig.config.parent / request.module.__name__.rpartition(".")[2]


@pytest.fixture(scope="module")
def config(rig: Rig, repositories: Path) -> Path:
    """The configuration. Tasks read it when they start, so that new repositories count at once."""
    write_clusters(rig.config, rig.site, repositories)
    return rig.config


@pytest.fixture(scope="module")
def airflow(rig: Rig, config: Path) -> Airflow:
    """Airflow with the module's configuration."""
    return rig.airflow


class Catalogue:
    """What the command line says of the sets."""

    def __init__(self, site: Site, config: Path) -> None:
        self._environment = {**os.environ, "ETCDKEEP_CONFIG": str(config), "STORAGE_EMULATOR_HOST": site.gcs_url}

    def sets(self, cluster: str) -> list[dict[str, Any]]:
        """Return ``etcdkeep list CLUSTER --json``."""
        argv = (sys.executable, "-m", "etcdkeep", "list", cluster, "--json")
        done = subprocess.run(argv, env=self._environment, cwd=PROJECT, capture_output=True, check=True, timeout=60)
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def catalogue(site: Site, config: Path) -> Catalogue:
    return Catalogue(site, config)
