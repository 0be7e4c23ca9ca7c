"""The code out of a git bundle, where etcdkeep is not installed: it parses, and parsing again makes no new version of a DAG."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from etcdkeep.acceptance.airflow import PROJECT
from tests.builders import make_entry, make_file

if TYPE_CHECKING:
    from pathlib import Path

RESTLESS = """
import uuid
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

with DAG("restless", schedule=None, tags=[uuid.uuid4().hex]):
    EmptyOperator(task_id="nothing")
"""
"""A DAG that differs at each parse: that its versions multiply shows that the count can."""


class Bundled:
    """An Airflow whose DAGs are a git repository, in an environment that has its packages but not etcdkeep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.python = folder / "environment/bin/python"
        uv = os.path.join(os.path.dirname(sys.executable), "uv")
        subprocess.run([uv, "venv", "-q", "--offline", "--python", sys.executable, folder / "environment"], check=True)
        (packages,) = folder.glob("environment/lib/python*/site-packages")
        (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not followed
        for name in ("dags", "include", "plugins"):
            shutil.copytree(
                PROJECT / name, self.repository / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        (self.repository / "dags/restless.py").write_text(RESTLESS)
        self.git("init", "-q", "-b", "main")
        self.commit()
        (folder / "clusters.yaml").write_text(make_file(make_entry(), make_entry(name="skiff", verify_queue="verify")))

    def git(self, *args: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.net")
        subprocess.run(["git", "-C", self.repository, *identity, *args], check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "a commit")

    @property
    def environment(self) -> dict[str, str]:
        bundle = {
            "name": "etcdkeep",
            "classpath": "airflow.providers.git.bundles.git.GitDagBundle",
            "kwargs": {
                "repo_url": str(self.repository),
                "tracking_ref": "main",
                "subdir": "dags",
                "refresh_interval": 0,
            },
        }
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",  # else a parse within 30 s of another writes nothing
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.folder / "bundles"),
            "ETCDKEEP_CONFIG": str(self.folder / "clusters.yaml"),
        }

    def run(self, *args: str, code: int = 0) -> str:
        argv = [str(self.python), *args]
        done = subprocess.run(
            argv, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == code, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def airflow(self, *args: str) -> str:
        return self.run("-m", "airflow", *args)

    def versions(self) -> dict[str, int]:
        """Return how many versions Airflow keeps of each DAG."""
        with closing(sqlite3.connect(self.folder / "airflow/airflow.db")) as database:
            return dict(database.execute("SELECT dag_id, count(*) FROM dag_version GROUP BY dag_id").fetchall())


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    made = Bundled(tmp_path_factory.mktemp("bundled"))
    made.airflow("db", "migrate")
    made.airflow("dags", "reserialize")
    return made


@pytest.mark.slow
def test_the_code_comes_with_the_bundle(bundled: Bundled) -> None:
    bundled.run("-c", "import etcdkeep", code=1)
    listed = bundled.airflow("dags", "list", "-o", "json").splitlines()
    found = json.loads(next(line for line in listed if line.startswith("[{")))  # log lines may come before
    assert {each["dag_id"] for each in found} == {
        "backup__harbor", "backup__skiff", "housekeeping", "recover_objects", "recover_objects__verify", "restless",
        "restore", "restore__verify",
    }  # fmt: skip
    assert {each["bundle_name"] for each in found} == {"etcdkeep"}


@pytest.mark.slow
def test_a_dag_has_one_version_however_often_it_is_parsed(bundled: Bundled) -> None:
    for dag in ("backup__harbor", "restore", "restless"):  # a version that a run has used is never changed in place
        conf = '{"cluster": "harbor", "reason": "a test", "confirm": "harbor"}' if dag == "restore" else "{}"
        bundled.airflow("dags", "trigger", dag, "--conf", conf)
    bundled.airflow("dags", "reserialize")
    versions = bundled.versions()
    assert versions.pop("restless") == 2
    assert set(versions.values()) == {1}, versions
