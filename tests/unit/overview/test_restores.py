"""Restores and recoveries as the repository has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.approval.answers import AirflowRun, Answer
from etcdkeep.documents import write
from etcdkeep.errors import RequestRefused
from etcdkeep.overview.restores import restore_rows, restore_view
from etcdkeep.recover.record import REPORT as RECOVERY_REPORT
from etcdkeep.recover.record import KeptReport, RecoveryProposal, RecoveryRecord
from etcdkeep.restore.engine import StepEvent
from etcdkeep.restore.proposal import make_proposal
from etcdkeep.restore.record import Outcome, RestoreRecord
from tests.builders import make_records
from tests.unit.restore.test_record import FACTS, FORM, FOUND, OPTIONS, PLAN, RUN

NAME = "restore-20261123T041500Z-1f0c9a3e"
RECOVERY = "20261124T041500Z-1f0c9a3e"
HOSTILE = "<img src=x> [a](http://b) \x1b[31m\u202e end"
BEGAN = 1_795_000_000.0


@pytest.fixture
def records(tmp_path):
    return make_records(DirectoryStore(tmp_path))


@pytest.fixture
def record(records):
    return RestoreRecord(records, "prod", NAME)


def propose(record):
    form = FORM.model_copy(update={"reason": HOSTILE})
    return record.propose(make_proposal(RUN, PLAN, "page", form, FACTS, OPTIONS, FOUND, HOSTILE))


def answer(record, proposal, gate, user="alice"):
    asked = record.gates.ask(gate, "task-1", proposal)
    now = datetime.now(UTC)
    body = Answer(gate=gate, asked=asked.digest, proposal=proposal.digest, page_sha256="e" * 64, choice="Approve", user_id=user, user_name=user, at=now, until=now + timedelta(hours=1))  # fmt: skip
    record.gates.keep(body)


def run(record, proposal, *, until=None):
    """Run the steps of the plan, each in two seconds, up to and without one."""
    record.begin(proposal)
    at = BEGAN
    with record.journal("swap", datetime.now(UTC)) as tell:
        for step in PLAN.steps:
            tell(StepEvent(step.name, step.phase, step.place, "began", at))
            if step.name == until:
                return
            tell(StepEvent(step.name, step.phase, step.place, "done", at + 2))
            at += 3


def test_nothing_was_restored(records):
    assert restore_rows(records, "prod") == ([], 0)
    with pytest.raises(RequestRefused, match="no restore or recovery"):
        restore_view(records, "prod", NAME)


def test_a_proposal_that_waits_for_its_second_approval(records, record):
    proposal = propose(record)
    answer(record, proposal, "approve")
    record.gates.ask("approve_second", "task-2", proposal)
    ((row,), _) = restore_rows(records, "prod")
    assert (row.outcome, row.kind, row.backup_id, row.down_s) == ("proposed", "restore", PLAN.backup_id, None)
    assert not {"\x1b", "\u202e"} & {*row.reason, *row.requested_by}
    view = restore_view(records, "prod", NAME)
    assert [(each.gate, each.choice, each.user) for each in view.approvals] == [("approve", "Approve", "alice"), ("approve_second", "", "")]  # fmt: skip
    assert {step.state for step in view.steps} == {"planned"}
    assert view.plan


def test_one_that_runs_shows_each_step(records, record):
    middle = PLAN.steps[len(PLAN.steps) // 2].name
    run(record, propose(record), until=middle)
    view = restore_view(records, "prod", NAME)
    assert view.row.outcome == "running"
    states = [step.state for step in view.steps]
    place = [step.step for step in view.steps].index(middle)
    assert states[:place] == ["done"] * place
    assert states[place] == "began"
    assert set(states[place + 1 :]) == {"planned"}
    assert view.steps[0].seconds == 2.0
    assert view.steps[place].seconds is None


def test_one_that_ended(records, record):
    run(record, propose(record))
    record.conclude(Outcome(kind="restored", at=datetime.now(UTC), words=HOSTILE, down_s=21.5, notes=(HOSTILE,)))
    view = restore_view(records, "prod", NAME)
    assert (view.row.outcome, view.row.down_s) == ("restored", 21.5)
    assert "\x1b" not in view.row.words + "".join(view.notes)
    assert any(step.outage for step in view.steps)
    assert view.ignored == ()


def test_a_forged_proposal_is_said_to_be_unsigned(records, record):
    write(records.store, f"prod/restores/{NAME}/proposals/20261123T041500.000000Z.json", b'{"plan": "<b>"}')
    ((row,), _) = restore_rows(records, "prod")
    assert (row.outcome, row.requested_by, row.backup_id) == ("unsigned", "", "")
    assert restore_view(records, "prod", NAME).ignored


def test_a_recovery(records):
    made = RecoveryRecord(records, "prod", RECOVERY, ())
    proposal = made.propose(RecoveryProposal(run=AirflowRun(airflow="a", dag_id="recover_objects", run_id="r"), backup_id="b", plan_sha256="c", page_sha256="d", requested_by="bob"))  # fmt: skip
    assert restore_rows(records, "prod")[0][0].outcome == "proposed"
    body = KeptReport(proposal=proposal.digest, file="f", sha256="e", counts={"created": 3, "failed": 0}, complete=True)
    records.append(RECOVERY_REPORT, f"{made.folder}reports/", "prod", RECOVERY, body)
    view = restore_view(records, "prod", RECOVERY)
    assert (view.row.kind, view.row.outcome, view.row.words) == ("recovery", "applied", "3 created")
    assert (view.plan, view.steps) == ((), ()), "its plan is sealed"


def test_the_newest_are_read_and_the_others_counted(records):
    names = [f"restore-202611{day:02}T041500Z-1f0c9a3e" for day in range(1, 6)]
    for name in (*names, "restore-29991123T041500Z-1f0c9a3e", "restore-nonsense"):
        write(records.store, f"prod/restores/{name}/proposals/20261123T041500.000000Z.json", b"{}")
    rows, older = restore_rows(records, "prod", most=3)
    assert ([row.name for row in rows], older) == (names[:1:-1], 4)
    rows, older = restore_rows(records, "prod")
    assert (len(rows), older) == (7, 0)
