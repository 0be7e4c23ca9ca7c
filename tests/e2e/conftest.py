"""One lab and one Airflow for the whole tier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from demo.airflow import PROJECT, Airflow
from lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running site; LAB_DIR names one that runs already and is left running."""
    folder = os.environ.get("LAB_DIR") or tmp_path_factory.mktemp("lab")
    with Lab(folder) as site:
        yield site
        site.faults.clear()


@pytest.fixture(scope="module")
def config(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's clusters, with repositories of this session: a bucket for `harbor`, a directory for the others."""
    folder = tmp_path_factory.mktemp("e2e")
    document = yaml.safe_load(site.config.read_text())
    for entry in document["clusters"]:
        entry["schedule"] = None  # else Airflow would begin with the run that was due last night
        bucket = f"gs://{site.bucket}/{folder.name}-{os.getpid()}"
        entry["repository"] = bucket if entry["name"] == "harbor" else f"file://{folder}/repository"
    path = folder / "clusters.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def airflow(site: Site, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    """A running Airflow."""
    extra = {
        "STORAGE_EMULATOR_HOST": site.gcs_url,
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "15",
    }
    airflow = Airflow(tmp_path_factory.mktemp("airflow"), config, extra)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.stop()


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
