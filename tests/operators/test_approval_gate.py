"""Gates: what an answer is worth, and that nothing but a person's answer is one."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import DownstreamTasksSkipped

from etcdkeep.errors import NotApproved
from etcdkeep_airflow.operators.approval import ApprovalGate
from etcdkeep_airflow.operators.restore import RestoreApproval
from tests.restore_site import RestoreSite
from tests.unit.restore.builders import PLANNED_AT

if TYPE_CHECKING:
    from pathlib import Path

AT = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
DIGEST = "d" * 64
FIRST = {"gate": "approve", "choice": "Approve", "user_id": "alice", "user_name": "alice", "at": AT.isoformat(), "digest": DIGEST}  # fmt: skip


def event(user: str | None = "bob", choice: str = "Approve") -> dict[str, Any]:
    person = {"id": user, "name": user} if user else None
    return {"chosen_options": [choice], "params_input": {}, "responded_at": AT, "responded_by_user": person}


def answer(
    response: dict[str, Any], *, first: Any = None, asked: str = DIGEST, kind: Any = ApprovalGate, **more: Any
) -> Any:
    """Resume a gate that had asked for `asked`, while its template says something newer now."""
    with DAG(dag_id="restore", schedule=None):
        gate = kind(task_id="gate", subject="?", body="page", digest="newer", first=first, **more)
        gate >> EmptyOperator(task_id="direct") >> EmptyOperator(task_id="rollback", trigger_rule="one_failed")
    ti = SimpleNamespace(xcom_pull=lambda task_ids, key: asked, xcom_push=lambda key, value: None, map_index=-1)
    dag_run = SimpleNamespace(run_id="manual", run_after=PLANNED_AT)
    context = {"ti": ti, "task": gate, "run_id": "manual", "dag_run": dag_run}
    return json.loads(json.dumps(gate.execute_complete(context, response)))


def test_an_approval_says_who_when_and_for_what_was_shown() -> None:
    assert answer(event()) == {
        "gate": "gate",
        "choice": "Approve",
        "user_id": "bob",
        "user_name": "bob",
        "at": "2026-11-23T04:00:00Z",
        "digest": DIGEST,
    }


def test_a_rejection_skips_everything_after_it() -> None:
    with pytest.raises(DownstreamTasksSkipped) as caught:
        answer(event(choice="Reject"))
    assert set(caught.value.tasks) == {"direct", "rollback"}


def test_a_second_person_approves_what_the_first_one_did() -> None:
    assert answer(event(), first=FIRST)["user_id"] == "bob"


@pytest.mark.parametrize(
    ("response", "first", "said"),
    [
        pytest.param(event("alice"), FIRST, "alice has approved already at gate 'approve'", id="same-person"),
        pytest.param(event(), FIRST | {"digest": "e" * 64}, "changed in between", id="another-plan"),
        pytest.param(event(), FIRST | {"choice": "Reject"}, "nobody has approved before", id="first-said-no"),
        pytest.param(event(None), FIRST, "does not say whose it is", id="nobody"),
    ],
)
def test_an_answer_that_does_not_count_fails(response: dict[str, Any], first: Any, said: str) -> None:
    with pytest.raises(NotApproved, match=said):
        answer(response, first=first)


def test_a_gate_after_one_that_was_only_marked_as_done_fails() -> None:
    with DAG(dag_id="restore", schedule=None):
        gate = ApprovalGate(task_id="second", subject="?", digest="d", first="{{ a template }}")
    gate.first = None  # what an answer that is not there renders to
    ti = SimpleNamespace(xcom_pull=lambda task_ids, key: DIGEST)
    with pytest.raises(NotApproved, match="nobody has approved before"):
        gate.execute_complete({"ti": ti, "task": gate}, event())


def test_the_same_person_may_still_say_no() -> None:
    with pytest.raises(DownstreamTasksSkipped):
        answer(event("alice", "Reject"), first=FIRST)


def test_no_answer_in_time_fails() -> None:
    with pytest.raises(HITLTimeoutError):
        answer({"error": "late", "error_type": "timeout"})


def test_a_gate_cannot_be_made_to_answer_itself() -> None:
    with DAG(dag_id="restore", schedule=None, default_args={"retries": 3, "retry_policy": object()}):
        gate = ApprovalGate(task_id="gate", subject="?", digest="d", response_timeout=timedelta(hours=1))
    assert (gate.retries, gate.retry_policy, gate.defaults) == (0, None, None)
    assert gate.response_timeout == timedelta(hours=1)
    assert {"subject", "body", "digest", "first"} <= set(gate.template_fields)
    assert pickle.loads(pickle.dumps(gate)).digest == "d"


@pytest.mark.parametrize("choice", ["Approve", "Reject"])
def test_every_answer_to_a_restore_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    site = RestoreSite(tmp_path)
    site.install(monkeypatch)
    with suppress(DownstreamTasksSkipped, NotApproved):
        answer(event("alice", choice), first=FIRST, kind=RestoreApproval, cluster="prod")
    (path,) = tmp_path.glob("prod/restores/restore-*/approvals/*.json")
    kept = json.loads(path.read_text())
    assert (kept["user_id"], kept["choice"], kept["digest"]) == ("alice", choice, DIGEST)
