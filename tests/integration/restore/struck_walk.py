"""
Walks of a restore on the lab's real parts, in which each step meets a fault at its first command.

The faults are the lab's own: sudo and pods that refuse, streams that stall or break, a node that reboots; and a worker, a
process of its own, that ends itself by SIGKILL.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

from etcdkeep.adapters.kube import client as kube
from etcdkeep.adapters.kube import config as kube_config
from etcdkeep.adapters.ssh import node
from etcdkeep.config.loading import load_cluster
from etcdkeep.errors import EtcdkeepError
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.engine import Engine, StepEvent
from etcdkeep.restore.steps import OUTAGE, ApiCheck, Call, parse_plan
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.restore_world import open_world
from etcdkeep.site.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from etcdkeep.ports import CommandResult, CommandRunner, KubeApi
    from etcdkeep.restore.steps import Plan, Step
    from etcdkeep.site.restore_world import RestoreWorld
    from tests.integration.restore.lab_restore import LabRestore

    Task = Callable[[Engine], None]

FaultKind = Literal["fails", "times-out", "killed", "cut", "reboots"]
HURRY_S = 0.3
"""Of a command whose answer is known not to come."""
PAUSE_S = 0.2
PATIENCE_S = 120
BEGINS = ("began", "undoing")

TASKS = tuple(
    partial(Engine.walk, phases=phases) for phases in (("stage",), ("restore_etcd",), OUTAGE, ("verify", "close"))
)
"""What Airflow's tasks walk, each in processes of their own."""

IMPORTED = (kube, kube_config, node)
"""What a worker needs, imported once in the server that they are forked from."""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.integration.restore.struck_walk"])


@dataclass
class StruckWalk:
    """
    A plan walked forth or back until the end, while each of its steps is struck once.

    :param elsewhere: Places that meet another fault.
    :param wanted: The steps to be struck.
    :param errors: What ended the walks before the last one.
    """

    restore: LabRestore
    plan: Plan
    fault: FaultKind
    wanted: set[str] = field(default_factory=set)
    elsewhere: Mapping[str, FaultKind] = field(default_factory=dict)
    struck: list[str] = field(default_factory=list)
    errors: list[EtcdkeepError] = field(default_factory=list)

    def forth(self) -> None:
        """Walk task by task, each tried again and again, by a new worker, until it succeeds."""
        self._go(*TASKS)

    def back(self) -> None:
        """Roll back, again and again, until all is as it was."""
        self._go(Engine.roll_back)

    def up_to(self, step: str) -> None:
        """Walk until that step is struck, and no further."""
        self.struck, self.errors, self.wanted = [], [], {step}
        assert not all(self._try(task) for task in TASKS)
        assert self.struck == [step]

    def _go(self, *tasks: Task) -> None:
        self.struck, self.errors = [], []
        for task in tasks:
            while not self._try(task):
                assert len(self.struck) <= len(self.plan.steps)

    def _try(self, task: Task) -> bool:
        return self._in_a_process(task) if self.fault == "killed" else self._here(task)

    def _here(self, task: Task) -> bool:
        with self.restore.world(self.plan) as world, ExitStack() as faults:
            hasty = HastyWorld(world)
            arming = Lock()
            steps = {step.name: step for step in (*self.plan.steps, *self.plan.after_rollback)}

            def record(event: StepEvent) -> None:
                self.restore.events.append(event)
                if event.state not in BEGINS or event.step in self.struck or event.step not in self.wanted:
                    return
                step = steps[event.step]
                with arming:
                    self.struck.append(event.step)
                    kind = self.elsewhere.get(step.place, self.fault)
                    for fault in self._faults(kind, step, event.state):
                        faults.enter_context(fault)
                if kind == "times-out":
                    hasty.hurried.add(step.place)
                if kind == "reboots":
                    self._reboot(step)

            try:
                task(make_engine(self.plan, hasty, record))
            except EtcdkeepError as err:
                self.errors.append(err)
                return False
            return True

    def _faults(self, kind: FaultKind, step: Step, begins: str) -> Iterator[AbstractContextManager[Any]]:
        """Yield the faults for what a step does next; those that stay, stay until this walk has ended."""
        lab = self.restore.run.site.faults
        place = self.plan.place(step.place)
        action, check = (step.action, step.done) if begins == "began" else (step.undo, step.undone)
        if kind == "reboots":
            return
        times = None if kind == "fails" else 1
        if place.kind == "node":
            action_name = {"fails": "sudo", "times-out": "stall", "cut": "cut"}[kind]
            yield lab.ssh(action_name, where=f"^{place.name}$", times=times)
        elif place.kind == "pod" and kind == "fails":
            yield lab.api(403, match=f"/pods/{place.address.split('/')[1]}/exec")
        elif place.kind == "pod":
            yield lab.exec_stream({"times-out": "stall", "cut": "cut"}[kind], where=place.address, times=times)
        else:
            code = {"fails": 403, "times-out": 504, "cut": 0}[kind]
            for path in paths(action, check):
                yield lab.api(code, match=f" {path}($|\\?)", times=times)

    def _reboot(self, step: Step) -> None:
        nodes = {node.name: node for node in self.restore.cluster.nodes}
        nodes.get(step.place, self.restore.cluster.node).reboot()

    def _in_a_process(self, task: Task) -> bool:
        receiver, sender = FORKS.Pipe(duplex=False)
        wanted = self.wanted - {*self.struck}
        arguments = (dict(os.environ), self.plan.to_json(), task, wanted, sender)
        worker = FORKS.Process(target=_worker, args=arguments, daemon=True)
        worker.start()
        sender.close()
        try:
            told = receiver.recv()
        except EOFError:
            told = "it ended without a word"
        worker.join(PATIENCE_S)
        if told is None:
            assert worker.exitcode == 0
            return True
        assert worker.exitcode == -signal.SIGKILL, told
        self.struck.append(told)
        return False


