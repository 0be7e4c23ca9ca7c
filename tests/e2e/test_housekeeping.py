"""Housekeeping through Airflow: it waits for a person, then removes what the dry run said, and says when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from etcdkeep.acceptance.airflow import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from etcdkeep.acceptance.airflow import Airflow

BACKUP, HOUSEKEEPING = "backup__harbor", "housekeeping"
RUN_S = 240
TOO_MANY, WANTED = 4, 2
pytestmark = pytest.mark.timeout(900)


def set_retention(config: Path, **rules: Any) -> None:
    document = yaml.safe_load(config.read_text())
    (entry,) = document["clusters"]
    entry["retention"] = {**entry.get("retention", {}), **rules}
    config.write_text(yaml.safe_dump(document))


@pytest.fixture(scope="module")
def config(config: Path) -> Path:
    """The lab's `harbor` alone: a cluster without a backup would fail every report."""
    document = yaml.safe_load(config.read_text())
    document["clusters"] = [entry for entry in document["clusters"] if entry["name"] == "harbor"]
    document["housekeeping_schedule"] = None
    config.write_text(yaml.safe_dump(document))
    set_retention(config, keep_last=WANTED, min_good=WANTED, enforce=True)
    return config


@pytest.fixture(scope="module")
def command(site, config):
    """Return a function that runs the command line and returns its exit code and JSON."""
    environment = {**os.environ, "ETCDKEEP_CONFIG": str(config), "STORAGE_EMULATOR_HOST": site.gcs_url}

    def run(*arguments: str) -> tuple[int, Any]:
        argv = (sys.executable, "-m", "etcdkeep", *arguments, "--json")
        done = subprocess.run(argv, env=environment, cwd=PROJECT, capture_output=True, check=False, timeout=60)
        return done.returncode, json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def too_many(airflow: Airflow, catalogue) -> list[str]:
    """More backups than the rules keep, oldest first."""
    runs = [airflow.trigger(BACKUP, {"reason": "one too many"}) for _ in range(TOO_MANY)]
    assert [airflow.wait(BACKUP, run, RUN_S)["state"] for run in runs] == ["success"] * TOO_MANY
    return [found["backup_id"] for found in sorted(catalogue.sets("harbor"), key=lambda found: found["taken_at"])]


def keep_house(airflow: Airflow) -> dict[str, Any]:
    """Run the DAG; return the run's state, those of its tasks, and what the report says."""
    run_id = airflow.trigger(HOUSEKEEPING)
    state = airflow.wait(HOUSEKEEPING, run_id, RUN_S)["state"]
    states = {name: task["state"] for name, task in airflow.tasks(HOUSEKEEPING, run_id).items()}
    tasks = {"report": states["report"], "housekeeping": states[airflow.on_verify_queue("housekeeping")]}
    return {"state": state, "tasks": tasks, "report": airflow.log_text(HOUSEKEEPING, run_id, "report")}


@pytest.fixture(scope="module")
def refused(airflow, too_many, command) -> dict[str, Any]:
    """A run in which half of the backups would go; what a dry run said before, and what was there after it."""
    _, said = command("prune", "harbor", "--dry-run")
    return {"dry_run": said, **keep_house(airflow), "sets": command("list", "harbor")[1]}


@pytest.fixture(scope="module")
def enforced(airflow, refused, command, config) -> dict[str, Any]:
    """A run after a person allowed that much."""
    set_retention(config, max_remove_share=0.5)
    found = keep_house(airflow)
    return {**found, "sets": command("list", "harbor")[1], "check": command("check", "harbor")}


@pytest.fixture(scope="module")
def damaged(airflow, enforced, too_many, site, config) -> dict[str, Any]:
    """A run that should remove one more, while the store alters what is read back of those that must stay."""
    assert airflow.wait(BACKUP, airflow.trigger(BACKUP, {"reason": "one more"}), RUN_S)["state"] == "success"
    with site.faults.gcs("corrupt", match=r"GET /download/.*etcd\.db\.zst\.age", after=2000):
        return keep_house(airflow)


def test_a_large_removal_fails_the_report_and_removes_nothing(refused, too_many):
    assert refused["dry_run"]["would_remove"] == too_many[:-WANTED]
    assert (refused["state"], refused["tasks"]) == ("failed", {"housekeeping": "success", "report": "failed"})
    assert f"nothing was removed: {TOO_MANY - WANTED} of {TOO_MANY} sets would be removed" in refused["report"]
    assert {found["backup_id"] for found in refused["sets"]} == set(too_many)


def test_enforced_it_removes_what_the_dry_run_said(enforced, refused, too_many):
    assert (enforced["state"], enforced["tasks"]) == ("success", {"housekeeping": "success", "report": "success"}), enforced["report"][-3000:]  # fmt: skip
    left = {found["backup_id"] for found in enforced["sets"]}
    assert set(too_many) - left == set(refused["dry_run"]["would_remove"])
    assert all(found["state"] == "good" for found in enforced["sets"])


def test_the_backups_are_fresh_after_it(enforced):
    code, found = enforced["check"]
    assert (code, found["status"]) == (0, "OK"), found


def test_a_floor_that_cannot_be_read_back_fails_the_report_and_removes_nothing(damaged, enforced, catalogue):
    assert (damaged["state"], damaged["tasks"]["report"]) == ("failed", "failed")
    assert "was read back and is bad" in damaged["report"]
    left = {found["backup_id"] for found in catalogue.sets("harbor")}
    assert {found["backup_id"] for found in enforced["sets"]} < left
