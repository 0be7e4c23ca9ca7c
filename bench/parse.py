"""Parsing dags/backup.py with 1,000 configured clusters, as Airflow's DAG processor does."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from bench.report import Row
from etcdkeep.age_keys import generate_identity

TITLE = "Parsing with 1,000 clusters"
CLUSTERS = 1000
PARSE_MAX_S = 3
RUNS = 3
PROJECT = Path(__file__).resolve().parent.parent

PARSE = """
import sys, time
from airflow.dag_processing.dagbag import DagBag
DagBag(sys.argv[1], collect_dags=False)
began = time.monotonic()
found = DagBag(sys.argv[1])
print(time.monotonic() - began, len(found.dags), found.import_errors or "")
"""


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        config = Path(home, "clusters.yaml")
        config.write_text(yaml.safe_dump(_document()))
        parse_s = statistics.median(_parse_s(Path(home), config) for _ in range(RUNS))
    return [
        Row(f"dags/backup.py, {CLUSTERS} clusters", f"{parse_s:.2f} s", f"< {PARSE_MAX_S} s", parse_s < PARSE_MAX_S)
    ]


def _document() -> dict[str, object]:
    _, recipient = generate_identity()
    return {
        "schema_version": 1,
        "defaults": {
            "repository": "gs://example-backups/etcd",
            "age_recipients": [recipient],
            "age_identity": {"connection": "etcdkeep_age"},
            "signing": {
                "key": {"connection": "etcdkeep_signing"},
                "public_keys": ["q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E="],
            },
        },
        "clusters": [
            {
                "name": f"cluster-{number:04d}",
                "profile": "gke-admin",
                "kubeconfig": {"connection": f"kubernetes_{number}"},
            }
            for number in range(CLUSTERS)
        ],
    }


def _parse_s(home: Path, config: Path) -> float:
    """Parse in a fresh process; imports of the file count, those of Airflow itself do not."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "ETCDKEEP_CONFIG": str(config),
    }
    argv = [sys.executable, "-c", PARSE, str(PROJECT / "dags" / "backup.py")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    seconds, found, errors = (done.stdout.splitlines()[-1] + " ").split(" ", 2)
    if int(found) != CLUSTERS or errors.strip():
        raise RuntimeError(f"{found} DAGs instead of {CLUSTERS}: {errors}")
    return float(seconds)