def paths(action: Any, check: Any) -> Iterator[str]:
    """Yield the paths in the API that a step's action and check are about."""
    if isinstance(action, Call):
        yield action.path
    if isinstance(check, ApiCheck) and not (isinstance(action, Call) and action.path == check.path):
        yield check.path


def make_engine(plan: Plan, world: Any, record: Callable[[StepEvent], None]) -> Engine:
    """Return an engine that waits less than it would in earnest between its tries."""
    return Engine(plan, world, record, sleep=lambda s: time.sleep(min(s, PAUSE_S)))


class HastyWorld:
    """
    A world in which the next command at a place may be given little time.

    :param hurried: Places of which that is so.
    """

    def __init__(self, world: RestoreWorld) -> None:
        self._world = world
        self.hurried: set[str] = set()

    def runner(self, place: str) -> CommandRunner:
        return _HastyRunner(self, place, self._world.runner(place))

    def api(self) -> KubeApi:
        return self._world.api()

    def artifact(self, name: str) -> Iterator[bytes]:
        return self._world.artifact(name)


@dataclass
class _HastyRunner:
    world: HastyWorld
    place: str
    runner: CommandRunner

    @property
    def where(self) -> str:
        return self.runner.where

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        if self.place in self.world.hurried:
            self.world.hurried.discard(self.place)
            limits = StreamLimits(HURRY_S)
        return self.runner.run(argv, limits, stdin=stdin)

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        return self.runner.stream(argv, limits)


def _worker(environment: dict[str, str], plan_json: str, task: Task, wanted: set[str], sender: Any) -> None:
    """Walk, and die at the first step that begins of those that are wanted; tell which."""
    os.environ.update(environment)
    plan = parse_plan(plan_json)
    site = Site(load_cluster(plan.cluster), FileCredentials())
    found = site.repository.get(plan.cluster, plan.backup_id)
    site = site.with_keys_of(found)

    def record(event: StepEvent) -> None:
        if event.state in BEGINS and event.step in wanted:
            sender.send(event.step)
            os.kill(os.getpid(), signal.SIGKILL)

    with open_world(site, plan, found) as world:
        task(make_engine(plan, world, record))
    sender.send(None)
