"""The record of a restore: create-only, bound to a digest, and never the reason why a restore ends half way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.directory import DirectoryStore
from etcdkeep.approval import Answer
from etcdkeep.errors import NotFound, PlanChanged, RestoreRefused, StoreUnavailable
from etcdkeep.restore.engine import Event
from etcdkeep.restore.planning import Options
from etcdkeep.restore.plans import plan_restore
from etcdkeep.restore.record import Outcome, RestoreRecord, down_time_s, restores_with_kubeconfig
from etcdkeep.seal import unseal
from tests.builders import age_pair
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 4, 15, tzinfo=UTC)
PLAN = plan_restore(make_cluster(), make_manifest(), [make_facts()], Options("restore-a", PLANNED_AT))


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


@pytest.fixture
def record(store: DirectoryStore) -> RestoreRecord:
    return RestoreRecord(store, "prod", "restore-a")


def event(step: str, phase: Any, state: Any, at: float) -> Event:
    return Event(step, phase, "cp-0", state, at)


# --- plans and answers ---------------------------------------------------------------------------------------------


def test_a_plan_comes_back_by_its_digest_and_plans_do_not_overwrite_each_other(record: RestoreRecord) -> None:
    other = replace(PLAN, token="another")
    for plan in (PLAN, other, PLAN):
        assert record.keep_plan(plan, "page", NOW) == plan.digest
    assert (record.plan(PLAN.digest), record.plan(other.digest)) == (PLAN, other)


def test_a_stored_plan_that_was_altered_is_refused(record: RestoreRecord, tmp_path: Path) -> None:
    record.keep_plan(PLAN, "page", NOW)
    (path,) = tmp_path.glob("prod/restores/restore-a/plan-*.json")
    path.write_text(path.read_text().replace("/var/lib/etcd", "/var/lib/evil"))
    with pytest.raises(PlanChanged):
        record.plan(PLAN.digest)


def test_every_answer_stays(record: RestoreRecord) -> None:
    answers = [
        Answer(gate="approve", choice=choice, user_id=user, user_name=user, at=NOW + timedelta(hours=hour), digest="d")
        for hour, (user, choice) in enumerate([("alice", "Reject"), ("bob", "Approve")])
    ]
    for answer in answers:
        record.keep_answer(answer)
    assert [Answer.model_validate_json(each) for each in record.answers()] == answers


# --- who has the cluster -------------------------------------------------------------------------------------------


def test_one_restore_has_the_cluster_until_it_gives_it_free(record: RestoreRecord, store: DirectoryStore) -> None:
    other = RestoreRecord(store, "prod", "restore-b")
    record.take()
    record.take()
    assert (record.taken_by(), other.taken_by()) == (None, "restore-a")
    with pytest.raises(RestoreRefused, match="'restore-a' has the cluster"):
        other.take()
    other.give_free()
    assert other.taken_by() == "restore-a", "only who has it gives it free"
    record.give_free()
    other.take()
    assert record.taken_by() == "restore-b"


def test_clusters_do_not_wait_for_each_other(record: RestoreRecord, store: DirectoryStore) -> None:
    record.take()
    RestoreRecord(store, "other", "restore-b").take()


def test_a_person_may_take_the_cluster_from_a_restore_that_was_ended_by_hand(
    record: RestoreRecord, store: DirectoryStore
) -> None:
    record.take()
    RestoreRecord(store, "prod", "restore-b").take(override=True)
    assert record.taken_by() == "restore-b"


def test_one_plan_is_begun(record: RestoreRecord) -> None:
    assert record.begun() is None
    record.begin(PLAN.digest)
    record.begin(PLAN.digest)
    with pytest.raises(RestoreRefused, match="begun with another plan"):
        record.begin("e" * 64)
    begun = record.begun()
    assert begun is not None
    assert begun.digest == PLAN.digest


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

    with RestoreRecord(Gone(), "prod", "restore-a").journal("swap", NOW) as tell:  # type: ignore[arg-type]
        tell(event("stop-kubelet", "stop", "began", 10))


def test_the_last_outcome_counts(record: RestoreRecord) -> None:
    assert record.outcome() is None
    for minute, kind in enumerate(("incomplete", "rolled-back")):
        record.conclude(Outcome(kind=kind, at=NOW + timedelta(minutes=minute), words=kind))  # type: ignore[arg-type]
    last = record.outcome()
    assert last is not None
    assert last.kind == "rolled-back"


def test_a_held_restore_rests_until_something_is_walked_again(record: RestoreRecord) -> None:
    assert not record.rests()
    with record.journal("swap", NOW) as tell:
        tell(event("stop-kubelet", "stop", "began", NOW.timestamp()))
    record.conclude(Outcome(kind="held", at=NOW + timedelta(seconds=1), words="held"))
    assert record.rests()
    with record.journal("swap", NOW + timedelta(seconds=2)) as tell:
        tell(event("stop-kubelet", "stop", "began", NOW.timestamp() + 2))
    assert not record.rests()


STOPPED = event("stop-kubelet", "stop", "began", 100)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([], None, id="nothing-done"),
        pytest.param([STOPPED], None, id="not-up-again"),
        pytest.param([event("api-serves", "verify", "done", 90)], None, id="nothing-stopped"),
        pytest.param([event("api-serves", "verify", "done", 107.5), STOPPED], 7.5, id="usual"),
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
            [STOPPED, event("api-serves", "verify", "done", 107), event("close.cp-0", "verify", "done", 200)],
            7,
            id="closed-later",
        ),
    ],
)
def test_down_time_is_from_the_first_stop_to_the_last_answer(events: list[Event], expected: float | None) -> None:
    assert down_time_s(events) == expected


# --- the kubeconfig ------------------------------------------------------------------------------------------------


def test_the_kubeconfig_is_sealed_once(record: RestoreRecord, store: DirectoryStore, tmp_path: Path) -> None:
    from etcdkeep.age_keys import parse_identities

    with pytest.raises(NotFound), record.open_kubeconfig():
        pass
    assert restores_with_kubeconfig(store, "prod") == []
    names = {record.keep_kubeconfig(text, [age_pair()[1]]) for text in (b"canary one", b"canary two")}
    assert restores_with_kubeconfig(store, "prod") == ["restore-a"]
    (name,) = names
    assert b"canary" not in (tmp_path / name).read_bytes()
    with record.open_kubeconfig() as sealed, (tmp_path / "plain").open("wb") as plain:
        unseal(sealed, plain, parse_identities(age_pair()[0]), size_limit=100)
    assert (tmp_path / "plain").read_bytes() == b"canary one"
