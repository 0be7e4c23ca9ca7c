"""How a restore ends: what is said, what is kept, and that a repository that is gone undoes nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.config.access import Ssh
from etcdkeep.errors import CommandFailed, RollbackIncomplete, StoreUnavailable, Unreachable
from etcdkeep.restore.ending import hold, restored, roll_back
from etcdkeep.restore.engine import Engine, Standing, StepEvent
from etcdkeep.restore.options import Options
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.report import RestoreReport
from etcdkeep.restore.runbook import rollback_script
from tests.builders import make_records
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest, make_world, planned

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 4, 20, tzinfo=UTC)
PLAN = planned(make_cluster(), make_manifest(), [make_facts()], Options("restore-a", PLANNED_AT))
REPORT = RestoreReport((), ("one node is not ready",), 2000, 500)


@pytest.fixture
def record(tmp_path: Path) -> RestoreRecord:
    made = RestoreRecord(make_records(DirectoryStore(tmp_path)), "prod", "restore-a")
    made.lock()
    return made


def journal(record: RestoreRecord, *events: StepEvent) -> None:
    with record.journal("swap", NOW) as tell:
        for event in events:
            tell(event)


def at(seconds: float) -> float:
    return NOW.timestamp() + seconds


def is_locked(record: RestoreRecord, tmp_path: Path) -> bool:
    return (tmp_path / "prod/restores/locked.json").exists()


def test_a_restored_cluster_is_free_again_and_its_down_time_known(record: RestoreRecord, tmp_path: Path) -> None:
    journal(
        record,
        StepEvent("stop-kubelet.cp-0", "stop", "cp-0", "began", at(-20)),
        StepEvent("etcd-serves.cp-0", "verify", "cp-0", "remedied", at(-15), "the owner was set again"),
        StepEvent("api-serves.cp-0", "verify", "cp-0", "done", at(-12.5)),
    )
    outcome = restored(record, PLAN, REPORT, NOW)
    assert (outcome.kind, outcome.down_s, outcome.revision, outcome.keys) == ("restored", 7.5, 2000, 500)
    assert outcome.notes == ("the owner was set again", "one node is not ready")
    assert "down for 7.5 s" in outcome.words
    assert "cp-0:/var/lib/.etcdkeep/restore-a" in outcome.words
    assert record.outcome() == outcome
    assert not is_locked(record, tmp_path)


class Gone:
    url = "gone"

    def __getattr__(self, name: str) -> Any:
        def refuse(*args: Any, **more: Any) -> Any:
            raise StoreUnavailable("the bucket does not answer")

        return refuse


def test_a_good_restore_stays_good_when_the_repository_is_gone() -> None:
    outcome = restored(RestoreRecord(make_records(Gone()), "prod", "restore-a"), PLAN, REPORT, NOW)  # type: ignore[arg-type]
    assert (outcome.kind, outcome.down_s) == ("restored", None)


def walked(*phases: Any, nodes: int = 1) -> Engine:
    world = make_world(nodes)
    engine = Engine(PLAN, world, by_hand=partial(rollback_script, ssh=Ssh()), sleep=lambda seconds: None)
    engine.walk(phases)
    return engine


def test_what_is_held_says_how_far_it_is_and_what_would_take_it_back(record: RestoreRecord, tmp_path: Path) -> None:
    engine = walked("stage", "restore_etcd", "stop", "swap_pki")
    outcome = hold(record, PLAN, engine, NOW)
    assert "last place-keys.cp-0" in outcome.words
    undone = re.findall(r"^# cp-0: undo: .* \(step (\S+)\)$", "\n".join(outcome.remaining), re.MULTILINE)
    stopped_again = ["start-kubelet.cp-0", "unstarted.cp-0"]
    assert undone == [*stopped_again, "place-keys.cp-0", "aside-keys.cp-0", "stop-kubelet.cp-0", "claim.cp-0"]
    assert is_locked(record, tmp_path)


def test_what_is_held_names_what_nobody_answers_for(record: RestoreRecord) -> None:
    class Silent:
        def standing(self) -> tuple[Standing, ...]:
            return tuple(Standing(step, None) for step in PLAN.steps[:2])

        def remaining(self) -> tuple[str, ...]:
            return ()

    words = hold(record, PLAN, Silent(), NOW).words  # type: ignore[arg-type]
    assert "0 of 2 steps complete" in words
    assert "2 unknown (no response): folder.cp-0, claim.cp-0" in words


def test_what_is_locked_back_is_free_again_and_tells_how_long_it_was_down(
    record: RestoreRecord, tmp_path: Path
) -> None:
    journal(record, StepEvent("stop-kubelet.cp-0", "stop", "cp-0", "began", at(-9)))
    outcome = roll_back(record, PLAN, walked("stage", "restore_etcd", "stop", "swap_etcd"), lambda: NOW)
    assert (outcome.kind, outcome.down_s) == ("rolled-back", 9)
    assert "was rolled back" in outcome.words
    assert not is_locked(record, tmp_path)


@pytest.mark.parametrize(
    ("error", "remaining"),
    [
        (RollbackIncomplete("half", remaining=("do this",)), ("do this",)),
        (Unreachable("the old state does not answer"), ()),
        (CommandFailed("no", exit_code=1), ()),
    ],
)
def test_what_cannot_be_taken_back_stays_taken_and_on_record(
    record: RestoreRecord, tmp_path: Path, error: Exception, remaining: tuple[str, ...]
) -> None:
    class Stuck:
        def roll_back(self) -> None:
            raise error

    with pytest.raises(type(error)):
        roll_back(record, PLAN, Stuck(), lambda: NOW)  # type: ignore[arg-type]
    last = record.outcome()
    assert last is not None
    assert (last.kind, last.remaining) == ("incomplete", remaining)
    assert is_locked(record, tmp_path)
