"""The steps of a restore as operators: a whole run, each step twice, and what is refused."""

from __future__ import annotations

import io
import pickle
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException, DownstreamTasksSkipped

from etcdkeep.errors import (
    CommandFailed,
    NoAnswer,
    NotApproved,
    NotFound,
    RequestRefused,
    RollbackIncomplete,
    StepFailed,
    TransientError,
    Unreachable,
    VerificationFailed,
)
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.report import RestoreReport
from etcdkeep.restore.steps import OUTAGE
from etcdkeep.sealing.seal import unseal
from etcdkeep_airflow.operators.restore import (
    RESTORE_RETRIES,
    ROLLBACK_RETRIES,
    PreflightOperator,
    ResolveBackupOperator,
    RestoreApproval,
    SwapOperator,
)
from tests.gate import Gate
from tests.restore_ran import BACKUP, FORWARD, WALK, Ran
from tests.restore_site import RestoreSite
from tests.unit.restore.machine import Fault, Killed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RestoreSite:
    made = RestoreSite(tmp_path / "repository")
    made.install(monkeypatch)
    return made


@pytest.fixture
def ran(site: RestoreSite) -> Ran:
    """An approved run."""
    run = Ran(site)
    run.approve()
    return run


def node(site: RestoreSite) -> Any:
    return site.machines["10.0.0.1"]


def data_of(site: RestoreSite) -> str:
    return str(node(site).files["/var/lib/etcd/member/snap/db"])


# --- the way there -------------------------------------------------------------------------------------------------


def test_an_approved_run_ends_restored_and_gives_the_cluster_free(ran: Ran, site: RestoreSite) -> None:
    node(site).put("/etc/kubernetes/admin.conf", "canary: kubeconfig")
    outcome = ran.walk(*FORWARD)
    assert data_of(site).startswith("restored data@")
    assert outcome["kind"] == "restored"
    assert outcome["down_s"] > 0
    assert (outcome["revision"], outcome["keys"]) == (2_000_000_000, 5)
    assert site.repository.store.stat("prod/restores/locked.json") is None
    last = ran.record.outcome()
    assert last is not None
    assert last.model_dump(mode="json") == outcome


def test_the_newest_good_backup_is_taken_or_the_one_that_is_named(site: RestoreSite) -> None:
    for wanted in ("", BACKUP, f"prod/{BACKUP}", f" {BACKUP} "):
        assert Ran(site, backup=wanted).resolve() == {
            "backup_id": BACKUP,
            "state": "good",
            "levels": ["stored", "sealed", "etcd", "pki", "drill"],
        }


def test_the_page_has_plan_findings_loss_and_limits_and_the_plan_is_on_record(site: RestoreSite) -> None:
    run = Ran(site, reason="the *disk* died")
    digest = run.preflight()["plan"]
    page = run.pushed["page"]
    for said in (digest, "Bring etcd's data", "the \\*disk\\* died", "carol", "Unknown:", "last resort", "`rollback`"):
        assert said in page
    assert run.record.proposal().body.backup_id == BACKUP
    assert run.record.proposal().body.page == page
    assert run.preflight()["plan"] == digest, "a second try plans the same"


def test_down_time_begins_in_the_task_that_ends_it(ran: Ran, site: RestoreSite) -> None:
    ran.walk("stage", "restore_etcd")
    assert node(site).running
    assert data_of(site) == "live data of cp-0@1500"
    assert tuple(SwapOperator.phases) == OUTAGE
    ran.walk("swap")
    assert node(site).running
    assert data_of(site).startswith("restored data@")


@pytest.mark.parametrize("task", FORWARD)
@pytest.mark.parametrize("kind", ["kill", "cut"])
def test_a_retry_of_any_task_goes_on_where_its_predecessor_was_killed(
    ran: Ran, site: RestoreSite, task: str, kind: str
) -> None:
    before = FORWARD[: FORWARD.index(task)]
    if before:
        ran.walk(*before)
    struck = node(site)
    struck.fault = Fault(struck.count + 3, kind, before=False)
    with suppress(Killed, TransientError):  # Airflow tries again after both
        ran.walk(task)
    struck.fault = None
    ran.walk(task)
    ran.walk(*FORWARD[FORWARD.index(task) :])
    assert data_of(site).startswith("restored data@")


