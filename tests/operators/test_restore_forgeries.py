"""Attacks on a restore through the repository and Airflow's states, each as its attacker would do it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from etcdkeep.errors import EtcdkeepError, NotApproved, RequestRefused
from etcdkeep.restore.proposal import proposed_plan
from etcdkeep_airflow.operators.restore import RestoreApproval
from tests.gate import Gate
from tests.restore_ran import FORWARD, Ran
from tests.restore_site import RestoreSite

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RestoreSite:
    made = RestoreSite(tmp_path / "repository")
    made.install(monkeypatch)
    return made


def node(site: RestoreSite) -> Any:
    return site.machines["10.0.0.1"]


def plant(site: RestoreSite, name: str, data: bytes) -> None:
    path = site.repository.store.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_a_planted_begin_and_plan_are_not_walked(site: RestoreSite) -> None:
    """Fault 3: a gate that timed out let `rollback` walk whatever plan lay in the repository."""
    run = Ran(site)
    run.preflight()
    plan = proposed_plan(run.record.proposal()).to_json().replace("/var/lib/etcd", "/")
    digest = "d" * 64
    plant(site, f"{run.record.folder}plan-{digest[:16]}.json", plan.encode())
    for body in ({"digest": digest}, {"proposal": digest}):
        plant(site, f"{run.record.folder}begun.json", json.dumps(body).encode())
        with pytest.raises(AirflowSkipException, match="had not begun"):
            run.walk("rollback")
    assert node(site).count == 0


def test_a_proposal_of_another_cluster_s_restore_is_not_shown_nor_walked(
    site: RestoreSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages swapped between two running restores of two clusters."""
    run = Ran(site)
    run.approve()
    theirs = run.record.folder.replace("prod/", "fleet/", 1)
    for path in (site.repository.store.root / run.record.folder).rglob("*.json"):
        plant(
            site,
            theirs + path.relative_to(site.repository.store.root / run.record.folder).as_posix(),
            path.read_bytes(),
        )
    from etcdkeep.restore.record import RestoreRecord

    copied = RestoreRecord(site.repository.records, "fleet", run.record.restore)
    with pytest.raises(RequestRefused, match="has no signed plan"):
        copied.proposal()
    assert (copied.gates.asked(), copied.gates.answers()) == ([], [])


def test_an_approval_of_a_dry_run_does_not_exist(site: RestoreSite) -> None:
    run = Ran(site, dry_run=True)
    with pytest.raises(DownstreamTasksSkipped):
        run.preflight()
    assert list(site.repository.store.list("prod/restores/")) == []
    run.params["dry_run"] = False  # conf edited afterwards
    with pytest.raises(EtcdkeepError, match="has no signed plan"):
        run.walk("stage")


def test_params_edited_after_the_approval_change_nothing(site: RestoreSite) -> None:
    run = Ran(site)
    run.approve()
    run.params |= {"override": True, "on_failure": "hold", "what": "pki", "backup": "another", "way": "manifests"}
    run.walk(*FORWARD[:3])
    assert run.walk("rollback")["kind"] == "rolled-back"


def test_one_gate_skipped_with_two_people_s_answers_at_the_other(site: RestoreSite) -> None:
    run = Ran(site)
    run.preflight()
    run.gates({"approve": "alice"})
    run.gates({"approve": "bob"}, try_number=2)
    with pytest.raises(NotApproved, match="gate 'approve_second' has asked nobody"):
        run.walk("stage")
    assert node(site).count == 0


def test_a_plan_of_another_version_of_the_product_asks_again(
    site: RestoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Ran(site)
    run.approve()
    monkeypatch.setattr("etcdkeep.approval.answers.__version__", "99")
    with pytest.raises(EtcdkeepError, match=r"was made by etcdkeep .*, and this is etcdkeep 99"):
        run.walk("stage")
    assert node(site).count == 0


def test_answers_of_another_run_copied_here_do_not_count(site: RestoreSite) -> None:
    """A replay: every record of an approved run, put into the folder of another one."""
    approved, other = Ran(site), Ran(site)
    approved.approve()
    other.params = {**other.params, "reason": "another"}
    other.run_id = "manual__another"
    other.preflight()
    root = site.repository.store.root
    for path in (root / approved.record.folder).rglob("*.json"):
        if "proposals" not in path.parts:
            plant(
                site,
                other.record.folder + path.relative_to(root / approved.record.folder).as_posix(),
                path.read_bytes(),
            )
    with pytest.raises(NotApproved, match="gate 'approve' has asked nobody"):
        other.walk("stage")
    assert node(site).count == 0


def test_the_lock_of_a_restore_that_is_over_holds_nobody_back(site: RestoreSite) -> None:
    """A replay: the signed lock of an ended restore, put back in the outage of another one."""
    over, other = Ran(site), Ran(site)
    over.approve()
    over.walk("stage")
    old = (site.repository.store.root / "prod/restores/locked.json").read_bytes()
    over.walk("rollback")
    other.run_id = "manual__another"
    other.approve()
    other.walk("stage", "restore_etcd")
    plant(site, "prod/restores/locked.json", old)
    assert other.walk("rollback")["kind"] == "rolled-back"


def test_a_gate_that_is_cleared_in_the_outage_does_not_stop_it(site: RestoreSite) -> None:
    run = Ran(site)
    run.approve()
    run.walk(*FORWARD[:3])
    Gate(RestoreApproval, "approve", "prod", run.context(), try_number=2).ask()
    assert run.walk("verify")["kind"] == "restored"
