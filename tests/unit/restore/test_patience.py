"""Waiting for what does not answer: bounded by time, however fast it refuses."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.errors import CommandFailed, NoAnswer, RollbackIncomplete, StepFailed, Unreachable
from etcdkeep.restore.engine import UNREACHABLE_S, Engine
from etcdkeep.restore.steps import OUTAGE
from tests.unit.restore.builders import make_cluster, make_world
from tests.unit.restore.test_engine import Clock, end_state, make_plan, state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.engine import StepEvent


@dataclass
class Away:
    """Nodes of which one refuses connections, at once, in a span of time."""

    inner: Any
    clock: Clock
    node: str = "cp-0"
    since: float = 0.0
    until: float = 0.0
    asked: int = field(default=0)

    def runner(self, place: str) -> Any:
        if place == self.node and self.since <= self.clock.now < self.until:
            self.asked += 1
            raise Unreachable("connection refused")
        return self.inner.runner(place)

    def api(self) -> Any:
        return self.inner.api()

    def artifact(self, name: str) -> Iterator[bytes]:
        return self.inner.artifact(name)  # type: ignore[no-any-return]


def make_engine(plan: Any, world: Away, *, unreachable_s: float = 300, events: list[StepEvent] | None = None) -> Engine:
    record = [] if events is None else events
    clock = world.clock
    return Engine(plan, world, record.append, unreachable_s=unreachable_s, sleep=clock.sleep, clock=lambda: clock.now)


@contextmanager
def staged(nodes: int = 1) -> Iterator[tuple[Any, Away]]:
    plan, clock = make_plan(nodes), Clock()
    world = Away(make_world(nodes), clock)
    make_engine(plan, world).walk(["stage", "restore_etcd"])
    yield plan, world


@pytest.mark.parametrize("away_s", [60, 150, 290])
def test_a_node_that_refuses_connections_while_it_boots_is_waited_for(away_s: float) -> None:
    with staged() as (plan, world):
        world.since, world.until = world.clock.now, world.clock.now + away_s
        make_engine(plan, world).walk()
        assert world.asked > 4, "four tries would have been used up long before"
        end_state(plan, world.inner)


def test_the_wait_is_bounded_and_its_error_says_by_what() -> None:
    with staged() as (plan, world):
        began = world.clock.now
        world.until, world.since = began + 10_000, began
        events: list[StepEvent] = []
        with pytest.raises(NoAnswer, match=r"retried for 120 s \(limits\.unreachable_s\).*connection refused"):
            make_engine(plan, world, unreachable_s=120, events=events).walk(OUTAGE)
        assert 120 <= world.clock.now - began <= 130
        assert [event.state for event in events][-1] == "failed"
        with pytest.raises(RollbackIncomplete):
            make_engine(plan, world, unreachable_s=120).roll_back()
        world.until = 0
        make_engine(plan, world).walk()
        end_state(plan, world.inner)


def test_each_step_has_the_whole_time() -> None:
    with staged(3) as (plan, world):
        struck = {"stop-kubelet.cp-0", "aside-data.cp-0", "start-kubelet.cp-0"}

        def strike(event: StepEvent) -> None:
            if event.step in struck and event.state == "began":
                struck.remove(event.step)
                world.since, world.until = world.clock.now, world.clock.now + 100

        clock = world.clock
        Engine(plan, world, strike, unreachable_s=150, sleep=clock.sleep, clock=lambda: clock.now).walk()
        end_state(plan, world.inner)
        assert not struck


def test_a_way_back_waits_as_long() -> None:
    with staged() as (plan, world):
        start = state(make_world())
        make_engine(plan, world).walk()
        world.since, world.until = world.clock.now, world.clock.now + 250
        make_engine(plan, world).roll_back()
        assert state(world.inner) == start


def test_what_does_not_pass_is_not_waited_for() -> None:
    with staged() as (plan, world):
        clock = world.clock
        began = clock.now

        def refuse() -> None:
            raise CommandFailed("no", exit_code=1)

        with pytest.raises(CommandFailed):
            make_engine(plan, world).patiently("x", refuse)
        assert clock.now == began
        with pytest.raises(NoAnswer):
            make_engine(plan, world, unreachable_s=5).patiently("x", lambda: world_away(world))
        world.inner.machines["cp-0"].run = lambda *args, **more: refuse()
        with pytest.raises(StepFailed):
            make_engine(plan, world).walk(OUTAGE)
        assert clock.now < began + 100


def world_away(world: Away) -> None:
    raise Unreachable("away")


def test_the_limit_is_the_configurations() -> None:
    assert make_cluster().limits.unreachable_s == UNREACHABLE_S
    assert make_cluster(limits={"unreachable_s": 90}).limits.unreachable_s == 90
