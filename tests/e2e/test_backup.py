"""The backup DAGs through Airflow: sets, asset events, a killed task, a cleared run, a bad set, a bad configuration."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.canaries import ArgvWatch, canaries, leaks, leaks_in_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.acceptance.airflow import Airflow

LEVELS = {
    "harbor": ["stored", "sealed", "etcd", "pki"],
    "skiff": ["stored", "sealed", "etcd"],
    "fleet": ["stored", "sealed", "etcd", "pki"],
}
RUN_S = 240
pytestmark = pytest.mark.timeout(600)


@dataclass
class Ran:
    """A run that has ended."""

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, dict[str, Any]]


def ended(airflow: Airflow, cluster: str, run_id: str) -> Ran:
    dag_id = f"backup__{cluster}"
    run = airflow.wait(dag_id, run_id, RUN_S)
    return Ran(dag_id, run_id, run["state"], airflow.tasks(dag_id, run_id))


def asset_events(airflow: Airflow, cluster: str) -> list[dict[str, Any]]:
    found = airflow.call("GET", f"/assets/events?source_dag_id=backup__{cluster}&limit=50")
    return list(found["asset_events"])


def eventually(what: str, look: Callable[[], Any], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def argv_watch():
    with ArgvWatch() as watch:
        yield watch


@pytest.fixture(scope="module")
def plain(airflow, argv_watch) -> dict[str, Ran]:
    """One run of each cluster, at once and undisturbed."""
    started = {cluster: airflow.trigger(f"backup__{cluster}", {"reason": "e2e"}) for cluster in LEVELS}
    return {cluster: ended(airflow, cluster, run_id) for cluster, run_id in started.items()}


@pytest.fixture(scope="module")
def disturbed(airflow, site, plain, catalogue) -> dict[str, Ran]:
    """At once: `harbor` whose store alters what is read back, `skiff` whose task is killed, `fleet` cleared as a whole."""
    with (
        site.faults.gcs("corrupt", match=r"GET /download/.*etcd\.db\.zst\.age", after=2000),
        site.faults.exec_stream("slow", where="^harbor/skiff/", match="^cat .*etcdkeep-", value=8000, times=1) as slow,
    ):
        harbor = airflow.trigger("backup__harbor", {"reason": "store alters"})
        skiff = airflow.trigger("backup__skiff", {"reason": "killed"})
        fleet = plain["fleet"]
        body = {"dry_run": False, "dag_run_id": fleet.run_id, "only_failed": False, "reset_dag_runs": True}
        airflow.call("POST", "/dags/backup__fleet/clearTaskInstances", body)
        eventually("copy_out reads the stream", lambda: site.faults.hits(slow.id))
        os.kill(process_of(airflow, "skiff", skiff, "copy_out"), signal.SIGKILL)
        return {
            "harbor": ended(airflow, "harbor", harbor),
            "skiff": ended(airflow, "skiff", skiff),
            "fleet": ended(airflow, "fleet", fleet.run_id),
        }


def process_of(airflow: Airflow, cluster: str, run_id: str, task_id: str) -> int:
    """Return the process that executes a task, as Airflow knows it."""
    return int(airflow.tasks(f"backup__{cluster}", run_id)[task_id]["pid"])


@pytest.mark.parametrize("cluster", LEVELS)
def test_a_run_ends_in_one_good_set(plain, catalogue, cluster):
    run = plain[cluster]
    assert {name: task["state"] for name, task in run.tasks.items()} == dict.fromkeys(run.tasks, "success")
    first = catalogue.sets(cluster)[0]
    assert (first["state"], first["levels"]) == ("good", LEVELS[cluster])


@pytest.mark.parametrize("cluster", LEVELS)
def test_the_asset_event_names_the_set_and_its_revision(airflow, plain, catalogue, cluster):
    (event,) = [found for found in asset_events(airflow, cluster) if found["source_run_id"] == plain[cluster].run_id]
    first = catalogue.sets(cluster)[0]
    assert event["source_task_id"] == "verify"
    assert (event["extra"]["backup_id"], event["extra"]["revision"]) == (first["backup_id"], first["revision"])


def test_a_set_that_verify_finds_altered_fails_the_run_without_an_asset_event(airflow, disturbed, catalogue):
    run = disturbed["harbor"]
    assert run.state == "failed"
    assert run.tasks["verify"]["state"] == "failed"
    assert run.tasks["verify"]["try_number"] == 1, "the same set gives the same verdict: no retry"
    assert run.tasks["cleanup"]["state"] == "success"
    assert "is marked bad" in airflow.log_text(run.dag_id, run.run_id, "verify")
    assert [found["source_run_id"] for found in asset_events(airflow, "harbor")].count(run.run_id) == 0
    assert sorted(found["state"] for found in catalogue.sets("harbor")) == ["bad", "good"]


def test_a_task_killed_mid_way_is_retried_and_ends_in_one_good_set(site, disturbed, catalogue):
    run = disturbed["skiff"]
    assert run.state == "success"
    assert run.tasks["copy_out"]["try_number"] == 2
    assert [found["state"] for found in catalogue.sets("skiff")] == ["good", "good"]
    pods = [node.root / "containers" for node in site.clusters["skiff"].nodes]
    identifiers = [found["backup_id"] for found in catalogue.sets("skiff")]
    assert [path for pod in pods for each in identifiers for path in pod.glob(f"*/*/tmp/*{each}*")] == []


def test_a_cleared_run_makes_no_second_set(disturbed, catalogue):
    assert disturbed["fleet"].state == "success"
    assert [found["state"] for found in catalogue.sets("fleet")] == ["good"]


def test_nothing_but_sets_and_attempts_is_left(disturbed, repositories):
    files = [path for path in repositories.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if ".spool" in path.parts or path.name.startswith(".")] == []


def test_no_secret_is_in_logs_xcom_rendered_fields_or_command_lines(airflow, disturbed, argv_watch, site, config):
    secrets = canaries(site)
    assert leaks_in_files([airflow.home, config.parent], secrets) == {}
    assert leaks(b"\n".join(argv_watch.seen), secrets) == []


def test_a_wrong_entry_is_an_import_error_and_costs_no_other_cluster_its_dag(airflow, disturbed, config):
    good = config.read_text()
    document = yaml.safe_load(good)
    document["clusters"].append(
        {"name": "wrong", "profile": "gke-admin", "repository": "ftp://elsewhere", "colour": "blue"}
    )
    try:
        config.write_text(yaml.safe_dump(document))
        (error,) = eventually("the import error", lambda: airflow.call("GET", "/importErrors")["import_errors"])
        assert Path(error["filename"]).name == "configuration.py"
        for said in ("(wrong).repository", "(wrong).colour: unknown key"):
            assert said in error["stack_trace"]
        dags = {dag["dag_id"] for dag in airflow.call("GET", "/dags?limit=100")["dags"]}
        assert {f"backup__{cluster}" for cluster in LEVELS} <= dags
        assert "backup__wrong" not in dags
    finally:
        config.write_text(good)
    eventually("the error to go", lambda: not airflow.call("GET", "/importErrors")["import_errors"])
