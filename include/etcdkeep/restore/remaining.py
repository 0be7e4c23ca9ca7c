"""What is not rolled back yet, and the script that does it by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from etcdkeep.errors import EtcdkeepError
from etcdkeep.restore.actions import holds
from etcdkeep.restore.steps import Plan, Step

if TYPE_CHECKING:
    from etcdkeep.restore.actions import World

log = logging.getLogger(__name__)

ByHand = Callable[[Plan, Sequence[Step]], tuple[str, ...]]


class Remaining:
    """
    Asks the places of a plan what is left to undo; changes nothing.

    :param by_hand: Renders the ways back of some steps, line by line; their names alone where none is given.
    """

    def __init__(self, plan: Plan, world: World, by_hand: ByHand | None = None) -> None:
        self._plan = plan
        self._world = world
        self._by_hand = by_hand or _names
        self._steps = {step.name: step for step in plan.steps}

    def script(self, wanted: Callable[[Step], bool] = lambda step: True) -> tuple[str, ...]:
        """
        Render what is to be undone, and what has to be undone before it, line by line.

        What stops a control plane for the way back may be undone at this moment, and a node may boot before a person
        gets to it: each line of the script asks again.

        :param wanted: Of the steps to be undone, those that are meant.
        """
        names = {step.name for step in self._to_undo() if wanted(step)}
        waiting = list(names)
        while waiting:
            required = set(self._steps[waiting.pop()].undo_requires) - names
            names |= required
            waiting += required
        steps = [step for step in reversed(self._plan.steps) if step.name in names]
        return self._by_hand(self._plan, steps) if steps else ()

    def _to_undo(self) -> Iterator[Step]:
        """
        Yield what the way back would act on: what a place that does not answer might still need, included.

        So is all that is before it at its place: undoing a step can bring back what looks undone now, as a claim that
        was closed. The script asks at each line.
        """
        undone = {step.name: self._seen_undone(step) for step in self._plan.steps}
        places = set[str]()
        for step in reversed(self._plan.steps):
            unneeded = step.undo_needed_until and all(undone[name] for name in step.undo_needed_until)
            if (step.reversible and step.place in places) or (not undone[step.name] and not unneeded):
                places.add(step.place)
                yield step

    def _seen_undone(self, step: Step) -> bool:
        try:
            return not step.reversible or (step.undone is not None and holds(self._world, step.place, step.undone))
        except EtcdkeepError:
            log.debug("%s: unknown whether it is undone", step.name)
            return False


def _names(plan: Plan, steps: Sequence[Step]) -> tuple[str, ...]:
    del plan
    return tuple(step.name for step in steps)
