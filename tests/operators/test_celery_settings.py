"""What a Celery worker imports before it forks: all that the DAGs import, and nothing that a fork would break."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.providers.celery.executors.default_celery import DEFAULT_CELERY_CONFIG

from etcdkeep_airflow.celery_settings import CONFIG, IMPORTS
from tests.builders import make_entry, make_file

if TYPE_CHECKING:
    import pytest

PROJECT = Path(__file__).parents[2]
FIND = """
import importlib, json, runpy, sys, threading
for name in sys.argv[1].split(","):
    importlib.import_module(name)
threads, before = threading.active_count(), set(sys.modules)
for path in sys.argv[2:]:
    runpy.run_path(path)
print(json.dumps([threads, sorted(name for name in set(sys.modules) - before if name.startswith("etcdkeep"))]))
"""


def test_they_are_airflow_s_own_settings_but_for_the_imports() -> None:
    assert {name: value for name, value in CONFIG.items() if name != "imports"} == DEFAULT_CELERY_CONFIG


def test_no_task_imports_more_of_ours_with_its_dag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusters.yaml").write_text(make_file(make_entry()))
    monkeypatch.setenv("ETCDKEEP_CONFIG", str(tmp_path / "clusters.yaml"))
    path = os.pathsep.join(str(PROJECT / folder) for folder in ("include", "plugins", "dags"))
    dags = sorted(map(str, (PROJECT / "dags").glob("*.py")))
    line = [sys.executable, "-c", FIND, ",".join(IMPORTS), *dags]
    found = subprocess.run(line, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    threads, imported = json.loads(found.stdout.splitlines()[-1])
    assert threads == 1, "a fork would lose the others"
    assert imported == []
