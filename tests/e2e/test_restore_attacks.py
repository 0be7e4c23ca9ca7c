"""What one person with Airflow's role *op*, or somebody who can write the repository, tries through the public interfaces."""

from __future__ import annotations

import json
import time
import urllib.error
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.acceptance.restore_run import RestoreRun
from etcdkeep.config.loading import CONFIG_VARIABLE, load_cluster
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site as open_site
from tests.e2e.restore_run import Spoiled
from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, Markers

if TYPE_CHECKING:
    from pathlib import Path

    from etcdkeep.acceptance.airflow import Airflow
    from etcdkeep.sets.repository import Repository
    from lab import Site

pytestmark = pytest.mark.timeout(1200)
CLUSTER = "harbor"
ANSWERED_S = 60.0
FORGED = "### Plan\n- Nothing will change."


@pytest.fixture(scope="module")
def spoiled(airflow: Airflow, site: Site) -> Spoiled:
    """`harbor`, backed up and then changed: it shows whether a restore has touched it."""
    found = Spoiled(Markers(site.clusters[CLUSTER]))
    found.markers.write()
    run_id = airflow.trigger(f"backup__{CLUSTER}", {"reason": "e2e"})
    assert airflow.wait(f"backup__{CLUSTER}", run_id, 300)["state"] == "success"
    found.markers.spoil()
    return found


