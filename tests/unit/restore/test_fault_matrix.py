"""Every step of every kind of plan, and everything that may go wrong at it: it ends restored or as it was before."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.config import Ssh
from etcdkeep.errors import EtcdkeepError, RollbackIncomplete
from etcdkeep.restore.engine import Engine, Event
from etcdkeep.restore.runbook import render_runbook
from tests.unit.restore import test_engine as on_nodes
from tests.unit.restore import test_pod_plan as in_pods
from tests.unit.restore.admin_api import AdminApi, PodWorld
from tests.unit.restore.builders import make_world
from tests.unit.restore.machine import Fault, Killed, Machine
from tests.unit.restore.test_engine import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.restore.actions import World
    from etcdkeep.restore.steps import Plan


@dataclass
class Site:
    """A plan and the simulated world that it is for."""

    plan: Plan
    world: World
    struck: Callable[[str], Machine | AdminApi]
    state: Callable[[], Any]
    expect_restored: Callable[[], None]
    reboot: str
    begun: bool = False

    def engine(self, record: Callable[[Event], None] = lambda event: None) -> Engine:
        """Return a new worker's engine."""
        clock = Clock()
        return Engine(self.plan, self.world, record, sleep=clock.sleep, clock=lambda: clock.now)

    def walk_struck(self, step: str, fault: str, *, before: bool) -> list[Event]:
        """Walk with a fault at the first command of that step; return what was told."""
        events: list[Event] = []

        def record(event: Event) -> None:
            events.append(event)
            if (event.step, event.state) == (step, "began") and not self.begun:
                self.begun = True
                target = self.struck(event.place)
                target.fault = Fault(target.count + 1, self.reboot if fault == "reboot" else fault, before)

        with suppress(Killed, EtcdkeepError):
            self.engine(record).walk()
        return events

    def mend(self) -> None:
        """End every fault."""
        for place in self.plan.places:
            self.struck(place.name).fault = None


def nodes(members: int, way: str) -> Site:
    plan, world = on_nodes.make_plan(members, way=way), make_world(members)
    on_nodes.expect_nothing_lost(world)
    return Site(
        plan,
        world,
        world.machines.__getitem__,
        lambda: on_nodes.state(world),
        lambda: on_nodes.end_state(plan, world),
        "reboot",
    )


def pods(members: int) -> Site:
    api = AdminApi(members)
    plan = in_pods.make_plan(api)
    for claim in api.claims.values():
        claim.watch = on_nodes.keeps("live data of {}@1500")
    return Site(
        plan,
        PodWorld(api),
        lambda place: api,
        lambda: in_pods.state(api),
        lambda: in_pods.expect_restored(api, plan),
        "drain",
    )


SITES: dict[str, Callable[[], Site]] = {
    "kubelet-1": lambda: nodes(1, "kubelet"),
    "kubelet-3": lambda: nodes(3, "kubelet"),
    "manifests-1": lambda: nodes(1, "manifests"),
    "manifests-3": lambda: nodes(3, "manifests"),
    "pods-1": lambda: pods(1),
    "pods-3": lambda: pods(3),
}
EFFECTS = {"fail": (True,), "timeout": (False,), "kill": (True, False), "cut": (True, False), "reboot": (True, False)}
"""Fault → whether its command had no effect."""


def error_of(walk: Callable[[], None]) -> EtcdkeepError | None:
    """Return what a walk says went wrong."""
    try:
        walk()
    except EtcdkeepError as err:
        return err
    return None


def matrix(site: str, fault: str) -> Iterator[tuple[Site, str, list[Event]]]:
    """Yield, for each step with something to do, a site that met the fault there; of three members, at the middle one."""
    make = SITES[site]
    clean: list[Event] = []
    make().engine(clean.append).walk()
    steps = [event.step for event in clean if event.state == "began"]
    others = ("-0", "-2") if site.endswith("3") else ()
    idle = {event.step for event in clean if event.state in ("already", "unneeded")}
    assert {*steps, *idle} == {step.name for step in make().plan.steps if step.action or step.done}
    for step in (step for step in steps if not step.endswith(others)):
        for before in EFFECTS[fault]:
            struck = make()
            events = struck.walk_struck(step, fault, before=before)
            assert struck.begun, step
            yield struck, step, events


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("fault", EFFECTS)
def test_a_step_that_was_struck_goes_on_to_the_end(site: str, fault: str) -> None:
    for struck, step, events in matrix(site, fault):
        if fault in ("fail", "timeout"):
            told = {event.step for event in events if event.state == "failed"}
            assert step in told, f"{fault} at {step} was not told"
        struck.mend()
        struck.engine().walk()
        struck.expect_restored()


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("fault", EFFECTS)
def test_a_step_that_was_struck_is_taken_back(site: str, fault: str) -> None:
    start = SITES[site]().state()
    for struck, step, _ in matrix(site, fault):
        trouble = error_of(struck.engine().roll_back)
        if trouble is not None:
            assert fault in ("fail", "timeout"), f"{fault} at {step}: {trouble}"
            assert not isinstance(trouble, RollbackIncomplete) or trouble.remaining, "what remains was not told"
            struck.mend()
            struck.engine().roll_back()
        assert struck.state() == start, f"{fault} at {step}"


@pytest.mark.parametrize("site", SITES)
def test_no_plan_and_no_runbook_has_a_dangerous_command_of_the_vendors_page(site: str) -> None:
    plan = SITES[site]().plan
    live = r"/(var/lib/etcd|etc/kubernetes)\b"
    for page in (plan.to_json(), render_runbook(plan, Ssh())):
        for dangerous in (
            r"\brm -\w",
            r"\ba\+r",
            rf"\brm [^\n]*{live}",
            r"/tmp/(etcd|kube-apiserver)\.yaml",
            r"cp -r backup",
            r"default\.etcd",
            r"skip-hash-check",
        ):
            assert not re.search(dangerous, page), dangerous
