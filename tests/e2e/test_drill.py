"""Drills through Airflow: after a verified backup, by hand, of an altered backup, and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.tools import etcd_folder
from tests.canaries import ArgvWatch, canaries, leaks, leaks_in_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from etcdkeep.acceptance.airflow import Airflow

BACKUP, DRILL = "backup__harbor", "drill__harbor"
RUN_S = 240
START_S = 4
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where plain files lie while a drill runs."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def config(config: Path, work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's clusters, `harbor` with drills by an etcd that takes a few seconds to start."""
    programs = tmp_path_factory.mktemp("etcd")
    (programs / "etcdutl").symlink_to(etcd_folder() / "etcdutl")
    (programs / "etcd").write_text(
        f'#!/bin/sh\ncase "$1" in --version) ;; *) sleep {START_S} ;; esac\nexec {etcd_folder()}/etcd "$@"\n'
    )
    (programs / "etcd").chmod(0o755)
    document = yaml.safe_load(config.read_text())
    for entry in document["clusters"]:
        if entry["name"] == "harbor":
            entry["drill"] = {"schedule": "after_backup", "work_dir": str(work), "etcd_dir": str(programs)}
    config.write_text(yaml.safe_dump(document))
    return config


@pytest.fixture(scope="module")
def argv_watch():
    with ArgvWatch() as watch:
        yield watch


def eventually(what: str, look: Callable[[], Any], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.2)
    return found


def left_over(work: Path) -> list[str]:
    """Return files and processes of drills."""
    found = subprocess.run(["pgrep", "-af", str(work)], capture_output=True, text=True, check=False).stdout
    return [str(path) for path in work.iterdir()] + [line for line in found.splitlines() if "pgrep" not in line]


def drills_of(airflow: Airflow) -> list[dict[str, Any]]:
    return list(airflow.call("GET", f"/dags/{DRILL}/dagRuns?order_by=run_after")["dag_runs"])


@pytest.fixture(scope="module")
def after_backup(airflow, argv_watch) -> Iterator[dict[str, Any]]:
    """The run of the drill that follows a verified backup. Backups of other modules are not drilled."""
    # Known it may be already, with the schedule that the module before gave it.
    eventually("the drill to wait for the asset", lambda: airflow.call("GET", f"/assets?dag_ids={DRILL}")["assets"])
    airflow.call("PATCH", f"/dags/{DRILL}", {"is_paused": False})
    backup = airflow.wait(BACKUP, airflow.trigger(BACKUP, {"reason": "to be drilled"}), RUN_S)
    assert backup["state"] == "success"
    (run,) = eventually("a drill that the asset triggers", lambda: drills_of(airflow))
    yield dict(airflow.wait(DRILL, run["dag_run_id"], RUN_S))
    airflow.call("PATCH", f"/dags/{DRILL}", {"is_paused": True})


@pytest.fixture(scope="module")
def killed(airflow, after_backup, work) -> dict[str, Any]:
    """A drill by hand whose process is killed while its etcd starts; and what it left at once."""
    run_id = airflow.trigger(DRILL)
    (folder,) = eventually("the data directory", lambda: list(work.glob("*/data")))
    pid = int(airflow.tasks(DRILL, run_id)["drill"]["pid"])
    os.kill(pid, signal.SIGKILL)
    eventually("the etcd to go", lambda: not [line for line in left_over(work) if "--data-dir" in line], 10)
    had_left = folder.exists()
    return {"run_id": run_id, "had_left": had_left, **airflow.wait(DRILL, run_id, RUN_S)}


@pytest.fixture(scope="module")
def altered(airflow, site, killed, catalogue) -> dict[str, Any]:
    """A drill of that backup while the store alters what is read of it, the states after it, and after one more."""
    identifier = catalogue.sets("harbor")[0]["backup_id"]
    with site.faults.gcs("corrupt", match=r"GET /download/.*etcd\.db\.zst\.age", after=2000):
        run = airflow.wait(DRILL, airflow.trigger(DRILL, {"backup": identifier}), RUN_S)
    (bad,) = catalogue.sets("harbor")
    again = airflow.wait(DRILL, airflow.trigger(DRILL, {"backup": identifier}), RUN_S)
    (good,) = catalogue.sets("harbor")
    return {"run": run, "bad": bad, "again": again, "good": good}


def test_a_verified_backup_is_drilled_without_being_asked(after_backup, airflow):
    assert after_backup["run_type"] == "asset_triggered"
    assert after_backup["state"] == "success", airflow.log_text(DRILL, after_backup["dag_run_id"], "drill")[-3000:]


def test_the_level_and_the_seconds_stand_with_the_set(after_backup, airflow, catalogue):
    assert after_backup["state"] == "success"
    (found,) = catalogue.sets("harbor")
    assert (found["state"], found["levels"]) == ("good", ["stored", "sealed", "etcd", "pki", "drill"])
    path = f"/dags/{DRILL}/dagRuns/{after_backup['dag_run_id']}/taskInstances/drill/xcomEntries/return_value"
    answer = airflow.call("GET", path)["value"]
    answer = answer if isinstance(answer, dict) else yaml.safe_load(answer)
    assert answer["backup_id"] == found["backup_id"]
    assert set(answer["seconds"]) == {"unseal", "restore", "start", "read", "compare"}
    assert answer["restore_s"] >= START_S


def test_a_drill_that_is_killed_is_retried_and_leaves_nothing(killed, airflow, work):
    assert killed["had_left"], "it was killed too late: nothing was there to be swept"
    assert killed["state"] == "success"
    assert airflow.tasks(DRILL, killed["run_id"])["drill"]["try_number"] == 2
    assert "removing the files of a drill that was killed" in airflow.log_text(DRILL, killed["run_id"], "drill")


def test_an_altered_backup_fails_the_run_at_once_and_is_bad_until_a_drill_passes(altered, airflow):
    run = altered["run"]
    assert run["state"] == "failed"
    assert airflow.tasks(DRILL, run["dag_run_id"])["drill"]["try_number"] == 1, "the same set gives the same verdict"
    assert "does not restore, and is marked bad" in airflow.log_text(DRILL, run["dag_run_id"], "drill")
    assert altered["bad"]["state"] == "bad"
    assert (altered["again"]["state"], altered["good"]["state"]) == ("success", "good")


def test_no_secret_nor_anything_in_the_clear_is_left(altered, airflow, argv_watch, site, config, work):
    assert left_over(work) == []
    secrets = canaries(site)
    assert leaks_in_files([airflow.home, config.parent, work], secrets) == {}
    assert leaks(b"\n".join(argv_watch.seen), secrets) == []
