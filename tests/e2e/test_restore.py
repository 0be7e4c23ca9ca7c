"""The DAG `restore` through Airflow, on every kind of cluster, its API down; and what ends without a restore."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etcdkeep.acceptance.airflow import PROJECT
from etcdkeep.acceptance.gated_run import READING_S
from etcdkeep.acceptance.restoration import Restoration
from etcdkeep.acceptance.run import back_up
from etcdkeep.acceptance.telling import AcceptanceReport
from etcdkeep.config.loading import CONFIG_VARIABLE, load_cluster
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site as open_site
from lab.site import kubectl_path
from lab.tools import etcd_folder
from lab.waiting import wait_for
from tests.canaries import canaries, leaks_in_files
from tests.e2e.kills import kill_worker
from tests.e2e.restore_run import RestoreRun, Spoiled
from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, Markers

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.acceptance.airflow import Airflow
    from lab import Site

CLUSTERS = ("harbor", "skiff", "fleet")
CHANGING = ("stage", "restore_etcd", "swap", "verify", "fetch_kubeconfig", "rollback")
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def backed_up(airflow: Airflow, site: Site) -> dict[str, Spoiled]:
    """All clusters with markers, backed up at once, then spoiled."""
    found = {cluster: Spoiled(Markers(site.clusters[cluster])) for cluster in CLUSTERS}
    for each in found.values():
        each.markers.write()
    runs = {cluster: airflow.trigger(f"backup__{cluster}", {"reason": "e2e"}) for cluster in CLUSTERS}
    for cluster, run_id in runs.items():
        assert airflow.wait(f"backup__{cluster}", run_id, 300)["state"] == "success"
        found[cluster].markers.spoil()
    return found


@pytest.fixture(scope="module")
def command_line(site: Site, config: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    environment = {**os.environ, "ETCDKEEP_CONFIG": str(config), "STORAGE_EMULATOR_HOST": site.gcs_url}

    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        line = (sys.executable, "-m", "etcdkeep", *argv)
        return subprocess.run(
            line, env=environment, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60
        )

    return run


def test_a_dry_run_shows_the_plan_and_what_will_be_lost_and_touches_nothing(airflow, backed_up):
    run = RestoreRun.start(airflow, "harbor", dry_run=True)
    assert run.ended() == "success"
    assert set(run.states().values()) == {"success", "skipped"}
    page = run.returned("preflight", "page")
    assert "no restore is needed" in page
    assert "| configmaps | shop | 1 | 1 | 0 |" in page
    assert backed_up["harbor"].shows(SPOILED)


def test_a_healthy_cluster_is_refused_unless_overridden_and_a_no_touches_nothing(airflow, backed_up):
    refused = RestoreRun.start(airflow, "harbor")
    overridden = RestoreRun.start(airflow, "harbor", override=True)
    assert refused.ended() == "failed"
    assert "no restore is needed" in refused.log("preflight")
    assert {refused.states()[task] for task in ("approve", "stage")} == {"upstream_failed"}
    shown = overridden.answer("approve", "alice", "Reject")
    assert "**OVERRIDDEN:**" in shown["body"]
    assert overridden.ended() == "success"
    assert {overridden.states()[task] for task in ("approve_second", *CHANGING)} == {"skipped"}
    assert backed_up["harbor"].shows(SPOILED)


def test_one_person_cannot_approve_twice(airflow, backed_up):
    run = RestoreRun.start(airflow, "harbor", override=True)
    run.approve("alice", "alice")
    assert run.ended() == "failed"
    assert "alice has approved already" in run.log("approve_second")
    states = run.states()
    assert (states["stage"], states["rollback"]) == ("upstream_failed", "skipped")
    assert backed_up["harbor"].shows(SPOILED)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_ruined_cluster_is_as_backed_up_and_so_it_is_a_second_time(
    airflow, backed_up, site, cluster, tmp_path, command_line
):
    spoiled = backed_up[cluster]
    for _ in range(2):
        spoiled.ruin()
        run = RestoreRun.start(airflow, cluster)
        shown = run.approve()
        if cluster != "skiff":
            assert "does not answer" in shown["body"]
        assert run.ended() == "success", {
            name: run.log(name)[-2000:] for name, state in run.states().items() if state == "failed"
        }
        assert spoiled.shows(AS_BACKED_UP)
        outcome = run.returned("verify")
        assert outcome["kind"] == "restored"
        assert outcome["down_s"] > 0
        if cluster != "skiff":
            opened = tmp_path / "kubeconfig"
            opened.unlink(missing_ok=True)
            command_line("kubeconfig", cluster, "--to", str(opened))
            assert opened.stat().st_mode & 0o777 == 0o600
            ready = site.clusters[cluster].kubectl("--kubeconfig", str(opened), "get", "--raw=/readyz")
            assert ready.stdout.startswith(b"ok")
        spoiled.markers.spoil()


# --- when a step fails; the cluster is up, spoiled, and the blocking problems are overridden ----------------------------------

RENAME_INTO_PLACE = r"mv .*/data/member "


@pytest.fixture
def spoiled(backed_up) -> Spoiled:
    """`harbor`, spoiled whatever the tests before left."""
    found = backed_up["harbor"]
    if found.markers.seen() != SPOILED:
        found.markers.spoil()
    return found


def test_a_step_that_fails_is_taken_back_and_the_run_says_so(airflow, spoiled, site):
    run = RestoreRun.start(airflow, "harbor", override=True)
    with site.faults.ssh("sudo", where="harbor", match=RENAME_INTO_PLACE, times=1):
        run.approve()
        assert run.ended() == "failed"
    states = run.states()
    assert (states["swap"], states["rollback"], states["verify"]) == ("failed", "success", "upstream_failed")
    assert "place-data" in run.log("swap")
    assert run.returned("rollback")["kind"] == "rolled-back"
    assert spoiled.shows(SPOILED)


def test_what_is_held_goes_on_when_the_failed_task_is_cleared(airflow, spoiled, site):
    run = RestoreRun.start(airflow, "harbor", override=True, on_failure="hold")
    with site.faults.ssh("sudo", where="harbor", match=RENAME_INTO_PLACE, times=1):
        run.approve()
        assert run.ended() == "failed"
    held = run.returned("rollback")
    assert held["kind"] == "held"
    assert held["remaining"]
    assert spoiled.markers.cluster.kubectl("get", "--raw=/readyz", check=False).returncode, "it is left as it was: down"
    run.clear("swap", "verify", "fetch_kubeconfig")
    assert run.ended() == "success"
    assert spoiled.shows(AS_BACKED_UP)


def test_a_worker_killed_in_the_outage_is_followed_by_one_that_goes_on(airflow, spoiled, site):
    run = RestoreRun.start(airflow, "harbor", override=True)
    with site.faults.ssh("stall", where="harbor", match="crictl.* stop", times=1) as stalled:
        run.approve()
        wait_for(lambda: site.faults.hits(stalled.id), "the outage to begin", 120)
        kill_worker(airflow, run.dag, run.run_id, "swap")
        assert run.ended() == "success"
    assert airflow.tasks(run.dag, run.run_id)["swap"]["try_number"] == 2
    assert run.returned("verify")["kind"] == "restored"
    assert spoiled.shows(AS_BACKED_UP)


def test_acceptance_restores_a_cluster_and_tells_how_long_it_was_down(
    airflow, backed_up, site, config, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.gcs_url)
    cluster = load_cluster("harbor")
    identity, report = Path(cluster.age_identity.path), AcceptanceReport()
    opened = open_site(cluster, FileCredentials())
    monkeypatch.setenv("PATH", os.pathsep.join((str(etcd_folder()), str(kubectl_path().parent), os.environ["PATH"])))
    trial = Restoration(airflow, opened, identity, tmp_path, report, reading_s=READING_S)
    trial.go(lambda: back_up(airflow, opened, identity, report))
    told = capsys.readouterr().out
    assert report.failures == 0, told
    assert not trial.under_way()
    assert re.search(
        r"down for [\d.]+ s by its record \(first stop to ready\), [\d.]+ s as /readyz was seen from here", told
    )
    assert f"restore-leftovers harbor --remove {trial.record().restore}" in told
    assert (
        "etcdkeep-acceptance" not in site.clusters["harbor"].kubectl("get", "namespaces", "-o", "name").stdout.decode()
    )


def test_no_secret_is_in_logs_xcom_rendered_fields_or_the_record(airflow, spoiled, site, config):
    assert leaks_in_files([airflow.home, config.parent], canaries(site)) == {}
