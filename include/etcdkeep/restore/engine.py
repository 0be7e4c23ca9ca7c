"""
Walking a plan: forward phase by phase, and backward to the state before.

The engine keeps no memory. What is done is read from the nodes by each step's own check, so a walk may be killed at
any point and begun again, also by another worker, and also after a node has rebooted in between. Whatever a check
cannot answer stops the walk: an unknown state never leads to a change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Literal, TypeVar

from etcdkeep.errors import (
    CommandFailed,
    EtcdkeepError,
    NoAnswer,
    NotFound,
    RollbackIncomplete,
    StepFailed,
    TransientError,
)
from etcdkeep.restore.actions import KILLED, World, act, all_hold, holds
from etcdkeep.restore.remaining import ByHand, Remaining
from etcdkeep.restore.steps import PHASES, Action, AnyCheck, Phase, Plan, Remedy, Step

log = logging.getLogger(__name__)

POLL_S = 0.2
REPEAT_S = 2.0
"""How often an action is repeated while its end state does not come."""
RETRY_DELAY_S = 2.0
UNREACHABLE_S = 300.0
"""How long trouble that passes is waited out at one step: long enough for a node to reboot."""

T = TypeVar("T")
State = Literal["began", "done", "already", "unneeded", "undoing", "undone", "failed", "remedied"]


@dataclass(frozen=True)
class StepEvent:
    """One transition, for the record of the restore; `at` is seconds since the epoch."""

    step: str
    phase: Phase
    place: str
    state: State
    at: float
    words: str = ""


RecordStep = Callable[[StepEvent], None]


@dataclass(frozen=True)
class _Turn:
    """
    A step in one direction.

    :param reached: What tells that its end state is there.
    :param requires: Turns whose end state has to be there when this one acts.
    """

    step: Step
    action: Action | None
    reached: AnyCheck | None
    requires: tuple[_Turn, ...]
    begins: State
    ends: State


@dataclass(frozen=True)
class Standing:
    """Where one step stands: True done, False not, None not known (the place does not answer)."""

    step: Step
    done: bool | None


class Engine:
    """
    Walks one plan.

    :param record: Told of each transition before the walk goes on, one at a time, from several threads.
    :param by_hand: Renders the ways back of some steps as a script for people
        (:func:`etcdkeep.restore.runbook.rollback_script`), line by line; their names alone where none is given.
    :param unreachable_s: How long one step is retried while its place does not answer.
    """

    def __init__(
        self,
        plan: Plan,
        world: World,
        record: RecordStep = lambda event: None,
        *,
        by_hand: ByHand | None = None,
        unreachable_s: float = UNREACHABLE_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._plan = plan
        self._world = world
        self._record = record
        self._remaining = Remaining(plan, world, by_hand)
        self._unreachable_s = unreachable_s
        self._sleep = sleep
        self._clock = clock
        self._now = now
        self._telling = Lock()
        self._steps = {step.name: step for step in plan.steps}
        self._makers = {place.name: self._steps[place.made_by] for place in plan.places if place.made_by}

    def walk(self, phases: Collection[Phase] = PHASES) -> None:
        """
        Bring the steps of these phases to their end state: phase by phase, in the plan's order at each place.

        :raises StepFailed: when one does not get there; what was done before stays done.
        :raises NoAnswer: when a place did not answer for long; walking again goes on from there.
        """
        with self._lanes() as lanes:
            for phase in PHASES:
                steps = self._plan.phase(phase) if phase in phases else ()
                for failure in self._in_lanes(lanes, steps, self._forward).values():
                    raise failure

    def roll_back(self) -> None:
        """
        Take everything back, last step first, and wait until the old state works again.

        Where places are independent, trouble in one does not keep the others from being rolled back.

        :raises RollbackIncomplete: when something could not be undone; it names what, and gives the script.
        """
        failures: dict[str, EtcdkeepError] = {}
        with self._lanes() as lanes:
            for phase in reversed(PHASES):
                steps = [
                    step
                    for step in reversed(self._plan.phase(phase))
                    if step.reversible and self._lane(step) not in failures
                ]
                failures |= self._in_lanes(lanes, steps, self._backward)
        if failures:
            raise self._incomplete(failures)
        for step in self._plan.after_rollback:
            self._guarded(step, self._forward)

    def standing(self) -> tuple[Standing, ...]:
        """Ask where every step stands; changes nothing."""

        def ask(step: Step) -> bool | None:
            try:
                return step.done is not None and holds(self._world, step.place, step.done)
            except EtcdkeepError:
                return None

        return tuple(Standing(step, ask(step)) for step in self._plan.steps)

    def remaining(self) -> tuple[str, ...]:
        """Return the script that rolls back all that is not rolled back yet, line by line; changes nothing."""
        return self._remaining.script()

    def _lanes(self) -> Executor:
        return ThreadPoolExecutor(max_workers=max(1, len(self._plan.places)))

    def _in_lanes(
        self, pool: Executor, steps: Sequence[Step], advance: Callable[[Step], None]
    ) -> dict[str, EtcdkeepError]:
        """
        Advance steps in order, places beside each other where they are independent: down time counts.

        :return: Lane → the error that ended it.
        """
        lanes: dict[str, list[Step]] = {}
        for step in steps:
            lanes.setdefault(self._lane(step), []).append(step)

        def go(lane: list[Step]) -> EtcdkeepError | None:
            try:
                for step in lane:
                    self._guarded(step, advance)
            except EtcdkeepError as err:
                return err
            return None

        advanced = pool.map(go, lanes.values()) if len(lanes) > 1 else map(go, lanes.values())
        ended = zip(lanes, advanced, strict=True)
        return {lane: failure for lane, failure in ended if failure is not None}

    def _lane(self, step: Step) -> str:
        return step.place if self._plan.independent else ""

    # --- one step ------------------------------------------------------------------------------------------------

    def _guarded(self, step: Step, advance: Callable[[Step], None]) -> None:
        """
        Advance a step, trying again after passing trouble: every try asks anew what is done.

        Time bounds that, not a number of tries: a node that refuses connections while it boots uses tries up in seconds.
        """
        try:
            self.patiently(
                f"step {step.name} ({step.words})", lambda: advance(step), lambda err: self._passes(step, err)
            )
        except EtcdkeepError as err:
            self._tell(step, "failed", str(err.__cause__ if isinstance(err, NoAnswer) else err))
            if isinstance(err, StepFailed | NoAnswer):
                raise
            raise StepFailed(f"step {step.name} ({step.words}): {err}", step=step.name) from err

    def patiently(
        self,
        name: str,
        do: Callable[[], T],
        passes: Callable[[EtcdkeepError], bool] = lambda err: isinstance(err, TransientError),
    ) -> T:
        """
        Do something, and again after trouble that may pass, for as long as the limits say.

        :param name: Of what is done, for messages.
        :raises NoAnswer: when the trouble did not pass.
        """
        until, told = None, ""
        while True:
            try:
                return do()
            except EtcdkeepError as err:
                if not passes(err):
                    raise
                if str(err) != told:
                    told = str(err)
                    log.warning("%s: retried until it passes: %s", name, told)
                until = self._clock() + self._unreachable_s if until is None else until
                if self._clock() >= until:
                    raise NoAnswer(
                        f"{name}: retried for {self._unreachable_s:g} s (limits.unreachable_s). Last error: {err}"
                    ) from err
            self._sleep(RETRY_DELAY_S)

    def _passes(self, step: Step, error: EtcdkeepError) -> bool:
        """Say whether trouble may pass: with a place that answers again, or is made again."""
        if isinstance(error, TransientError):
            return True
        if isinstance(error, StepFailed) or step.place not in self._makers:
            return False
        if isinstance(error, CommandFailed) and error.exit_code in KILLED:
            return True
        maker = self._makers[step.place]
        try:
            return maker.done is not None and not holds(self._world, maker.place, maker.done)
        except TransientError:
            return True
        except EtcdkeepError:
            return False

    def _forward(self, step: Step) -> None:
        if step.action is None and step.done is None:
            return
        if step.needed_until and all(self._is_done(self._steps[name]) for name in step.needed_until):
            self._tell(step, "unneeded")
        elif step.action is not None and not step.always and self._is_done(step):
            self._tell(step, "already")
        else:
            self._take(self._forth(step))

    def _backward(self, step: Step) -> None:
        if step.undo_needed_until and all(self._is_undone(self._steps[name]) for name in step.undo_needed_until):
            return
        if not self._is_undone(step):
            self._take(self._back(step))

    def _forth(self, step: Step) -> _Turn:
        requires = tuple(self._forth(self._steps[name]) for name in step.requires)
        return _Turn(step, step.action, step.done, requires, "began", "done")

    def _back(self, step: Step) -> _Turn:
        requires = tuple(self._back(self._steps[name]) for name in step.undo_requires)
        return _Turn(step, step.undo, step.undone, requires, "undoing", "undone")

    def _take(self, turn: _Turn) -> None:
        self._stand(turn)
        self._tell(turn.step, turn.begins)
        self._act(turn)
        self._settle(turn)
        self._tell(turn.step, turn.ends)

    def _stand(self, turn: _Turn) -> None:
        if self._all_stand(turn.requires):
            return
        for required in turn.requires:
            if not self._is(required.step.place, required.reached):
                self._take(required)

    def _all_stand(self, requires: Sequence[_Turn]) -> bool:
        """Ask for all at once, where that is one place which is there."""
        places, checks = {each.step.place for each in requires}, [each.reached for each in requires if each.reached]
        if len(requires) < 2 or len(checks) < len(requires) or len(places) > 1 or places & self._makers.keys():
            return False
        return all_hold(self._world, places.pop(), checks)

    def _act(self, turn: _Turn) -> None:
        if turn.action is not None:
            self._make(turn.step.place)
            act(self._world, turn.step.place, turn.action)

    def _settle(self, turn: _Turn) -> None:
        """
        Wait until the end state is there.

        A place that does not answer meanwhile is one that is not there yet. What the action brought about may be lost
        again, to a reboot that starts the kubelet: so while it does not come, it is done again.
        """
        if turn.reached is None:
            return
        step, remedy, now = turn.step, turn.step.remedy, self._clock()
        until, again = now + step.wait_s, now + REPEAT_S
        while True:
            now = self._clock()
            last = now >= until
            try:
                if self._is(step.place, turn.reached):
                    return
                if remedy is not None and self._is(step.place, remedy.seen):
                    self._apply(step, remedy)
                    remedy = None
                if now >= again and not last:
                    self._stand(turn)
                    self._act(turn)
                    again = self._clock() + REPEAT_S
            except (TransientError, NotFound):
                if last:
                    raise
            if last:
                raise StepFailed(
                    f"step {step.name} ({step.words}) did not complete within {step.wait_s:g} s. Check that failed: {_shown(turn.reached)}",
                    step=step.name,
                )
            self._sleep(POLL_S)

    def _apply(self, step: Step, remedy: Remedy) -> None:
        log.warning("%s: %s", step.name, remedy.words)
        act(self._world, step.place, remedy.action)
        self._tell(step, "remedied", remedy.words)

    # --- questions -----------------------------------------------------------------------------------------------

    def _is(self, place: str, check: AnyCheck | None) -> bool:
        if check is None:
            return False
        self._make(place)
        return holds(self._world, place, check)

    def _make(self, place: str) -> None:
        """Have a place that may be gone, such as a utility pod whose node was drained."""
        maker = self._makers.get(place)
        if maker is not None and not self._is(maker.place, maker.done):
            self._take(self._forth(maker))

    def _is_done(self, step: Step) -> bool:
        return self._is(step.place, step.done)

    def _is_undone(self, step: Step) -> bool:
        return not step.reversible or self._is(step.place, step.undone)

    def _tell(self, step: Step, state: State, words: str = "") -> None:
        log.info("%s: %s %s", step.place, step.name, state)
        with self._telling:
            self._record(StepEvent(step.name, step.phase, step.place, state, self._now(), words))

    def _incomplete(self, failures: dict[str, EtcdkeepError]) -> RollbackIncomplete:
        remaining = self._remaining.script(lambda step: self._lane(step) in failures)
        reasons = "; ".join(str(failure) for failure in failures.values())
        folders = ", ".join(f"{place.name}:{place.folder}" for place in self._plan.places if place.folder)
        return RollbackIncomplete(
            f"restore {self._plan.run!r} of cluster {self._plan.cluster!r} could not be rolled back completely: {reasons}. Nothing was "
            f"deleted: all that was set aside is in {folders}. Repair the cause, then clear `rollback`, or run this script by hand:",
            remaining=remaining,
        )


def _shown(check: AnyCheck) -> str:
    return " ".join(check.argv) if check.kind == "check" else f"GET {check.path} {check.field}"
