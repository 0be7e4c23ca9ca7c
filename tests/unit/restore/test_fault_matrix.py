"""Every step of every kind of plan, and everything that may go wrong at it: it ends restored or as it was before."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.config.access import Ssh
from etcdkeep.errors import EtcdkeepError, NoAnswer, RollbackIncomplete, StepFailed, StreamStalled, TransientError
from etcdkeep.restore.engine import Engine, StepEvent
from etcdkeep.restore.runbook import render_runbook
from tests.unit.restore import test_engine as on_nodes
from tests.unit.restore import test_pod_plan as in_pods
from tests.unit.restore.admin_api import ETCD, AdminApi, PodWorld
from tests.unit.restore.builders import make_world
from tests.unit.restore.machine import Fault, Killed, Machine
from tests.unit.restore.test_engine import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.restore.steps import Plan

SLEEP_FACTOR = 25
"""What waits minutes in vain asks dozens of times then, not thousands."""


@cache
def node_plan(members: int, way: str) -> Plan:
    return on_nodes.make_plan(members, way=way)


@cache
def pod_plan(members: int) -> Plan:
    return in_pods.make_plan(AdminApi(members))


class Nodes:
    """Simulated nodes, and the plan for them."""

    reboot = "reboot"

    def __init__(self, members: int, way: str) -> None:
        self.plan = node_plan(members, way)
        self.world = make_world(members)
        on_nodes.expect_nothing_lost(self.world)

    def struck(self, place: str) -> Machine:
        return self.world.machines[place]

    def state(self) -> dict[str, Any]:
        return on_nodes.state(self.world)

    def files(self) -> dict[str, dict[str, str | None]]:
        """Return place → its files."""
        return {name: machine.files for name, machine in self.world.machines.items()}

    def expect_restored(self) -> None:
        on_nodes.end_state(self.plan, self.world)
        for name, files in self.files().items():
            assert files["/var/lib/.etcdkeep/r1/old/member/snap/db"] == f"live data of {name}@1500"
            assert files["/etc/kubernetes/.etcdkeep/r1/old/pki/ca.crt"] == "live ca"

    def expect_left(self, start: dict[str, Any], place: str) -> None:
        """One node could not be rolled back; the others are as they were."""
        assert {**self.state(), place: None} == {**start, place: None}


class Pods:
    """A simulated admin cluster, and the plan for the user cluster in it."""

    reboot = "drain"

    def __init__(self, members: int) -> None:
        self.api = AdminApi(members, watch=swaps_only_what_is_down)
        self.plan = pod_plan(members)
        self.world = PodWorld(self.api)
        for claim in self.api.claims.values():
            claim.watch = on_nodes.keeps("live data of {}@1500")

    def struck(self, place: str) -> AdminApi:
        del place
        return self.api

    def state(self) -> dict[str, Any]:
        return in_pods.state(self.api)

    def files(self) -> dict[str, dict[str, str | None]]:
        """Return claim → its files."""
        return {name: claim.files for name, claim in self.api.claims.items()}

    def expect_restored(self) -> None:
        in_pods.expect_restored(self.api, self.plan)
        for name, claim in self.api.claims.items():
            live = f"live data of {claim.name}@1500"
            assert claim.files["/var/lib/etcd/.etcdkeep/r1/old/member/snap/db"] == live, name

    def expect_left(self, start: dict[str, Any], place: str) -> None:
        """All go the same way; the workloads and the budget are there, whatever their size."""
        del place
        assert {path for path in start["objects"] if "/pod" not in path} <= self.api.objects.keys()


def swaps_only_what_is_down(api: AdminApi) -> None:
    """Data are away, or another restore's, only while nothing may run on them."""
    for claim in api.claims.values():
        if "/var/lib/etcd/data/member/snap/db" not in claim.files:
            assert api.objects[ETCD]["spec"]["replicas"] == 0


Site = Nodes | Pods
SITES: dict[str, Callable[[], Site]] = {
    "kubelet-1": partial(Nodes, 1, "kubelet"),
    "kubelet-3": partial(Nodes, 3, "kubelet"),
    "manifests-1": partial(Nodes, 1, "manifests"),
    "manifests-3": partial(Nodes, 3, "manifests"),
    "pods-1": partial(Pods, 1),
    "pods-3": partial(Pods, 3),
}
EFFECTS = {"fail": (True,), "timeout": (False,), "kill": (True, False), "cut": (True, False), "reboot": (True, False)}
"""Fault → whether its command had no effect."""


