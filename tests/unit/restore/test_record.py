"""The record of a restore: create-only, bound to a digest, and never the reason why a restore ends half way."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.approval.answers import AirflowRun
from etcdkeep.errors import NotApproved, NotFound, RecordRefused, RequestRefused, StoreUnavailable
from etcdkeep.restore.engine import StepEvent
from etcdkeep.restore.form import Form
from etcdkeep.restore.options import Options
from etcdkeep.restore.outage import down_time_s
from etcdkeep.restore.proposal import make_proposal, plan_anew, proposed_plan
from etcdkeep.restore.record import Outcome, RestoreRecord, restores_with_kubeconfig
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import seal, unseal
from etcdkeep.sets.backup_set import BackupSet
from tests.builders import age_pair, make_records
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest, planned

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 4, 15, tzinfo=UTC)
OPTIONS = Options("restore-a", PLANNED_AT)
FACTS = (make_facts(),)
PLAN = planned(make_cluster(), make_manifest(), FACTS, OPTIONS)
RUN = AirflowRun(airflow="http://127.0.0.1:8080", dag_id="restore", run_id="manual__1")
FORM = Form(cluster="prod", reason="it is broken", confirm="prod")
FOUND = BackupSet("prod", make_manifest().backup_id, make_manifest(), make_manifest().to_bytes(), b"")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


@pytest.fixture
def record(store: DirectoryStore) -> RestoreRecord:
    return RestoreRecord(make_records(store), "prod", "restore-a")


def event(step: str, phase: Any, state: Any, at: float) -> StepEvent:
    return StepEvent(step, phase, "cp-0", state, at)


# --- what is proposed ----------------------------------------------------------------------------------------------


def propose(record: RestoreRecord, **overrides: Any) -> Any:
    return record.propose(
        make_proposal(RUN, PLAN, "page", FORM, FACTS, OPTIONS, FOUND, "carol").model_copy(update=overrides)
    )


def test_what_was_proposed_last_counts_and_each_stays(record: RestoreRecord) -> None:
    first, second = propose(record), propose(record, requested_by="dave")
    assert record.proposal().digest == second.digest
    assert record.proposal_of(first.digest).body.requested_by == "carol"
    assert proposed_plan(record.proposal()) == PLAN


def test_the_plan_is_made_anew_from_what_was_proposed(record: RestoreRecord) -> None:
    assert plan_anew(propose(record), make_cluster()) == PLAN


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"options": "{}"}, id="no-options"),
        pytest.param({"facts": "[]"}, id="no-nodes"),
    ],
)
def test_a_proposal_that_gives_another_plan_is_refused(record: RestoreRecord, change: dict[str, Any]) -> None:
    with pytest.raises(NotApproved, match="makes another plan"):
        plan_anew(propose(record, **change), make_cluster())


def test_a_plan_that_is_not_the_one_that_its_digest_names_is_refused(record: RestoreRecord) -> None:
    with pytest.raises(NotApproved):
        plan_anew(propose(record, plan_sha256="e" * 64), make_cluster())


def test_a_version_that_says_the_same_in_other_words_goes_on(
    record: RestoreRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that is updated in an outage must not stop a way back."""
    proposal = propose(record)
    monkeypatch.setattr("etcdkeep.restore.plan.nodes.plan_words", lambda *args: ("in other words",))
    assert plan_anew(proposal, make_cluster()).words == ("in other words",)


def test_another_configuration_gives_another_plan(record: RestoreRecord) -> None:
    cluster = make_cluster(control_plane={"crictl": ["/opt/bin/crictl"]})
    with pytest.raises(NotApproved, match="with this configuration makes another plan"):
        plan_anew(propose(record), cluster)


def test_a_proposal_that_somebody_altered_or_planted_counts_as_nothing(record: RestoreRecord, tmp_path: Path) -> None:
    propose(record)
    (path,) = tmp_path.glob("prod/restores/restore-a/proposals/*.json")
    path.write_text(path.read_text().replace("carol", "mallory"))
    with pytest.raises(RequestRefused, match="no signed plan"):
        record.proposal()


# --- who has the cluster -------------------------------------------------------------------------------------------


def test_one_restore_has_the_cluster_until_it_gives_it_free(record: RestoreRecord, store: DirectoryStore) -> None:
    other = RestoreRecord(make_records(store), "prod", "restore-b")
    record.lock()
    record.lock()
    assert (record.locked_by(), other.locked_by()) == (None, "restore-a")
    with pytest.raises(RequestRefused, match="locked by restore 'restore-a'"):
        other.lock()
    other.release()
    assert other.locked_by() == "restore-a", "only who has it gives it free"
    record.release()
    other.lock()
    assert record.locked_by() == "restore-b"


def test_clusters_do_not_wait_for_each_other(record: RestoreRecord, store: DirectoryStore) -> None:
    record.lock()
    RestoreRecord(make_records(store), "other", "restore-b").lock()


def test_a_person_may_take_the_cluster_from_a_restore_that_was_ended_by_hand(
    record: RestoreRecord, store: DirectoryStore
) -> None:
    record.lock()
    RestoreRecord(make_records(store), "prod", "restore-b").lock(override=True)
    assert record.locked_by() == "restore-b"


def test_one_plan_is_begun(record: RestoreRecord) -> None:
    assert record.begun() is None
    first, second = propose(record), propose(record, requested_by="dave")
    record.begin(first)
    record.begin(first)
    with pytest.raises(RequestRefused, match="begun with another plan"):
        record.begin(second)
    begun = record.begun()
    assert begun is not None
    assert begun.body.proposal == first.digest


