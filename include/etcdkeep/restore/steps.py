"""
A restore as data: steps with a place, an action, a check that tells whether it is done, and an undo.

Nothing here runs anything. The same plan is walked by :mod:`etcdkeep.restore.engine`, shown to the approvers and
printed by :mod:`etcdkeep.restore.runbook`; its digest tells whether it is still the one that was approved.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from etcdkeep.errors import NotApproved, ObjectDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable

Phase = Literal["stage", "restore_etcd", "stop", "swap_pki", "swap_etcd", "start", "verify", "close"]
PHASES: tuple[Phase, ...] = ("stage", "restore_etcd", "stop", "swap_pki", "swap_etcd", "start", "verify", "close")
OUTAGE: tuple[Phase, ...] = ("stop", "swap_pki", "swap_etcd", "start")
"""While these are walked the control plane is down; the two before touch nothing live."""


def in_order(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return steps phase by phase; within a phase they keep their order."""
    return tuple(sorted(steps, key=lambda step: PHASES.index(step.phase)))


API = "api"
"""The place of steps that are calls of the Kubernetes API."""


# --- actions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Run a program; `limit_s` is for the program alone."""

    argv: tuple[str, ...]
    limit_s: float = 60.0
    kind: Literal["run"] = "run"


@dataclass(frozen=True)
class Put:
    """
    Bring an artifact's plaintext to a path.

    :param artifact: Name of the file as ``unseal`` writes it.
    :param prefix: What makes a command root there: sudo on a node, nothing in a pod.
    """

    artifact: str
    path: str
    size_bytes: int
    sha256: str
    prefix: tuple[str, ...] = ()
    kind: Literal["put"] = "put"


@dataclass(frozen=True)
class Write:
    """Write a small text file."""

    text: str
    path: str
    prefix: tuple[str, ...] = ()
    kind: Literal["write"] = "write"


@dataclass(frozen=True)
class Move:
    """
    Rename, on one file system. Nothing is ever overwritten: what stands at `target` is first renamed to `displaced`.

    :param displaced: A name under which several can be kept (``.~1~``, ``.~2~`` are added); the target's own where that
        is one already.
    """

    source: str
    target: str
    displaced: str
    prefix: tuple[str, ...] = ()
    kind: Literal["move"] = "move"


@dataclass(frozen=True)
class Call:
    """
    Write through the Kubernetes API.

    :param path: Of the collection for `create`, of the object otherwise.
    :param body: The object, or a JSON merge patch.
    """

    verb: Literal["create", "patch", "delete"]
    path: str
    body: dict[str, Any] | None = None
    kind: Literal["call"] = "call"


Action = Annotated[Run | Put | Write | Move | Call, Field(discriminator="kind")]


