"""
What a restore leaves on a node or claim for whoever comes next, compared with the plan before anything runs there.

A node's files are input like any other: a folder that holds the note of another plan, or says that this restore is over
although its record does not, stops the walk.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.errors import CommandFailed, CommandMissing, NotFound, RequestRefused, TransientError
from etcdkeep.ports import StreamLimits
from etcdkeep.restore.actions import holds
from etcdkeep.restore.found.nodes import FINISHED, ROLLED_BACK
from etcdkeep.restore.steps import Write, without_words

if TYPE_CHECKING:
    from collections.abc import Collection

    from etcdkeep.ports import CommandRunner
    from etcdkeep.restore.actions import World
    from etcdkeep.restore.steps import Phase, Place, Plan

NOTE = "restore.txt"
ASK_S = 60.0


def mark_line(plan: Plan) -> str:
    """Return the line by which a note names its plan: a digest of all that it does, but for the notes themselves."""
    steps = tuple(replace(step, action=None, done=None) if _is_note(step.action) else step for step in plan.steps)
    marked = without_words(replace(plan, steps=steps))
    return f"plan {hashlib.sha256(marked.to_json().encode()).hexdigest()}"


def _is_note(action: object) -> bool:
    return isinstance(action, Write) and posixpath.basename(action.path) == NOTE


def check_memory(world: World, plan: Plan, phases: Collection[Phase]) -> None:
    """
    Compare what every place holds of this restore with the plan.

    :param phases: Those that are to be walked; none for the way back, which a place that does not answer never stops:
        the others have to get back, and what remains there is told at its end.
    :raises RequestRefused: when a place holds the files of another plan, or says that this restore is over.
    :raises TransientError: when a place does not answer on the way forward.
    """
    passed_over = () if phases else (TransientError,)
    if not set(phases) & {"verify", "close"} and _is_closed(world, plan, passed_over):
        raise RequestRefused(
            f"restore {plan.run} of cluster {plan.cluster!r} has ended well: every node and claim says so, whatever the record holds. "
            "Nothing was done. Where the record lacks the end, clear the task `verify`. To go back, start a new restore."
        )
    expected = mark_line(plan)
    for place in plan.places:
        if place.folder and place.kind in {"node", "pod"}:
            with suppress(*passed_over):
                _check_place(world, place, expected, phases)


def _is_closed(world: World, plan: Plan, passed_over: tuple[type[Exception], ...]) -> bool:
    """
    Whether the restore was closed everywhere that answers.

    Records can be deleted by whoever writes the repository; this cannot.
    """
    answers = []
    for step in plan.phase("close"):
        if step.done is not None:
            with suppress(*passed_over):
                answers.append(holds(world, step.place, step.done))
    return bool(answers) and all(answers)


def _check_place(world: World, place: Place, expected: str, phases: Collection[Phase]) -> None:
    try:
        runner = world.runner(place.name)
        note = _ask(runner, place, "cat", posixpath.join(place.folder, NOTE))
        names = _ask(runner, place, "ls", "-A", place.folder).split()
    except NotFound:  # a utility pod that is not made yet
        return
    named = [line for line in note.splitlines() if re.fullmatch("plan [0-9a-f]{64}", line)]
    if named and named != [expected]:  # a note that was cut off in the writing names none
        raise RequestRefused(
            f"{place.kind} {place.name}: {place.folder} holds the files of another plan than the approved one. Nothing was done there. "
            f"Find out who changed {NOTE} in it."
        )
    over = [ROLLED_BACK] if phases else []
    if place.kind == "node" and set(phases) - {"verify", "close"}:  # a claim is released while the pods are still down
        over.append(FINISHED)
    found = next((name for name in over if name in names), None)
    if found:
        raise RequestRefused(
            f"{place.kind} {place.name}: this restore has ended there ({place.folder}/{found}). Nothing was done. Start a new restore."
        )


def _ask(runner: CommandRunner, place: Place, *argv: str) -> str:
    """Return what a command printed; nothing where it failed, as it does for what is not there yet."""
    prefix = SUDO if place.kind == "node" else ()
    try:
        return runner.run((*prefix, *argv), StreamLimits(ASK_S)).stdout.decode(errors="replace")
    except (CommandFailed, CommandMissing):
        return ""
