"""``runbook --begun``: a restore that was broken off, and whose Airflow is gone, by its own plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.approval.answers import AirflowRun, Rules, read_answer
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.restore.authority import GATES
from etcdkeep.restore.form import Form
from etcdkeep.restore.options import Options
from etcdkeep.restore.proposal import make_proposal
from etcdkeep.restore.record import Outcome, RestoreRecord
from etcdkeep.restore.runbook import render_runbook
from etcdkeep.sets.backup_set import BackupSet
from tests.builders import make_entry, make_file, make_records
from tests.gate import response
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest, planned

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from etcdkeep.restore.steps import Plan

RESTORE = "restore-20261101T000000Z-00000001"


@pytest.fixture
def record(tmp_path: Path) -> RestoreRecord:
    return RestoreRecord(make_records(DirectoryStore(tmp_path / "repository")), "harbor", RESTORE)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    config = tmp_path / "clusters.yaml"
    config.write_text(make_file(make_entry(repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))

    def invoke(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["runbook", *args])
        code = ended.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return invoke


def begin(record: RestoreRecord, people: dict[str, str]) -> Plan:
    """Begin a restore that these people approved: gate → person."""
    manifest, options = make_manifest(), Options(RESTORE, PLANNED_AT)
    plan = planned(make_cluster(), manifest, [make_facts()], options)
    found = BackupSet("harbor", manifest.backup_id, manifest, manifest.to_bytes(), b"")
    form = Form(cluster="harbor", reason="it is broken", confirm="harbor")
    run = AirflowRun(airflow="", dag_id="restore", run_id="manual__1")
    proposal = record.propose(make_proposal(run, plan, "page", form, (make_facts(),), options, found, "carol"))
    for gate, person in people.items():
        asked = record.gates.ask(gate, f"ti-{gate}", proposal)
        record.gates.keep(read_answer(response(person), asked, "page", Rules(GATES)))
    record.begin(proposal)
    return plan


def test_a_restore_that_was_begun_is_printed_as_it_stands_on_record(
    run: Callable[..., Any], record: RestoreRecord
) -> None:
    plan = begin(record, {"approve": "alice", "approve_second": "bob"})
    code, out, _ = run("harbor", "--begun", RESTORE)
    assert (code, out) == (0, render_runbook(plan, make_cluster().ssh))


def test_one_that_two_people_did_not_approve_is_not_printed(run: Callable[..., Any], record: RestoreRecord) -> None:
    begin(record, {"approve": "alice"})
    code, out, err = run("harbor", "--begun", RESTORE)
    assert (code, out) == (1, "")
    assert "gate 'approve_second' has asked nobody" in err


def test_a_planted_one_is_not_printed(run: Callable[..., Any], record: RestoreRecord, tmp_path: Path) -> None:
    begin(record, {"approve": "alice", "approve_second": "bob"})
    (path,) = (tmp_path / "repository").glob("harbor/restores/*/proposals/*.json")
    path.write_text(path.read_text().replace("mkdir", "rm"))
    code, out, err = run("harbor", "--begun", RESTORE)
    assert (code, out) == (1, "")
    assert "has begun with a plan that is not in" in err


def test_one_that_has_ended_is_printed_only_when_asked_again(run: Callable[..., Any], record: RestoreRecord) -> None:
    plan = begin(record, {"approve": "alice", "approve_second": "bob"})
    record.conclude(Outcome(kind="restored", at=PLANNED_AT, words="cluster 'harbor' runs on backup 1."))
    code, out, err = run("harbor", "--begun", RESTORE)
    assert (code, out) == (1, "")
    assert "has ended: cluster 'harbor' runs on backup 1." in err
    code, out, err = run("harbor", "--begun", RESTORE, "--override")
    assert (code, out) == (0, render_runbook(plan, make_cluster().ssh))
    assert "warning: " in err


def test_one_that_was_not_begun_is_not_made_up(run: Callable[..., Any], record: RestoreRecord) -> None:
    code, out, err = run("harbor", "--begun", record.restore)
    assert (code, out) == (1, "")
    assert "was begun" in err