# --- checks ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """
    A question to a node or pod; it changes nothing.

    :param expects: ``success`` or ``failure`` of the command; ``nothing`` on its output; ``match``: a line of its
        output in which the regular expression `pattern` is found (POSIX extended and Python's both), or ``mismatch``:
        no such line, and be it because the command failed.
    :param limit_s: For the command.
    """

    argv: tuple[str, ...]
    expects: Literal["success", "failure", "nothing", "match", "mismatch"] = "success"
    pattern: str = ""
    limit_s: float = 60.0
    kind: Literal["check"] = "check"


@dataclass(frozen=True)
class ApiCheck:
    """
    A question to the Kubernetes API.

    :param field: Dotted path in the object; a field that is not there counts as 0. Empty: whether the object is there,
        as `value` says.
    :param expects: Whether the field is to be `value`, or anything else.
    """

    path: str
    field: str = ""
    value: str | int | bool = True
    expects: Literal["equal", "other"] = "equal"
    kind: Literal["api"] = "api"


AnyCheck = Annotated[Check | ApiCheck, Field(discriminator="kind")]


# --- steps and plan --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Remedy:
    """Something done once while a step waits, when `seen` turns true: known trouble and its repair."""

    words: str
    seen: Check
    action: Run


@dataclass(frozen=True)
class Step:
    """
    One step.

    A step without action only waits for `done`; without `done` it does nothing on the way forward. Likewise `undo`
    and `undone` on the way back. Checks are answered from the world alone, so a killed walk needs no memory.

    :param name: Unique in the plan.
    :param wait_s: How long the check may take to turn true after the action.
    :param needed_until: Skipped once all of those steps are done: what it makes (prepared files, a stopped control
        plane) is used up by then.
    :param requires: Steps whose done state is made sure of again right before this one acts: a node may have rebooted
        since.
    :param undo_needed_until: Like `needed_until`, on the way back.
    :param undo_requires: Like `requires`, on the way back, in the order in which they are undone.
    :param always: Act even if `done` is true already: the action is harmless to repeat, and the check may deceive.
    """

    name: str
    phase: Phase
    place: str
    words: str
    action: Action | None = None
    done: AnyCheck | None = None
    undo: Action | None = None
    undone: AnyCheck | None = None
    wait_s: float = 0.0
    needed_until: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    undo_needed_until: tuple[str, ...] = ()
    undo_requires: tuple[str, ...] = ()
    always: bool = False
    remedy: Remedy | None = None

    @property
    def reversible(self) -> bool:
        """Whether the way back has anything to do or to wait for."""
        return self.undo is not None or self.undone is not None


@dataclass(frozen=True)
class Place:
    """
    Where steps act.

    :param address: ``host`` or ``host:port`` of a node; ``namespace/pod/container`` of a pod.
    :param folder: What this run keeps there: its copies, and everything that it set aside.
    :param made_by: The step that makes the place, a utility pod; it is made again should it be gone when needed.
    """

    name: str
    kind: Literal["node", "pod", "api"]
    address: str = ""
    folder: str = ""
    made_by: str = ""


@dataclass(frozen=True)
class Plan:
    """
    A whole restore.

    :param run: Names the restore; its folders on the nodes carry it.
    :param words: The plan for people, one sentence each.
    :param expected_revision: etcd's revision right after the restore.
    :param token: The new logical cluster's token, the same on all members.
    :param independent: Whether a failed undo in one place leaves the undo of the other places sensible.
    :param after_rollback: Waits that show that the old state works again.
    """

    run: str
    cluster: str
    profile: str
    backup_id: str
    way: Literal["kubelet", "manifests", "pods"]
    what: tuple[str, ...]
    planned_at: str
    expected_revision: int
    bump_revision: int
    token: str
    places: tuple[Place, ...]
    words: tuple[str, ...]
    steps: tuple[Step, ...]
    after_rollback: tuple[Step, ...] = ()
    independent: bool = True
    schema_version: Literal[1] = 1

    def to_json(self) -> str:
        """Return the plan as JSON; the same plan gives the same text."""
        return _ADAPTER.dump_json(self, indent=1).decode()

    @property
    def digest(self) -> str:
        """SHA-256 of the plan's JSON, hexadecimal: what an approval is given for."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def place(self, name: str) -> Place:
        """Return the place of that name."""
        return next(place for place in self.places if place.name == name)

    def phase(self, phase: Phase) -> tuple[Step, ...]:
        """Return a phase's steps, in order."""
        return tuple(step for step in self.steps if step.phase == phase)


_ADAPTER: TypeAdapter[Plan] = TypeAdapter(Plan)


def without_words(plan: Plan) -> Plan:
    """Return what a plan does, without what it says to people: a new version may say the same better."""

    def silent(step: Step) -> Step:
        remedy = replace(step.remedy, words="") if step.remedy else None
        return replace(step, words="", remedy=remedy)

    return replace(
        plan,
        words=(),
        steps=tuple(map(silent, plan.steps)),
        after_rollback=tuple(map(silent, plan.after_rollback)),
    )


def parse_plan(text: str | bytes, *, approved: str | None = None) -> Plan:
    """
    Read a plan from its JSON.

    :param approved: Digest that was approved, where one was.
    :raises ObjectDamaged: when it is no plan of ours.
    :raises NotApproved: when it is another plan than the approved one.
    """
    try:
        plan = _ADAPTER.validate_json(text)
    except ValidationError as err:
        raise ObjectDamaged(
            f"this is not a restore plan of schema_version 1: {err.error_count()} field(s) are wrong."
        ) from err
    if json.loads(plan.to_json()) != json.loads(text):
        raise ObjectDamaged("this restore plan has fields that this version does not know; another version made it.")
    if approved is not None and plan.digest != approved:
        raise NotApproved(
            f"restore {plan.run!r} of cluster {plan.cluster!r} refused: the plan's digest is {plan.digest[:16]}…, "
            f"{approved[:16]}… was approved; nothing was done. Start a new restore and approve its plan."
        )
    return plan
