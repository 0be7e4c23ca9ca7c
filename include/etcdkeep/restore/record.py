"""
What is kept of a restore, in the repository: what was approved and by whom, what was done when, and how it ended.

::

    <cluster>/restores/taken.json                     which restore has the cluster; gone when it is over
    <cluster>/restores/<restore>/plan-<digest>.json   what is carried out, when its digest is the approved one
                                 requests/<time>-<digest>.md, what the approvers were shown
                                 approvals/<time>-<gate>.json
                                 begun.json           written before the first change
                                 journal/<time>-<task>.json, what each walk did
                                 outcome/<time>-<kind>.json
                                 kubeconfig.zst.age   sealed to the cluster's age recipients

Documents are create-only; what happens again gets a name with its own time.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter

from etcdkeep import naming
from etcdkeep.errors import EtcdkeepError, NotFound, ObjectExists, RestoreRefused
from etcdkeep.manifest import Record
from etcdkeep.repository import read, write
from etcdkeep.restore.engine import Event
from etcdkeep.restore.steps import parse_plan
from etcdkeep.seal import seal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from etcdkeep.approval import Answer
    from etcdkeep.ports import ObjectStore, StoredObject
    from etcdkeep.restore.engine import Record as Tell
    from etcdkeep.restore.steps import Plan

log = logging.getLogger(__name__)

BEGUN = "begun.json"
KUBECONFIG = "kubeconfig.zst.age"
DIGITS = 16
"""Of a digest in a name; the whole one is compared."""

_EVENTS: TypeAdapter[list[Event]] = TypeAdapter(list[Event])


class Begun(Record):
    """That nodes or pods may have been touched, and by which plan."""

    digest: str


class Taken(Record):
    """Which restore has a cluster."""

    restore: str


class Outcome(Record):
    """
    How a restore ended, or stands.

    :param kind: ``held``: left as it is for a person; ``incomplete``: it could not be taken back wholly.
    :param down_s: Seconds from the first stop to the last answer of the control plane.
    :param remaining: The script by which a person rolls back what remains, line by line.
    """

    kind: Literal["restored", "rolled-back", "held", "incomplete"]
    at: datetime
    words: str
    down_s: float | None = None
    revision: int | None = None
    keys: int | None = None
    notes: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()


class RestoreRecord:
    """
    The record of one restore.

    :param restore: Its name (:func:`etcdkeep.naming.restore_id`).
    """

    def __init__(self, store: ObjectStore, cluster: str, restore: str) -> None:
        self.restore = restore
        self._restores = naming.restores_prefix(cluster)
        self.folder = f"{self._restores}{restore}/"
        self._store = store
        self._cluster = cluster
        self._taken = f"{self._restores}taken.json"

    # --- what is to be done ------------------------------------------------------------------------------------------

    def keep_plan(self, plan: Plan, request: str, now: datetime) -> str:
        """Store a plan and what the approvers are shown, and return the plan's digest."""
        digest = plan.digest
        write(self._store, self._plan_name(digest), plan.to_json().encode())
        write(self._store, f"{self.folder}requests/{_stamp(now)}-{digest[:DIGITS]}.md", request.encode())
        return digest

    def plan(self, digest: str) -> Plan:
        """
        Return the approved plan.

        :raises PlanChanged: when the stored one is another.
        """
        return parse_plan(read(self._store, self._plan_name(digest)), approved=digest)

    def _plan_name(self, digest: str) -> str:
        return f"{self.folder}plan-{digest[:DIGITS]}.json"

    def keep_answer(self, answer: Answer) -> None:
        """Put on record who answered what."""
        self._keep(f"approvals/{_stamp(answer.at)}-{answer.gate}.json", answer)

    def answers(self) -> Iterator[bytes]:
        """Yield the answers, oldest first, as JSON."""
        return (read(self._store, item.name) for item in self._store.list(f"{self.folder}approvals/"))

    # --- who has the cluster -----------------------------------------------------------------------------------------

    def taken_by(self) -> str | None:
        """Return the restore that has this cluster; None when it is free, or this one has it."""
        try:
            found = Taken.model_validate_json(read(self._store, self._taken)).restore
        except NotFound:
            return None
        return None if found == self.restore else found

    def take(self, *, override: bool = False) -> None:
        """
        Take the cluster for this restore, if it has it not yet.

        :param override: Take it from another one, which a person has ended by hand.
        :raises RestoreRefused: when another one has it, or has changed it since this one did.
        """
        if later := self._followed_by():
            raise RestoreRefused(
                f"restore {self.restore!r} of cluster {self._cluster!r} refused: restore {later!r} has changed the cluster since; nothing was "
                "done. What this one knows of the cluster holds no more: start a new restore."
            )
        if override and self.taken_by():
            self._store.delete(self._taken)
        try:
            self._keep_as(self._taken, Taken(restore=self.restore))
        except ObjectExists as err:
            raise RestoreRefused(
                f"restore {self.restore!r} of cluster {self._cluster!r} refused: restore {self.taken_by()!r} has the cluster; nothing "
                "was done. Wait for its end, or clear its task `rollback`."
            ) from err

    def _followed_by(self) -> str | None:
        """Return the newest restore that was begun after this one was; None before this one is begun."""
        begun = [item for item in self._store.list(self._restores) if item.name.endswith(f"/{BEGUN}")]
        last = max(begun, key=lambda item: item.updated_at, default=None)
        if last is None or all(item.name != self.folder + BEGUN for item in begun):
            return None
        restore = _restore_of(last)
        return None if restore == self.restore else restore

    def give_free(self) -> None:
        """Let other restores have the cluster."""
        if self.taken_by() is None:
            self._store.delete(self._taken)

    # --- what was done -----------------------------------------------------------------------------------------------

    def begin(self, digest: str) -> None:
        """
        Put on record that this plan is being carried out; before the first change.

        :raises RestoreRefused: when another plan was begun under this name.
        """
        try:
            self._keep(BEGUN, Begun(digest=digest))
        except ObjectExists as err:
            raise RestoreRefused(
                f"restore {self.restore!r} has begun with another plan; nothing more was done. Clear its task `rollback`, then start a "
                "new restore."
            ) from err

    def begun(self) -> Begun | None:
        """Return what was begun; None as long as nothing can have been touched."""
        try:
            return Begun.model_validate_json(read(self._store, self.folder + BEGUN))
        except NotFound:
            return None

    @contextmanager
    def journal(self, task: str, now: datetime) -> Iterator[Tell]:
        """
        Yield what an engine tells its events; they are stored when the block ends, the first one at once.

        A repository that does not answer must not end a restore half way: then the events stand in the task's log alone.
        """
        name = f"journal/{_stamp(now)}-{task}"
        events: list[Event] = []

        def tell(event: Event) -> None:
            events.append(event)
            if len(events) == 1:
                self._keep_events(f"{name}.began.json", events)

        try:
            yield tell
        finally:
            self._keep_events(f"{name}.json", events)

    def _keep_events(self, name: str, events: list[Event]) -> None:
        try:
            write(self._store, self.folder + name, _EVENTS.dump_json(events, indent=1))
        except EtcdkeepError as err:
            log.warning("the journal %s could not be stored, its events stand in this log: %s", name, err)

    def events(self) -> list[Event]:
        """Return all events, in order of time."""
        found = {
            event
            for item in self._store.list(f"{self.folder}journal/")
            for event in _EVENTS.validate_json(read(self._store, item.name))
        }
        return sorted(found, key=lambda event: event.at)

    def conclude(self, outcome: Outcome) -> None:
        """Put on record how it ended."""
        self._keep(f"outcome/{_stamp(outcome.at)}-{outcome.kind}.json", outcome)

    def outcome(self) -> Outcome | None:
        """Return the last word; None as long as there is none."""
        names = [item.name for item in self._store.list(f"{self.folder}outcome/")]
        return Outcome.model_validate_json(read(self._store, names[-1])) if names else None

    def rests(self) -> bool:
        """Whether it was left as it is for a person, and nothing was walked since."""
        last, events = self.outcome(), self.events()
        return last is not None and last.kind == "held" and not (events and events[-1].at > last.at.timestamp())

    # --- the new kubeconfig ------------------------------------------------------------------------------------------

    def keep_kubeconfig(self, text: bytes, recipients: Sequence[str]) -> str:
        """Seal the restored cluster's kubeconfig into the record, once, and return the object's name."""
        name = self.folder + KUBECONFIG
        if self._store.stat(name) is None:
            with self._store.create(name) as sink:
                seal([text], sink, recipients)
        return name

    def open_kubeconfig(self) -> AbstractContextManager[BinaryIO]:
        """
        Open the sealed kubeconfig.

        :raises NotFound: when there is none.
        """
        return self._store.open(self.folder + KUBECONFIG)

    def _keep(self, name: str, document: Record) -> None:
        self._keep_as(self.folder + name, document)

    def _keep_as(self, name: str, document: Record) -> None:
        write(self._store, name, document.model_dump_json(indent=2).encode() + b"\n")


def restores_with_kubeconfig(store: ObjectStore, cluster: str) -> list[str]:
    """Return the cluster's restores that kept a kubeconfig, oldest first."""
    items = store.list(naming.restores_prefix(cluster))
    return [_restore_of(item) for item in items if item.name.endswith(f"/{KUBECONFIG}")]


def down_time_s(events: Iterable[Event]) -> float | None:
    """
    Return the seconds from the first stop to the moment when everything that is waited for answered.

    :return: None when nothing was stopped, or nothing has answered since.
    """
    stopped, served = None, dict[str, float]()
    for event in sorted(events, key=lambda event: event.at):
        if event.phase == "stop" and event.state == "began":
            stopped = stopped or event.at
        elif event.state == "done" and (event.step.startswith("etcd-serves") or event.phase == "verify"):
            served.setdefault(event.step, event.at)
    waits = [at for step, at in served.items() if not step.startswith("close")]
    return round(max(waits) - stopped, 3) if stopped and waits else None


def _restore_of(item: StoredObject) -> str:
    return item.name.split("/")[-2]


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
