"""The engine on simulated nodes: any plan, any fault at any command, forward and back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.errors import EtcdkeepError, RollbackIncomplete, StepFailed
from etcdkeep.restore.engine import Engine, StepEvent
from etcdkeep.restore.found.nodes import PathFacts
from etcdkeep.restore.options import Options
from tests.unit.restore.builders import (
    PLANNED_AT,
    FakeWorld,
    make_cluster,
    make_facts,
    make_manifest,
    make_world,
    node_names,
    planned,
)
from tests.unit.restore.machine import Fault, Killed, Machine

if TYPE_CHECKING:
    from etcdkeep.restore.steps import Plan

CLUSTER = make_cluster()


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def make_engine(plan: Plan, world: FakeWorld, events: list[StepEvent] | None = None) -> Engine:
    clock = Clock()
    return Engine(
        plan,
        world,
        (events if events is not None else []).append,
        sleep=clock.sleep,
        clock=lambda: clock.now,
        now=lambda: clock.now,
    )


def make_plan(nodes: int = 1, *, wiped: bool = False, mounted: bool = False, **options: Any) -> Plan:
    facts = [make_facts(name, index) for index, name in enumerate(node_names(nodes))]
    if wiped:
        facts = [replace(each, member=PathFacts(each.member.path)) for each in facts]
    if mounted:
        facts = [replace(each, mount_points=(each.data.path,)) for each in facts]
    return planned(CLUSTER, make_manifest(nodes), facts, Options("r1", PLANNED_AT, **options))


def visible(machine: Machine) -> dict[str, Any]:
    """What somebody who knows nothing of restores sees of a node."""
    files = {path: content for path, content in machine.files.items() if "/.etcdkeep" not in path}
    return {"files": files, "kubelet": machine.kubelet, "running": set(machine.running)}


def state(world: FakeWorld) -> dict[str, Any]:
    return {name: visible(machine) for name, machine in world.machines.items()}


def end_state(plan: Plan, world: FakeWorld) -> None:
    for name, machine in world.machines.items():
        if "etcd" in plan.what:
            assert machine.files["/var/lib/etcd/member/snap/db"] == f"restored data@{plan.expected_revision}"
        if "pki" in plan.what:
            assert machine.files["/etc/kubernetes/pki/ca.crt"] == "ca of the backup"
            assert machine.files["/etc/kubernetes/pki/sa.key"] == f"key of {name}"
            assert machine.files["/etc/kubernetes/pki/only-live.crt"] == "kept"
        assert machine.kubelet
        assert {"etcd", "kube-apiserver"} <= machine.running


def keeps(*contents: str) -> Any:
    def watch(machine: Machine) -> None:
        for content in contents:
            assert content.format(machine.name) in machine.files.values(), f"{content} is lost"

    return watch


def expect_nothing_lost(world: FakeWorld) -> None:
    for machine in world.machines.values():
        machine.watch = keeps("live data of {}@1500", "live ca", "manifest of etcd")


PLANS = st.fixed_dictionaries(
    {
        "nodes": st.sampled_from([1, 3]),
        "way": st.sampled_from(["kubelet", "manifests"]),
        "what": st.sampled_from([("etcd", "pki"), ("etcd",), ("pki",)]),
        "mounted": st.booleans(),
        "bump_revision": st.booleans(),
    }
)
COMMANDS = st.integers(1, 160)


@given(PLANS)
@settings(deadline=None, max_examples=15)
def test_a_walk_reaches_the_end_and_the_way_back_the_start(choice: dict[str, Any]) -> None:
    plan, world = make_plan(**choice), make_world(choice["nodes"])
    expect_nothing_lost(world)
    before = state(world)
    engine = make_engine(plan, world)
    engine.walk()
    end_state(plan, world)
    engine.roll_back()
    assert state(world) == before
    engine.walk()
    end_state(plan, world)


@given(PLANS, st.integers(0, 150))
@settings(deadline=None, max_examples=50)
def test_any_prefix_taken_back_gives_the_start(choice: dict[str, Any], length: int) -> None:
    plan, world = make_plan(**choice), make_world(choice["nodes"])
    expect_nothing_lost(world)
    before = state(world)
    prefix = {step.name for step in plan.steps[:length]}
    partly = replace(
        plan,
        steps=tuple(
            replace(step, needed_until=tuple(name for name in step.needed_until if name in prefix))
            for step in plan.steps[:length]
        ),
    )
    make_engine(partly, world).walk()
    make_engine(plan, world).roll_back()
    assert state(world) == before


@given(PLANS, st.sampled_from(["kill", "reboot", "cut"]), COMMANDS, st.booleans(), st.integers(0, 2))
@settings(deadline=None, max_examples=75)
def test_a_broken_walk_goes_on_to_the_end(choice: dict[str, Any], kind: str, at: int, before: bool, where: int) -> None:
    plan, world = make_plan(**choice), make_world(choice["nodes"])
    expect_nothing_lost(world)
    struck = list(world.machines.values())[where % choice["nodes"]]
    struck.fault = Fault(at, kind, before)
    with suppress(Killed, EtcdkeepError):
        make_engine(plan, world).walk()
    struck.fault = None
    make_engine(plan, world).walk()
    end_state(plan, world)


@given(PLANS, st.sampled_from(["kill", "reboot", "cut", "fail"]), COMMANDS, st.booleans(), st.integers(0, 2))
@settings(deadline=None, max_examples=75)
def test_a_broken_walk_can_be_taken_back(choice: dict[str, Any], kind: str, at: int, before: bool, where: int) -> None:
    plan, world = make_plan(**choice), make_world(choice["nodes"])
    expect_nothing_lost(world)
    start = state(world)
    struck = list(world.machines.values())[where % choice["nodes"]]
    struck.fault = Fault(at, kind, before)
    with suppress(Killed, EtcdkeepError):
        make_engine(plan, world).walk()
    struck.fault = None
    make_engine(plan, world).roll_back()
    assert state(world) == start


@given(PLANS, st.sampled_from(["kill", "reboot", "cut"]), COMMANDS, st.booleans(), st.integers(0, 2))
@settings(deadline=None, max_examples=75)
def test_a_broken_way_back_goes_on_to_the_start(
    choice: dict[str, Any], kind: str, at: int, before: bool, where: int
) -> None:
    plan, world = make_plan(**choice), make_world(choice["nodes"])
    expect_nothing_lost(world)
    start = state(world)
    make_engine(plan, world).walk()
    struck = list(world.machines.values())[where % choice["nodes"]]
    struck.fault = Fault(struck.count + at, kind, before)
    with suppress(Killed, EtcdkeepError):
        make_engine(plan, world).roll_back()
    struck.fault = None
    make_engine(plan, world).roll_back()
    assert state(world) == start


@given(st.sampled_from(["kubelet", "manifests"]), st.sampled_from(["kill", "reboot"]), COMMANDS, st.booleans())
@settings(deadline=None, max_examples=50)
def test_a_wiped_node_is_brought_back_whatever_etcd_makes_of_its_empty_folder(
    way: str, kind: str, at: int, before: bool
) -> None:
    plan, world = make_plan(wiped=True, way=way), make_world(wiped=True)
    world.machines["cp-0"].fault = Fault(at, kind, before)
    with suppress(Killed, EtcdkeepError):
        make_engine(plan, world).walk()
    world.machines["cp-0"].fault = None
    make_engine(plan, world).walk()
    end_state(plan, world)


@given(
    PLANS,
    st.lists(st.tuples(st.sampled_from(["kill", "reboot", "cut"]), st.integers(1, 60), st.booleans()), max_size=5),
)
@settings(deadline=None, max_examples=50)
def test_however_often_it_is_broken_it_ends_restored_or_taken_back(
    choice: dict[str, Any], faults: list[tuple[str, int, bool]]
) -> None:
    plan, world = make_plan(**choice), make_world(choice["nodes"])
    expect_nothing_lost(world)
    start = state(world)
    struck = world.machines["cp-0"]
    for walk in (Engine.walk, Engine.roll_back, Engine.walk):
        for kind, after, before in faults:
            struck.fault = Fault(struck.count + after, kind, before)
            with suppress(Killed, EtcdkeepError):
                walk(make_engine(plan, world))
        struck.fault = None
        walk(make_engine(plan, world))
        if walk is Engine.roll_back:
            assert state(world) == start
        else:
            end_state(plan, world)


def test_a_node_without_any_data_folder_gets_one() -> None:
    facts = replace(make_facts(), data=PathFacts("/var/lib/etcd"), member=PathFacts("/var/lib/etcd/member"))
    plan, world = planned(CLUSTER, make_manifest(), [facts], Options("r1", PLANNED_AT)), make_world(wiped=True)
    machine = world.machines["cp-0"]
    for path in [path for path in machine.files if path.startswith("/var/lib/etcd")]:
        del machine.files[path]
    make_engine(plan, world).walk()
    make_engine(plan, world).walk()
    end_state(plan, world)


def test_trouble_with_permissions_is_mended_while_waiting() -> None:
    plan, world = make_plan(), make_world()
    world.machines["cp-0"].denied = True
    events: list[StepEvent] = []
    make_engine(plan, world, events).walk()
    assert [event.step for event in events if event.state == "remedied"] == ["etcd-serves.cp-0"]
    end_state(plan, world)


@pytest.mark.parametrize("way", ["kubelet", "manifests"])
def test_what_would_take_it_back_stops_no_control_plane_that_was_not_touched(way: Any) -> None:
    plan, world = make_plan(way=way), make_world()
    make_engine(plan, world).walk(("stage", "restore_etcd"))
    assert make_engine(plan, world).remaining() == ("claim.cp-0",)
    make_engine(plan, world).walk()
    make_engine(plan, world).roll_back()
    assert make_engine(plan, world).remaining() == ()


def test_a_rollback_that_fails_says_what_remains() -> None:
    plan, world = make_plan(3), make_world(3)
    before = state(world)
    make_engine(plan, world).walk()
    world.machines["cp-1"].fault = Fault(world.machines["cp-1"].count + 12, "fail", before=True)
    with pytest.raises(RollbackIncomplete, match="could not be rolled back completely") as caught:
        make_engine(plan, world).roll_back()
    assert caught.value.remaining
    assert all(line.endswith(".cp-1") for line in caught.value.remaining)
    assert state(world)["cp-0"] == before["cp-0"]
    world.machines["cp-1"].fault = None
    make_engine(plan, world).roll_back()
    assert state(world) == before


def test_two_restores_cannot_work_on_one_node() -> None:
    world = make_world()
    make_engine(make_plan(), world).walk(["stage"])
    other = planned(CLUSTER, make_manifest(), [make_facts()], Options("r2", PLANNED_AT))
    before = state(world)
    with pytest.raises(StepFailed, match=r"locked by .*/r1"):
        make_engine(other, world).walk()
    make_engine(other, world).roll_back()
    assert state(world) == before
    make_engine(make_plan(), world).walk()


def test_phases_are_walked_by_tasks_of_their_own() -> None:
    plan, world = make_plan(3), make_world(3)
    for phase in ("stage", "restore_etcd", "stop", "swap_pki", "swap_etcd", "start", "verify", "close"):
        make_engine(plan, world).walk([phase])
    end_state(plan, world)


def test_a_step_whose_end_state_does_not_come_fails_with_its_name() -> None:
    plan, world = make_plan(), make_world()
    world.machines["cp-0"].live = lambda: None  # type: ignore[method-assign]
    events: list[StepEvent] = []
    with pytest.raises(StepFailed) as caught:
        make_engine(plan, world, events).walk()
    assert caught.value.step == "etcd-serves.cp-0"
    assert events[-1].state == "failed"


@pytest.mark.parametrize("way", ["kubelet", "manifests"])
@pytest.mark.parametrize("before", [True, False], ids=["without-effect", "with-effect"])
def test_a_node_that_reboots_at_any_command_costs_seconds_and_no_second_walk(way: str, before: bool) -> None:
    plan = make_plan(way=way)
    whole = make_world()
    make_engine(plan, whole).walk()
    for at in range(1, whole.machines["cp-0"].count):
        world, clock = make_world(), Clock()
        world.machines["cp-0"].fault = Fault(at, "reboot", before)
        Engine(plan, world, sleep=clock.sleep, clock=lambda clock=clock: clock.now).walk()  # type: ignore[misc]
        end_state(plan, world)
        assert clock.now < 10, f"command {at}"


def test_a_reboot_on_the_way_back_costs_seconds_and_no_second_one() -> None:
    plan, world = make_plan(), make_world()
    start = state(world)
    make_engine(plan, world).walk()
    walked = world.machines["cp-0"].count
    make_engine(plan, world).roll_back()
    for at in range(walked + 1, world.machines["cp-0"].count):
        world, clock = make_world(), Clock()
        make_engine(plan, world).walk()
        world.machines["cp-0"].fault = Fault(at, "reboot", before=False)
        Engine(plan, world, sleep=clock.sleep, clock=lambda clock=clock: clock.now).roll_back()  # type: ignore[misc]
        assert state(world) == start
        assert clock.now < 10, f"command {at}"


def test_a_finished_walk_walked_again_changes_nothing() -> None:
    plan, world = make_plan(3), make_world(3)
    make_engine(plan, world).walk()
    events: list[StepEvent] = []
    make_engine(plan, world, events).walk()
    acted = {event.step.partition(".")[0] for event in events if event.state not in ("already", "unneeded")}
    assert acted == {"etcd-serves", "api-serves"}