def engine(site: Site, record: Callable[[StepEvent], None] = lambda event: None) -> Engine:
    """Return a new worker's engine."""
    clock = Clock()
    return Engine(site.plan, site.world, record, sleep=lambda s: clock.sleep(SLEEP_FACTOR * s), clock=lambda: clock.now)


def ended_by(walk: Callable[[], None]) -> BaseException | None:
    """Return what ended a walk before its time."""
    try:
        walk()
    except (Killed, EtcdkeepError) as err:
        return err
    return None


@dataclass
class Struck:
    """A site that met a fault at the first command of a step, what ended that walk, and what was told of it."""

    site: Site
    step: str
    place: str = ""
    error: BaseException | None = None
    events: list[StepEvent] = field(default_factory=list)

    def walk(self, fault: str, *, before: bool) -> None:
        def record(event: StepEvent) -> None:
            self.events.append(event)
            if (event.step, event.state) == (self.step, "began") and not self.place:
                self.place = event.place
                target = self.site.struck(event.place)
                target.fault = Fault(target.count + 1, self.site.reboot if fault == "reboot" else fault, before)

        self.error = ended_by(engine(self.site, record).walk)

    def mend(self) -> None:
        """End the fault."""
        self.site.struck(self.place).fault = None

    def twin(self) -> Site:
        """Return the site a second time, as it is."""
        return copy.deepcopy(self.site, {id(self.site.plan): self.site.plan})


def matrix(site: str, fault: str) -> Iterator[Struck]:
    """Yield, for each step with something to do, a site that met the fault there; of three members, at the middle one."""
    make = SITES[site]
    clean: list[StepEvent] = []
    engine(make(), clean.append).walk()
    steps = [event.step for event in clean if event.state == "began"]
    others = ("-0", "-2") if site.endswith("3") else ()
    idle = {event.step for event in clean if event.state in ("already", "unneeded")}
    assert {*steps, *idle} == {step.name for step in make().plan.steps if step.action or step.done}
    for step in (step for step in steps if not step.endswith(others)):
        for before in EFFECTS[fault]:
            struck = Struck(make(), step)
            struck.walk(fault, before=before)
            assert struck.place, step
            yield struck


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("fault", EFFECTS)
def test_a_step_that_was_struck_ends_restored_or_as_it_was(site: str, fault: str) -> None:
    start = SITES[site]().state()
    for struck in matrix(site, fault):
        expect_told(struck, fault)
        expect_taken_back(Struck(struck.twin(), struck.step, struck.place), fault, start)
        struck.mend()
        engine(struck.site).walk()
        struck.site.expect_restored()


def expect_told(struck: Struck, fault: str) -> None:
    """What stays says which step and why; what passes is walked through, by the same worker."""
    told = [event.step for event in struck.events if event.state == "failed"]
    match fault:
        case "fail":
            assert told == [struck.step]
            if struck.step.startswith("gone.cp-"):
                assert isinstance(struck.error, TransientError), "a runtime that cannot be asked may answer later"
            else:
                assert isinstance(struck.error, StepFailed)
                assert struck.error.step == struck.step
        case "timeout":
            assert isinstance(struck.error, NoAnswer)
            assert isinstance(struck.error.__cause__, StreamStalled)
            assert told == [struck.step]
        case "kill":
            assert isinstance(struck.error, Killed)
        case _:
            assert struck.error is None, f"{fault} at {struck.step}: {struck.error}"
            struck.site.expect_restored()


def expect_taken_back(struck: Struck, fault: str, start: dict[str, Any]) -> None:
    """What still fails says what remains; mended, it is as it was before, and free for another restore."""
    trouble = ended_by(engine(struck.site).roll_back)
    if fault in ("fail", "timeout"):
        assert isinstance(trouble, RollbackIncomplete)
        assert trouble.remaining
        if struck.site.plan.independent:
            assert all(line.endswith(f".{struck.place}") for line in trouble.remaining)
        struck.site.expect_left(start, struck.place)
        struck.mend()
        engine(struck.site).roll_back()
    else:
        assert trouble is None, f"{fault} at {struck.step}: {trouble}"
    assert struck.site.state() == start, f"{fault} at {struck.step}"
    taken = [path for files in struck.site.files().values() for path in files if path.endswith("/active")]
    assert taken == []


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
