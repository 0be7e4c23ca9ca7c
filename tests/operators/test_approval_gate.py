"""Gates: what an answer is worth, and that nothing but a person's answer is one."""

from __future__ import annotations

import hashlib
import json
import pickle
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped

from etcdkeep.errors import NotApproved, RecordRefused, RequestRefused
from etcdkeep_airflow.operators.approval import ASK_AGAIN, ASK_AGAIN_POLICY
from etcdkeep_airflow.operators.restore import PreflightOperator, RestoreApproval, StageOperator
from tests.gate import Gate
from tests.restore_site import RestoreSite
from tests.unit.restore.builders import PLANNED_AT

if TYPE_CHECKING:
    from pathlib import Path

RUN = "manual__2026-11-23"


class Asked:
    """A restore that was planned, and its gates."""

    def __init__(self, site: RestoreSite, requester: str = "carol") -> None:
        self.site = site
        self.requester = requester

    def context(self, **run: Any) -> dict[str, Any]:
        fields = {"run_id": RUN, "dag_id": "restore", "run_after": PLANNED_AT, "triggering_user_name": self.requester}
        params = {"cluster": "prod", "confirm": "prod", "reason": "a test", "dry_run": False}
        ti = SimpleNamespace(xcom_push=lambda key, value: None, get_dr_count=lambda dag_id, states: 0)
        return {"run_id": RUN, "dag_run": SimpleNamespace(**{**fields, **run}), "ti": ti, "params": params}

    def task(self, operator: Any, **arguments: Any) -> Any:
        with DAG(dag_id="restore", schedule=None):
            made = operator(task_id="task", cluster="prod", **arguments)
        return made.execute(self.context())

    def plan(self) -> Any:
        return self.task(PreflightOperator, backup="20261120T023000Z-1f0c9a3e")

    def stage(self) -> Any:
        return self.task(StageOperator)

    def gate(self, name: str = "approve", try_number: int = 1, **run: Any) -> Gate:
        return Gate(RestoreApproval, name, "prod", self.context(**run), try_number=try_number)

    def pass_gate(self, name: str, person: str, **gate: Any) -> Any:
        made = self.gate(name, **gate)
        made.ask()
        return made.answer(person)

    def answers(self) -> list[dict[str, Any]]:
        """Return the answers on record."""
        paths = sorted((self.site.repository.store.root / "prod/restores").glob("*/approvals/*.json"))
        return [json.loads(json.loads(path.read_text())["payload"])["body"] for path in paths]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RestoreSite:
    made = RestoreSite(tmp_path)
    made.install(monkeypatch)
    return made


@pytest.fixture
def asked(site: RestoreSite) -> Asked:
    made = Asked(site)
    made.plan()
    return made


def count(site: RestoreSite) -> int:
    return site.machines["10.0.0.1"].count


def test_two_people_s_approvals_let_the_restore_begin(asked: Asked, site: RestoreSite) -> None:
    first = asked.pass_gate("approve", "alice")
    asked.pass_gate("approve_second", "bob")
    assert (first["gate"], first["choice"], first["user_id"]) == ("approve", "Approve", "alice")
    asked.stage()
    assert count(site)


def test_what_is_shown_is_the_page_that_was_signed(asked: Asked) -> None:
    gate = asked.gate()
    gate.ask()
    assert gate.shown["subject"] == "Restore cluster prod from backup 20261120T023000Z-1f0c9a3e?"
    assert "### Plan" in gate.shown["body"]
    assert gate.shown["defaults"] is None


def test_a_rejection_skips_everything_after_it_and_is_recorded(asked: Asked) -> None:
    gate = asked.gate()
    gate.ask()
    with pytest.raises(DownstreamTasksSkipped) as caught:
        gate.answer("alice", "Reject")
    assert set(caught.value.tasks) == {"direct", "rollback"}
    assert [each["choice"] for each in asked.answers()] == ["Reject"]


def test_no_answer_in_time_fails(asked: Asked) -> None:
    gate = asked.gate()
    with pytest.raises(HITLTimeoutError):
        gate._made().execute_complete(gate._context, {"error": "late", "error_type": "timeout"})


