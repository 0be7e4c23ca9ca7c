"""Parsing dags/backup.py with 1,000 configured clusters, as Airflow's DAG processor does, and as a task of one of them does when it starts."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from bench.report import Row
from etcdkeep.sealing.age_keys import generate_identity

MANY, FEW = 1000, 10
PARSE_MAX_S, SERIALISE_MAX_S = 3, 6
RUNS = 3
TASK_DAG = "backup__cluster-0003"
PROJECT = Path(__file__).resolve().parent.parent

PARSE = """
import sys, time
from airflow.dag_processing.dagbag import DagBag
DagBag(sys.argv[1], collect_dags=False)
began = time.monotonic()
found = DagBag(sys.argv[1])
parsed = time.monotonic()
from airflow.serialization.serialized_objects import DagSerialization
for dag in found.dags.values():
    DagSerialization.to_dict(dag)
print(parsed - began, time.monotonic() - parsed, len(found.dags), found.import_errors or "")
"""


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        every = [_parse(Path(home), MANY) for _ in range(RUNS)]
        task = {count: [_parse(Path(home), count, TASK_DAG)[0] for _ in range(RUNS)] for count in (FEW, MANY)}
    parse_s, serialise_s = (statistics.median(seconds) for seconds in zip(*every, strict=True))
    few_s, many_s = (statistics.median(task[count]) for count in (FEW, MANY))
    return [
        Row(f"dags/backup.py, {MANY:,} clusters", f"{parse_s:.2f} s", f"< {PARSE_MAX_S} s", parse_s < PARSE_MAX_S),
        Row("their serialisation", f"{serialise_s:.2f} s", f"< {SERIALISE_MAX_S} s", serialise_s < SERIALISE_MAX_S),
        Row(f"dags/backup.py for one task, {FEW} clusters", f"{few_s:.2f} s"),
        Row(f"the same, {MANY:,} clusters", f"{many_s:.2f} s"),
    ]


def _document(clusters: int) -> dict[str, object]:
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
            for number in range(clusters)
        ],
    }


def _parse(home: Path, clusters: int, dag_id: str = "") -> tuple[float, float]:
    """
    Return seconds to parse and to serialise in a fresh process; imports of the file count, those of Airflow itself do not.

    :param dag_id: Of the task that starts; empty for the DAG processor.
    """
    config = home / "clusters.yaml"
    config.write_text(yaml.safe_dump(_document(clusters)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        "ETCDKEEP_CONFIG": str(config),
    }
    environment |= {"_AIRFLOW_PARSING_CONTEXT_DAG_ID": dag_id} if dag_id else {}
    argv = [sys.executable, "-c", PARSE, str(PROJECT / "dags" / "backup.py")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    parse_s, serialise_s, found, errors = (done.stdout.splitlines()[-1] + " ").split(" ", 3)
    if int(found) != (1 if dag_id else clusters) or errors.strip():
        raise RuntimeError(f"{found} DAGs instead of {clusters}: {errors}")
    return float(parse_s), float(serialise_s)
