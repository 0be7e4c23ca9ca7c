"""The drill as an operator: which set it takes, what it records, and what it fails with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from etcdkeep.errors import DrillImpossible, NotFound, SecretUnavailable, VerificationFailed
from etcdkeep_airflow.operators.base import RETRIES
from etcdkeep_airflow.operators.drill import DrillOperator, announced_backups
from tests.builders import make_database
from tests.drill_sets import publish_snapshot
from tests.fake_workshop import FakeWorkshop
from tests.snapshots import Put

OLD, NEW = "20261121T023000Z-1f0c9a3e", "20261122T023000Z-1f0c9a3e"


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    made = FakeWorkshop(tmp_path / "work")
    made.stop = lambda: made.done.append("stop")
    monkeypatch.setattr("etcdkeep.adapters.local_etcd.programs.LocalEtcd", lambda settings: made)
    return made


@pytest.fixture
def sets(opened, database):
    """Two good sets of the cluster."""
    snapshot = opened.folder / "etcd.db"
    snapshot.write_bytes(database)
    for identifier in (OLD, NEW):
        publish_snapshot(opened.folder / "repository", snapshot, identifier)
    return opened


def operator(**fields):
    with DAG(dag_id="drill__harbor", schedule=None):
        return DrillOperator(task_id="drill", cluster="harbor", **fields)


def announce(*identifiers):
    events = [SimpleNamespace(extra={"backup_id": identifier}) for identifier in identifiers]
    return {"triggering_asset_events": {"etcdkeep://harbor/backup": events}}


@pytest.mark.parametrize(
    ("backup", "events", "drilled"),
    [
        pytest.param("", {}, NEW, id="newest"),
        pytest.param(OLD, announce(NEW), OLD, id="asked-for"),
        pytest.param("", announce(OLD), OLD, id="announced"),
        pytest.param("", {"triggering_asset_events": {}}, NEW, id="nothing-announced"),
    ],
)
def test_it_drills_and_records_one_set(sets, workshop, make_context, backup, events, drilled):
    answer = operator(backup=backup).execute(make_context(**events))
    assert json.loads(json.dumps(answer))["backup_id"] == drilled
    assert set(answer) == {"backup_id", "seconds", "etcd_version", "tool", "restore_s"}
    found = {each.backup_id: each for each in sets.repository.sets("harbor")}
    assert [identifier for identifier, each in found.items() if each.drills] == [drilled]
    assert found[drilled].state == "good"
    assert found[drilled].levels[-1] == "drill"


def test_the_set_is_in_use_while_it_is_drilled_and_not_afterwards(sets, workshop, make_context, monkeypatch):
    seen = []

    def look(phase, opened=workshop.open):
        seen.append(sets.repository.get("harbor", NEW).in_use(datetime.now(UTC)))
        return opened(phase)

    monkeypatch.setattr(workshop, "open", look)
    operator().execute(make_context())
    assert seen == ["drill__harbor scheduled__2026-11-23"]
    assert sets.repository.get("harbor", NEW).uses == ()


def test_a_set_that_does_not_restore_is_bad_and_the_task_fails_with_what_is_wrong(sets, workshop, make_context):
    workshop.served = make_database(Put(b"/registry/more", b"x"))
    with pytest.raises(
        VerificationFailed, match=f"backup harbor/{NEW} does not restore, and is marked bad:\n  the restored etcd is at"
    ):
        operator().execute(make_context())
    assert [each.state for each in sets.repository.sets("harbor")] == ["good", "bad"]
    workshop.served = None
    operator(backup=NEW).execute(make_context(try_number=2))
    assert [each.state for each in sets.repository.sets("harbor")] == ["good", "good"]


def test_a_worker_that_cannot_drill_marks_nothing(sets, workshop, make_context):
    workshop.faults = {"restore": DrillImpossible("no etcdutl. The backup is not in doubt.")}
    with pytest.raises(DrillImpossible):
        operator().execute(make_context())
    sets.has_identity = False
    with pytest.raises(SecretUnavailable, match="there is no age identity here"):
        operator().execute(make_context())
    assert [(each.state, each.drills) for each in sets.repository.sets("harbor")] == [("good", ()), ("good", ())]


def test_a_cluster_without_a_good_backup_fails_loudly(opened, workshop, make_context):
    with pytest.raises(NotFound, match="cluster 'harbor' has no good backup"):
        operator().execute(make_context())


def test_only_the_right_kind_of_error_is_retried():
    assert RETRIES.evaluate(DrillImpossible("x"), 1, 3).action.value == "fail"
    assert RETRIES.evaluate(VerificationFailed("x"), 1, 3).action.value == "fail"


def test_nothing_secret_is_logged(sets, workshop, make_context, caplog, capsys):
    caplog.set_level("DEBUG")
    operator().execute(make_context())
    captured = capsys.readouterr()
    text = caplog.text + captured.out + captured.err
    assert "drill begins" in text
    for secret in ("PRIVATE KEY", "AGE-SECRET", "/registry/"):
        assert secret not in text


def test_on_kill_stops_the_drill_and_does_nothing_on_a_fresh_instance(sets, workshop, make_context):
    fresh = operator()
    fresh.on_kill()
    assert workshop.done == []
    fresh.execute(make_context())
    fresh.on_kill()
    assert workshop.done[-1] == "stop"


def test_every_template_field_is_an_argument():
    fields = operator(backup="{{ params.backup }}", repository="{{ params.repository }}")
    given = {name: getattr(fields, name) for name in DrillOperator.template_fields}
    assert given == {"cluster": "harbor", "backup": "{{ params.backup }}", "repository": "{{ params.repository }}"}


def test_events_that_tell_of_no_backup_are_passed_over():
    events = {"x": [SimpleNamespace(extra={}), SimpleNamespace(extra={"backup_id": OLD})]}
    assert announced_backups({"triggering_asset_events": events}) == [OLD]
    assert announced_backups({}) == []