@pytest.mark.parametrize(
    ("people", "said"),
    [
        pytest.param({"approve": "alice", "approve_second": "alice"}, "alice has approved already", id="one-person"),
        pytest.param({"approve_second": "bob"}, "gate 'approve' has asked nobody", id="first-gate-skipped"),
    ],
)
def test_an_answer_that_does_not_count_fails_the_gate(asked: Asked, people: dict[str, str], said: str) -> None:
    *before, (last, person) = people.items()
    for name, somebody in before:
        asked.pass_gate(name, somebody)
    with pytest.raises(NotApproved, match=said):
        asked.pass_gate(last, person)


def test_an_answer_that_names_nobody_fails(asked: Asked) -> None:
    gate = asked.gate()
    gate.ask()
    with pytest.raises(NotApproved, match="names no person"):
        gate.answer(None)


def refused(asked: Asked, site: RestoreSite, said: str) -> None:
    with pytest.raises(NotApproved, match=said):
        asked.stage()
    assert count(site) == 0


def test_a_gate_that_was_only_marked_as_done_does_not_count(asked: Asked, site: RestoreSite) -> None:
    asked.pass_gate("approve", "alice")
    refused(asked, site, "gate 'approve_second' has asked nobody")


def test_a_gate_that_was_cleared_and_then_marked_as_done_does_not_count(asked: Asked, site: RestoreSite) -> None:
    asked.pass_gate("approve", "alice")
    asked.pass_gate("approve_second", "bob")
    asked.gate("approve_second", try_number=2).ask()
    refused(asked, site, "gate 'approve_second' has no answer")


def test_a_rejection_is_not_taken_away_by_another_answer(asked: Asked, site: RestoreSite) -> None:
    asked.pass_gate("approve", "alice")
    gate = asked.gate("approve_second")
    gate.ask()
    with pytest.raises(DownstreamTasksSkipped):
        gate.answer("bob", "Reject")
    again = asked.gate("approve_second", try_number=2)
    again.ask()
    with pytest.raises(NotApproved, match="bob rejected this plan"):
        again.answer("carol")
    refused(asked, site, "bob rejected this plan")


def test_a_plan_made_after_the_approvals_needs_its_own(asked: Asked, site: RestoreSite) -> None:
    asked.pass_gate("approve", "alice")
    asked.pass_gate("approve_second", "bob")
    asked.plan()
    refused(asked, site, "gate 'approve' asked about another plan")


def test_an_answer_to_a_page_that_is_out_of_date_does_not_count(asked: Asked) -> None:
    gate = asked.gate()
    gate.ask()
    asked.plan()
    with pytest.raises(NotApproved, match="this page is out of date"):
        gate.answer("alice")
    with pytest.raises(NotApproved, match="shows a plan that is out of date"):
        gate.ask()  # Airflow keeps showing the page of this try
    asked.pass_gate("approve", "alice", try_number=2)