@pytest.fixture
def repository(site: Site, config: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """The repository, as somebody writes it who has access to the bucket alone."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", site.gcs_url)
    return open_site(load_cluster(CLUSTER), FileCredentials()).repository


class Attacker:
    """An ordinary user of Airflow, on one run of the restore."""

    def __init__(self, run: RestoreRun, user: str = "alice") -> None:
        self.run = run
        self.user = user

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API, again while SQLite has two writers at once."""
        deadline = time.monotonic() + ANSWERED_S
        while True:
            try:
                return self.run._call(method, path, body, self.user)
            except urllib.error.HTTPError as err:
                if err.code != 500 or time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def mark(self, task: str, state: str) -> None:
        """Mark a task as done or failed, and nothing else."""
        self.call("PATCH", f"taskInstances/{task}", {"new_state": state})

    def put_xcom(self, task: str, value: Any, key: str = "return_value") -> None:
        """Write an XCom, whether or not there is one."""
        place = f"taskInstances/{task}/xcomEntries"
        try:
            self.call("PATCH", f"{place}/{key}", {"value": value, "map_index": -1})
        except urllib.error.HTTPError as err:
            if err.code != 404:
                raise
            self.call("POST", place, {"key": key, "value": value, "map_index": -1})

    def clear(self, *tasks: str) -> None:
        body = {"dry_run": False, "dag_run_id": self.run.run_id, "task_ids": list(tasks), "only_failed": False}
        self.run.airflow.call("POST", f"/dags/{self.run.dag}/clearTaskInstances", body, self.user)


def start(airflow: Airflow) -> Attacker:
    return Attacker(RestoreRun.start(airflow, CLUSTER, override=True))


def test_one_person_cannot_complete_a_restore_by_marking_gates_and_editing_xcom(
    airflow: Airflow, spoiled: Spoiled
) -> None:
    alice = start(airflow)
    alice.run.asked("approve")
    planned = alice.run.returned("preflight")
    for gate, person in (("approve", "alice"), ("approve_second", "bob")):
        alice.run.asked(gate)
        answer = {"gate": gate, "choice": "Approve", "user_id": person, "user_name": person, "digest": planned["plan"]}
        alice.mark(gate, "success")
        alice.put_xcom(gate, answer)
    assert alice.run.ended() == "failed"
    assert "has no answer" in alice.run.log("stage")
    assert spoiled.shows(SPOILED)


def test_one_person_cannot_answer_as_two_by_editing_the_first_answer(airflow: Airflow, spoiled: Spoiled) -> None:
    alice = start(airflow)
    alice.run.answer("approve", "alice")
    alice.run.asked("approve_second")
    alice.put_xcom("approve", alice.run.returned("approve") | {"user_id": "bob", "user_name": "bob"})
    alice.run.answer("approve_second", "alice")
    assert alice.run.ended() == "failed"
    assert "alice has approved already" in alice.run.log("approve_second")
    assert spoiled.shows(SPOILED)


def test_the_approvers_are_shown_the_signed_page_whatever_xcom_says(airflow: Airflow, spoiled: Spoiled) -> None:
    alice = start(airflow)
    page = alice.run.asked("approve")["body"]
    alice.put_xcom("preflight", FORGED, key="page")
    alice.put_xcom("resolve_backup", {"backup_id": "20990101T000000Z-00000000"})
    alice.put_xcom("approve", "e" * 64, key="asked_for")
    alice.clear("approve")
    shown = alice.run.answer("approve", "bob", "Reject")
    assert shown["body"] == page
    assert "20990101" not in shown["subject"]
    assert alice.run.ended() == "success"
    assert spoiled.shows(SPOILED)


def test_a_planted_begin_is_not_rolled_back_when_a_gate_fails(
    airflow: Airflow, spoiled: Spoiled, repository: Repository
) -> None:
    alice = start(airflow)
    alice.run.answer("approve", "alice")
    alice.run.asked("approve_second")
    (proposal,) = [
        item.name
        for item in repository.store.list(f"{CLUSTER}/restores/")
        if "/proposals/" in item.name and item.name.split("/")[-3] == newest_restore(repository)
    ]
    folder = proposal.rpartition("proposals/")[0]
    for name, body in (
        ("begun.json", {"digest": "d" * 64}),
        (f"plan-{'d' * 16}.json", {"steps": [{"name": "x", "undo": {"kind": "run", "argv": ["touch", "/tmp/owned"]}}]}),
    ):
        with repository.store.create(folder + name) as sink:
            sink.write(json.dumps(body).encode())
    alice.run.answer("approve_second", "alice")
    assert alice.run.ended() == "failed"
    assert alice.run.states()["rollback"] in {"skipped", "upstream_failed"}
    assert spoiled.shows(SPOILED)


def newest_restore(repository: Repository) -> str:
    names = {
        item.name.split("/")[2] for item in repository.store.list(f"{CLUSTER}/restores/") if item.name.count("/") > 2
    }
    return max(names)


def test_a_viewer_can_do_nothing(airflow: Airflow, spoiled: Spoiled) -> None:
    alice = start(airflow)
    alice.run.asked("approve")
    victor = Attacker(alice.run, "victor")
    for attempt in (
        lambda: victor.mark("approve", "success"),
        lambda: victor.put_xcom("preflight", FORGED, key="page"),
        lambda: victor.clear("preflight"),
        lambda: victor.call("PATCH", "taskInstances/approve/-1/hitlDetails", {"chosen_options": ["Approve"], "params_input": {}}),
        lambda: airflow.call("POST", f"/dags/{alice.run.dag}/dagRuns", {"logical_date": None, "conf": {}}, "victor"),
    ):  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as caught:
            attempt()
        assert caught.value.code == 403
    alice.run.answer("approve", "bob", "Reject")
    assert alice.run.ended() == "success"


def test_a_restore_that_ended_well_is_not_rolled_back_nor_done_again_by_one_person(
    airflow: Airflow, spoiled: Spoiled
) -> None:
    alice = start(airflow)
    alice.run.approve("alice", "bob")
    assert alice.run.ended() == "success", alice.run.states()
    assert spoiled.shows(AS_BACKED_UP)
    spoiled.markers.spoil()
    alice.mark("verify", "failed")
    alice.clear("rollback")
    assert alice.run.ended() == "failed"
    assert "ended well" in alice.run.log("rollback")
    alice.clear("stage", "restore_etcd", "swap")
    assert alice.run.ended() == "failed"
    assert "its approvals are spent" in alice.run.log("stage")
    assert spoiled.shows(SPOILED)


def test_an_answer_within_moments_is_asked_for_again_or_counts(airflow: Airflow, spoiled: Spoiled) -> None:
    """Airflow 3.3 takes an answer that comes before its scheduler has seen the gate parked for a crash."""
    run = RestoreRun.start(airflow, CLUSTER, override=True)
    run.reading_s = 0.0
    run.answer("approve", "bob", "Reject")
    assert run.ended() == "success"
    assert spoiled.shows(SPOILED)
