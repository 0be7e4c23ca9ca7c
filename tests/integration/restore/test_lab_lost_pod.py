"""Utility pods that are lost on the way: made again, and their claims released in the end, by the walk, the rollback or a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from etcdkeep.cli import cli
from etcdkeep.restore.engine import Engine, StepEvent
from etcdkeep.restore.probe.pods import gather_pods
from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, LabRestore

if TYPE_CHECKING:
    from etcdkeep.restore.steps import Plan
    from tests.integration.conftest import StartRun


def lose(restore: LabRestore, plan: Plan) -> None:
    """Take the utility pods away, as ``kubectl delete pod --force`` does."""
    for place in plan.places:
        if place.made_by:
            namespace, pod, _ = place.address.split("/")
            restore.site.api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod}?gracePeriodSeconds=0")


def holders(restore: LabRestore) -> dict[str, tuple[str, ...]]:
    assert restore.found.manifest is not None
    return gather_pods(restore.site.api, restore.site.cluster, restore.found.manifest).holders


@pytest.mark.parametrize("phase", ["stage", "restore_etcd", "swap_etcd"])
def test_a_pod_lost_at_every_step_is_made_again_by_the_same_walk(start_run: StartRun, phase: str) -> None:
    restore = LabRestore(start_run("skiff", discovered=False))
    plan = restore.plan()
    lost: list[str] = []
    made: list[str] = []

    def record(event: StepEvent) -> None:
        if event.step.startswith("utility.") and event.state == "done":
            made.append(event.step)
        if event.state == "began" and event.phase == phase and event.step not in lost:
            lost.append(event.step)
            lose(restore, plan)

    with restore.world(plan) as world:
        Engine(plan, world, record).walk()
    restore.expect(AS_BACKED_UP)
    assert len(lost) > 1
    assert len(made) > 2, "the first time, and after each loss that was met"
    assert holders(restore) == {}


def test_a_rollback_releases_the_claim_of_a_lost_pod_and_the_next_restore_works(start_run: StartRun) -> None:
    restore = LabRestore(start_run("skiff", discovered=False))
    plan = restore.plan()
    with restore.engine(plan) as engine:
        engine.walk(("stage", "restore_etcd"))
        lose(restore, plan)
        engine.roll_back()
        assert engine.remaining() == ()
    restore.expect(SPOILED)
    assert holders(restore) == {}
    with restore.engine(restore.plan()) as engine:
        engine.walk()
    restore.expect(AS_BACKED_UP)


def test_a_claim_that_nobody_released_is_named_with_the_command_that_does(start_run: StartRun) -> None:
    restore = LabRestore(start_run("skiff", discovered=False))
    plan = restore.plan()
    with restore.engine(plan) as engine:
        engine.walk(("stage",))
    lose(restore, plan)
    words = f"python -m etcdkeep restore-leftovers skiff --release {plan.run}"
    assert [each for each in restore.prepare().findings if words in each.sentence and not each.overridable]

    told = command("--remove", plan.run, "--yes")
    assert told[0] == 1
    assert f"--release {plan.run}" in told[1]
    assert command("--release", plan.run, "--yes")[0] == 0
    assert holders(restore) == {}
    assert command("--release", plan.run, "--yes")[0] == 1
    assert command("--remove", plan.run, "--yes")[0] == 0
    with restore.engine(restore.plan()) as engine:
        engine.walk()
    restore.expect(AS_BACKED_UP)


def command(*options: str) -> tuple[int, str]:
    ended = CliRunner().invoke(cli, ["restore-leftovers", "skiff", *options])
    return ended.exit_code, f"{ended.output}{ended.exception}"