def test_the_kubeconfig_is_sealed_once_and_opens_with_the_age_identity(
    ran: Ran, site: RestoreSite, tmp_path: Path
) -> None:
    node(site).put("/etc/kubernetes/admin.conf", "canary: kubeconfig")
    ran.walk(*FORWARD)
    first = ran.walk("fetch_kubeconfig")
    stored = (tmp_path / "repository" / first["kubeconfig"]).read_bytes()
    assert ran.walk("fetch_kubeconfig") == first
    assert (tmp_path / "repository" / first["kubeconfig"]).read_bytes() == stored
    assert b"canary" not in stored
    with (tmp_path / "plain").open("wb") as plain:
        unseal(io.BytesIO(ran.record.sealed_kubeconfig()), plain, site.identities(), size_limit=1000)
    assert (tmp_path / "plain").read_text() == "canary: kubeconfig"


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "error", "said"),
    [
        pytest.param({"confirm": "Prod"}, RequestRefused, "the confirmation is 'Prod'", id="confirmation"),
        pytest.param({"backup": "other/" + BACKUP}, NotFound, "is of cluster 'other'", id="another-cluster"),
        pytest.param({"backup": "yesterday"}, NotFound, "is not a backup", id="no-id"),
        pytest.param({"backup": "20261120T023000Z-ffffffff"}, NotFound, "no backup prod/", id="no-such-set"),
        pytest.param({"reason": "  "}, ValueError, "reason", id="no-reason"),
    ],
)
def test_a_form_that_is_wrong_is_refused(
    site: RestoreSite, form: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Ran(site, **form).resolve()


def test_a_dry_run_ends_with_everything_skipped_and_nothing_on_record(site: RestoreSite) -> None:
    run = Ran(site, dry_run=True)
    site.facts["cp-0"] = site.facts["cp-0"].__class__(**{**vars(site.facts["cp-0"]), "etcd_healthy": True})
    with pytest.raises(DownstreamTasksSkipped):
        run.preflight()
    assert "no restore is needed" in run.pushed["page"]
    assert list(site.repository.store.list("prod/restores/")) == []


def test_every_reason_against_is_told_at_once_and_what_may_be_is_overridden(site: RestoreSite) -> None:
    site.facts["cp-0"] = site.facts["cp-0"].__class__(**{**vars(site.facts["cp-0"]), "etcd_healthy": True})
    run = Ran(site)
    run.backups = 1
    with pytest.raises(RequestRefused) as caught:
        run.preflight()
    assert len(caught.value.problems) == 2
    assert "All of these can be overridden" in str(caught.value)
    overridden = Ran(site, override=True)
    overridden.backups = 1
    overridden.preflight()
    assert overridden.pushed["page"].count("**OVERRIDDEN:**") == 2


@pytest.mark.parametrize("task", FORWARD)
def test_nothing_is_done_that_nobody_approved(site: RestoreSite, task: str) -> None:
    run = Ran(site)
    run.preflight()
    with pytest.raises(NotApproved if task == "stage" else RequestRefused, match=r"was skipped|has not begun"):
        run.walk(task)
    assert node(site).count == 0


@pytest.mark.parametrize("task", FORWARD)
def test_a_plan_that_somebody_altered_after_the_approval_counts_as_nothing(
    ran: Ran, site: RestoreSite, task: str
) -> None:
    (path,) = (site.repository.store.root / "prod/restores").glob("*/proposals/*.json")
    path.write_text(path.read_text().replace("/var/lib/etcd", "/var/lib/evil"))
    with pytest.raises(RequestRefused, match=r"has no signed plan|has not begun"):
        ran.walk(task)
    assert node(site).count == 0


def test_a_cluster_has_one_restore_at_a_time(ran: Ran, site: RestoreSite) -> None:
    other = RestoreRecord(site.repository.records, "prod", "restore-20261101T000000Z-00000000")
    other.lock()
    with pytest.raises(RequestRefused, match="locked by restore 'restore-20261101T000000Z-00000000'"):
        ran.walk("stage")
    assert node(site).count == 0
    with pytest.raises(AirflowSkipException, match="had not begun"):
        ran.walk("rollback")
    with pytest.raises(RequestRefused, match="is locked by"):
        ran.preflight()
    ran.params["override"] = True
    with pytest.raises(RequestRefused, match="locked by"):
        ran.walk("stage")  # what was approved counts, not what the form says since
    ran.preflight()
    ran.gates(try_number=2)
    ran.walk("stage")
    assert other.locked_by() == ran.record.restore


def test_a_backup_that_began_since_the_plan_is_waited_for(ran: Ran, site: RestoreSite) -> None:
    ran.backups = 1
    with pytest.raises(RequestRefused, match="run of `backup__prod` of this cluster began since"):
        ran.walk("stage")
    assert ran.record.begun() is None
    ran.backups = 0
    ran.walk("stage")


def test_a_worker_killed_between_taking_the_cluster_and_beginning_leaves_it_free(ran: Ran, site: RestoreSite) -> None:
    ran.record.lock()
    with pytest.raises(AirflowSkipException, match="had not begun"):
        ran.walk("rollback")
    assert site.repository.store.stat("prod/restores/locked.json") is None


# --- the way back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", range(1, 4))
def test_whatever_was_done_is_rolled_back(ran: Ran, site: RestoreSite, done: int) -> None:
    ran.walk(*FORWARD[:done])
    outcome = ran.walk("rollback")
    assert outcome["kind"] == "rolled-back"
    assert data_of(site) == "live data of cp-0@1500"
    assert node(site).files["/etc/kubernetes/pki/ca.crt"] == "live ca"
    assert node(site).running
    assert (outcome["down_s"] is not None) == (done > 2)
    assert site.repository.store.stat("prod/restores/locked.json") is None


def test_a_restore_that_is_not_good_fails_and_is_taken_back(ran: Ran, site: RestoreSite) -> None:
    site.report = RestoreReport(("the members form 2 etcd clusters",), (), 1, 1)
    ran.walk(*FORWARD[:3])
    with pytest.raises(VerificationFailed, match="form 2 etcd clusters"):
        ran.walk("verify")
    ran.walk("rollback")
    assert data_of(site) == "live data of cp-0@1500"


def test_hold_leaves_all_as_it_is_and_says_where_it_stands_until_rollback_is_cleared(site: RestoreSite) -> None:
    run = Ran(site, on_failure="hold")
    run.approve()
    run.walk(*FORWARD[:3])
    before = dict(node(site).files)
    held = run.walk("rollback")
    assert held["kind"] == "held"
    assert "clear the failed task" in held["words"]
    assert held["remaining"][0] == "#!/bin/bash"
    undone = [line for line in held["remaining"] if ": undo: " in line]
    assert undone[0].endswith("(step start-kubelet.cp-0)")
    assert node(site).files == before
    assert run.walk("rollback")["kind"] == "rolled-back", "cleared a second time, with nothing done in between"
    assert data_of(site) == "live data of cp-0@1500"


def test_a_held_restore_can_be_finished(site: RestoreSite) -> None:
    run = Ran(site, on_failure="hold")
    run.approve()
    run.walk(*FORWARD[:3])
    run.walk("rollback")
    assert run.walk("verify")["kind"] == "restored"


@pytest.mark.parametrize("task", [*FORWARD[:3], "rollback"])
def test_the_approvals_of_a_restore_that_ended_well_are_spent(ran: Ran, site: RestoreSite, task: str) -> None:
    outcome = ran.walk(*FORWARD)
    done = node(site).count
    with pytest.raises(NotApproved, match="approvals are spent"):
        ran.walk(task)
    assert node(site).count == done
    assert ran.walk("verify") == outcome, "a worker may have died right after it"


@pytest.mark.parametrize("task", [*FORWARD, "rollback"])
def test_so_are_those_of_one_that_was_rolled_back(ran: Ran, site: RestoreSite, task: str) -> None:
    ran.walk(*FORWARD[:3], "rollback")
    done = node(site).count
    with pytest.raises(NotApproved, match=r"was rolled back at .* and its approvals are spent"):
        ran.walk(task)
    assert node(site).count == done


@pytest.mark.parametrize("task", [*FORWARD[:3], "rollback"])
def test_the_node_remembers_a_good_end_that_was_deleted_from_the_repository(
    ran: Ran, site: RestoreSite, task: str
) -> None:
    """A writer of the repository deletes the outcome; an op then clears a task, as if the restore had not ended."""
    ran.walk(*FORWARD)
    restored = data_of(site)
    site.repository.store.purge(f"prod/restores/{ran.record.restore}/outcome")
    with pytest.raises(RequestRefused, match="has ended well: every node and claim says so"):
        ran.walk(task)
    assert data_of(site) == restored
    assert ran.walk("verify")["kind"] == "restored"


@pytest.mark.parametrize("dead", ["10.0.0.1", "10.0.0.3"])
def test_a_node_that_is_dead_keeps_no_other_from_being_rolled_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    site = RestoreSite(tmp_path / "three", 3)
    site.install(monkeypatch)
    run = Ran(site)
    run.approve()
    run.walk(*FORWARD[:3])
    alive = [machine for address, machine in site.machines.items() if address != dead]
    opened = site.with_keys_of(None).open_node

    @contextmanager
    def open_node(address: str) -> Iterator[Any]:
        if address == dead:
            raise Unreachable(f"{address} is dead.")
        with opened(address) as shell:
            yield shell

    monkeypatch.setattr(site, "open_node", open_node)
    with pytest.raises(RollbackIncomplete, match="is dead") as caught:
        run.walk("rollback")
    assert caught.value.remaining
    assert {machine.files["/var/lib/etcd/member/snap/db"].partition(" of ")[0] for machine in alive} == {"live data"}


def test_the_node_remembers_an_end_that_was_deleted_from_the_repository(ran: Ran, site: RestoreSite) -> None:
    ran.walk(*FORWARD[:3], "rollback")
    site.repository.store.purge(f"prod/restores/{ran.record.restore}/outcome")
    with pytest.raises(RequestRefused, match="this restore has ended there"):
        ran.walk("stage")
    assert data_of(site) == "live data of cp-0@1500"


def test_files_of_another_plan_on_a_node_stop_the_restore(ran: Ran, site: RestoreSite) -> None:
    ran.walk("stage")
    (note,) = [path for path in node(site).files if path.endswith("/restore.txt")]
    node(site).put(note, f"plan {'e' * 64}\n")
    with pytest.raises(RequestRefused, match="holds the files of another plan"):
        ran.walk("restore_etcd")
    with pytest.raises(RequestRefused, match="holds the files of another plan"):
        ran.walk("rollback")


def test_a_rollback_that_cannot_be_says_what_a_person_has_to_do(ran: Ran, site: RestoreSite) -> None:
    ran.walk(*FORWARD[:3])
    node(site).fault = Fault(node(site).count + 4, "fail", before=True)
    with pytest.raises(RollbackIncomplete, match="could not be rolled back completely") as caught:
        ran.walk("rollback")
    assert caught.value.remaining
    last = ran.record.outcome()
    assert last is not None
    assert (last.kind, last.remaining) == ("incomplete", caught.value.remaining)
    node(site).fault = None
    assert ran.walk("rollback")["kind"] == "rolled-back"


def test_the_rollback_is_of_the_plan_that_was_begun_whatever_is_planned_and_asked_since(
    ran: Ran, site: RestoreSite
) -> None:
    ran.walk("stage", "restore_etcd", "swap")
    ran.preflight()
    Gate(RestoreApproval, "approve", "prod", ran.context(), try_number=2).ask()
    with pytest.raises(NotApproved, match="asked about another plan"):
        ran.walk("stage")
    assert ran.walk("rollback")["kind"] == "rolled-back"
    assert data_of(site) == "live data of cp-0@1500"


def test_a_way_back_needs_no_backup_set(ran: Ran, site: RestoreSite) -> None:
    ran.walk(*FORWARD[:3])
    site.repository.store.purge(f"prod/{BACKUP}")
    assert ran.walk("rollback")["kind"] == "rolled-back"
    assert data_of(site) == "live data of cp-0@1500"


@pytest.mark.parametrize("task", [*FORWARD, "rollback"])
def test_nothing_is_done_to_a_cluster_that_another_restore_has_changed_since(
    ran: Ran, site: RestoreSite, task: str
) -> None:
    ran.walk(*FORWARD[:3])
    done = node(site).count
    other = RestoreRecord(site.repository.records, "prod", "restore-20261101T000000Z-00000000")
    ran.record.release()
    other.lock()
    with pytest.raises(RequestRefused, match="is locked by"):
        ran.walk(task)
    other.begin(ran.record.proposal())
    other.release()
    with pytest.raises(RequestRefused, match="has changed the cluster since"):
        ran.walk(task)
    assert node(site).count == done


# --- what all of them are ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", [*WALK.values(), ResolveBackupOperator, PreflightOperator])
def test_every_template_field_is_there_and_nothing_is_opened_before_it_runs(operator: Any) -> None:
    needed = {"backup": BACKUP} if operator is PreflightOperator else {}
    with DAG(dag_id="restore", schedule=None):
        made = operator(task_id="task", cluster="{{ params.cluster }}", **needed)
    assert all(hasattr(made, field) for field in made.template_fields)
    assert "site" not in vars(made)
    assert pickle.loads(pickle.dumps(made)).cluster == "{{ params.cluster }}"


def test_a_step_that_failed_is_taken_back_and_a_passing_trouble_is_tried_again_soon() -> None:
    assert RESTORE_RETRIES.evaluate(StepFailed("x", step="s"), 1, 3).action.value == "fail"
    again = RESTORE_RETRIES.evaluate(Unreachable("x"), 1, 3)
    assert (again.action.value, again.retry_delay) == ("retry", timedelta(seconds=15))
    assert RESTORE_RETRIES.evaluate(NoAnswer("x"), 1, 20).action.value == "fail", "it was waited for already"
    for error in (RollbackIncomplete("x", remaining=()), CommandFailed("x", exit_code=1), Unreachable("x")):
        assert ROLLBACK_RETRIES.evaluate(error, 1, 3).action.value == "retry"