def test_a_gate_that_waited_while_etcdkeep_was_upgraded_asks_again(
    asked: Asked, site: RestoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked = asked.gate()
    parked.ask()
    monkeypatch.setattr("etcdkeep.approval.answers.__version__", "99")
    with pytest.raises(NotApproved, match=r"was made by etcdkeep .*, and this is etcdkeep 99\."):
        parked.answer("alice")
    with pytest.raises(NotApproved, match="Clear the task that plans"):
        asked.gate(try_number=2).ask()
    with pytest.raises(NotApproved):
        asked.stage()
    asked.plan()
    asked.pass_gate("approve", "alice", try_number=3)
    asked.pass_gate("approve_second", "bob")
    asked.stage()
    assert count(site)


def test_a_rejection_counts_whichever_version_asked(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    parked = asked.gate()
    parked.ask()
    monkeypatch.setattr("etcdkeep.approval.answers.__version__", "99")
    with pytest.raises(DownstreamTasksSkipped):
        parked.answer("alice", "Reject")


def test_what_is_signed_and_approved_names_the_version(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etcdkeep.approval.answers.__version__", "99")
    proposed = asked.plan()["proposal"]
    asked.pass_gate("approve", "alice")
    folder = asked.site.repository.store.root / "prod/restores"
    payloads = [json.loads(path.read_text())["payload"] for path in folder.glob("*/proposals/*.json")]
    (signed,) = [each for each in payloads if hashlib.sha256(each.encode()).hexdigest() == proposed]
    assert json.loads(signed)["body"]["version"] == "99"
    assert [each["proposal"] for each in asked.answers()] == [proposed]


def test_an_answer_to_an_earlier_try_does_not_count(asked: Asked) -> None:
    early = asked.gate()
    early.ask()
    asked.gate(try_number=2).ask()
    with pytest.raises(NotApproved, match="has asked again since"):
        early.answer("alice")


@pytest.mark.parametrize("run", [{"run_id": "manual__other"}, {"dag_id": "another"}], ids=["run", "dag"])
def test_another_run_s_gate_finds_nothing_to_ask_for(asked: Asked, run: dict[str, str]) -> None:
    gate = asked.gate(**run)
    with pytest.raises((NotApproved, RequestRefused)):
        gate.ask()


def test_another_airflow_s_plan_is_not_this_one_s(
    asked: Asked, site: RestoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.pass_gate("approve", "alice")
    asked.pass_gate("approve_second", "bob")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://another.example.com")
    refused(asked, site, "not by this run of the Airflow at https://another.example.com")


def test_an_approval_expires(asked: Asked, site: RestoreSite) -> None:
    for name, person in (("approve", "alice"), ("approve_second", "bob")):
        gate = asked.gate(name)
        gate.ask()
        gate.answer(person, at=datetime.now(UTC) - timedelta(hours=13))
    refused(asked, site, "the approval of alice expired")
    assert site.repository.store.stat("prod/restores/locked.json") is None


def test_a_worker_whose_clock_was_set_back_is_told(
    asked: Asked, site: RestoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked.pass_gate("approve", "alice")
    asked.pass_gate("approve_second", "bob")

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - timedelta(days=1)

    monkeypatch.setattr("etcdkeep_airflow.operators.restore.datetime", Clock)
    refused(asked, site, "Correct the worker's clock")


def test_only_the_approvers_of_the_cluster_count_and_airflow_is_told_them(site: RestoreSite) -> None:
    site.cluster = site.cluster.model_copy(update={"approvers": ("alice", "bob")})
    asked = Asked(site)
    asked.plan()
    gate = asked.gate()
    gate.ask()
    assert gate.shown["assigned_users"] == [{"id": "alice", "name": "alice"}, {"id": "bob", "name": "bob"}]
    with pytest.raises(NotApproved, match="mallory is not among `approvers`"):
        gate.answer("mallory")


@pytest.mark.parametrize("may", [True, False])
def test_the_requester_may_be_barred(site: RestoreSite, may: bool) -> None:
    site.cluster = site.cluster.model_copy(update={"requester_may_approve": may})
    asked = Asked(site, requester="alice")
    asked.plan()
    if may:
        asked.pass_gate("approve", "alice")
    else:
        with pytest.raises(NotApproved, match="alice started this run and may not approve it"):
            asked.pass_gate("approve", "alice")


def test_every_failure_of_a_gate_is_final_but_airflow_s_own(asked: Asked) -> None:
    gate = asked.gate()._made()
    assert (gate.retries, gate.defaults, gate.response_timeout) == (ASK_AGAIN, None, timedelta(hours=4))
    for error in (
        NotApproved("x"),
        RequestRefused("x"),
        RecordRefused("x", word="foreign"),
        HITLTimeoutError("x"),
        HITLRejectException("x"),
    ):
        assert ASK_AGAIN_POLICY.evaluate(error, 1, ASK_AGAIN).action.value == "fail"
    assert pickle.loads(pickle.dumps(gate)).cluster == "prod"


def test_a_gate_that_asks_again_says_so(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    asked.gate(try_number=2).ask()
    assert "asks again: earlier answers at this gate do not count" in "".join(capsys.readouterr())