def test_a_journal_without_a_begin_is_not_taken_for_nothing_begun(record: RestoreRecord, tmp_path: Path) -> None:
    record.begin(propose(record))
    with record.journal("stage", NOW) as tell:
        tell(event("claim", "stage", "began", 10))
    (tmp_path / "prod/restores/restore-a/begun.json").unlink()
    with pytest.raises(RequestRefused, match="the journal records changes"):
        record.begun()


def test_a_forged_lock_is_removed(record: RestoreRecord, tmp_path: Path) -> None:
    record.lock()
    (tmp_path / "prod/restores/locked.json").write_text('{"restore": "restore-z"}')
    assert record.locked_by() is None
    record.lock()
    assert "restore-a" in (tmp_path / "prod/restores/locked.json").read_text()


# --- what was done -------------------------------------------------------------------------------------------------


def test_the_first_event_is_stored_before_it_happens_and_the_rest_at_the_end(record: RestoreRecord) -> None:
    first, second = event("stop-kubelet", "stop", "began", 10), event("stop-kubelet", "stop", "done", 11)

    def walk() -> None:
        with record.journal("swap", NOW) as tell:
            tell(first)
            assert record.events() == [first]
            tell(second)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        walk()
    assert record.events() == [first, second]


def test_a_repository_that_is_gone_does_not_end_a_walk(store: DirectoryStore) -> None:
    class Gone:
        url = "gone"

        def create(self, name: str, **more: Any) -> Any:
            raise StoreUnavailable(name)

    with RestoreRecord(make_records(Gone()), "prod", "restore-a").journal("swap", NOW) as tell:  # type: ignore[arg-type]
        tell(event("stop-kubelet", "stop", "began", 10))


def test_the_last_outcome_counts(record: RestoreRecord) -> None:
    assert record.outcome() is None
    for minute, kind in enumerate(("incomplete", "rolled-back")):
        record.conclude(Outcome(kind=kind, at=NOW + timedelta(minutes=minute), words=kind))  # type: ignore[arg-type]
    last = record.outcome()
    assert last is not None
    assert last.kind == "rolled-back"


def test_a_held_restore_rests_until_something_is_walked_again(record: RestoreRecord) -> None:
    assert not record.is_held()
    with record.journal("swap", NOW) as tell:
        tell(event("stop-kubelet", "stop", "began", NOW.timestamp()))
    record.conclude(Outcome(kind="held", at=NOW + timedelta(seconds=1), words="held"))
    assert record.is_held()
    with record.journal("swap", NOW + timedelta(seconds=2)) as tell:
        tell(event("stop-kubelet", "stop", "began", NOW.timestamp() + 2))
    assert not record.is_held()


STOPPED = event("stop-kubelet", "stop", "began", 100)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([], None, id="nothing-done"),
        pytest.param([STOPPED], None, id="not-up-again"),
        pytest.param([event("api-serves", "verify", "done", 90)], None, id="nothing-stopped"),
        pytest.param([STOPPED, event("api-serves", "verify", "done", 107.5)], 7.5, id="usual"),
        pytest.param([event("api-serves", "verify", "done", 107.5), STOPPED], 7.5, id="in-any-order"),
        pytest.param(
            [STOPPED, event("stop-kubelet", "stop", "began", 103), event("api-serves", "verify", "done", 110)],
            10,
            id="stopped-twice",
        ),
        pytest.param(
            [STOPPED, event("api-serves", "verify", "done", 107), event("api-serves", "verify", "done", 300)],
            7,
            id="verified-twice",
        ),
        pytest.param(
            [
                STOPPED,
                event("api-serves", "verify", "done", 107),
                event("stop-kubelet", "stop", "began", 200),
                event("api-serves", "verify", "done", 203),
            ],
            3,
            id="a-later-outage-has-its-own-stop",
        ),
        pytest.param(
            [STOPPED, event("api-serves", "verify", "done", 107), event("close.cp-0", "close", "done", 200)],
            7,
            id="closed-later",
        ),
    ],
)
def test_down_time_is_from_the_stop_to_the_last_answer(events: list[StepEvent], expected: float | None) -> None:
    assert down_time_s(events) == expected


# --- the kubeconfig ------------------------------------------------------------------------------------------------


def test_the_kubeconfig_is_sealed_once(record: RestoreRecord, store: DirectoryStore) -> None:
    with pytest.raises(NotFound):
        record.sealed_kubeconfig()
    records = make_records(store)
    assert restores_with_kubeconfig(records, "prod") == []
    for _ in range(2):
        name = record.keep_kubeconfig(b"the kubeconfig", [age_pair()[1]])
    assert restores_with_kubeconfig(records, "prod") == ["restore-a"]
    with store.open(name) as stored:
        assert record.sealed_kubeconfig() == stored.read()
    plain = io.BytesIO()
    unseal(io.BytesIO(record.sealed_kubeconfig()), plain, parse_identities(age_pair()[0]), size_limit=100)
    assert plain.getvalue() == b"the kubeconfig"


def test_a_planted_kubeconfig_is_refused(record: RestoreRecord, store: DirectoryStore) -> None:
    name = record.keep_kubeconfig(b"the kubeconfig", [age_pair()[1]])
    store.delete(name)
    with store.create(name) as sink:
        seal([b"exec: rm"], sink, [age_pair()[1]])
    with pytest.raises(RecordRefused, match="is not the kubeconfig that restore 'restore-a' kept"):
        record.sealed_kubeconfig()
