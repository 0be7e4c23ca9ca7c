"""
What is kept of a restore, in the repository: what was proposed, who approved it, what was done when, and how it ended.

::

    <cluster>/restores/locked.json                    which restore has the cluster; gone when it is over
    <cluster>/restores/<restore>/proposals/<time>.json    plan, page and what the plan was made from
                                 asked/<time>-<gate>.json
                                 approvals/<time>-<gate>.json
                                 begun.json           written before the first change
                                 journal/<time>-<task>.json, what each walk did
                                 outcome/<time>-<kind>.json
                                 kubeconfig.json      names kubeconfig-<digest>.zst.age, sealed to the cluster's age recipients

Documents are signed (:mod:`etcdkeep.records`) and create-only; what happens again gets a name with its own time.
"""

from __future__ import annotations

import hashlib
import io
import logging
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime

from etcdkeep import naming
from etcdkeep.approval.gates import Gates
from etcdkeep.documents import Document, read, write
from etcdkeep.errors import (
    AccessDenied,
    EtcdkeepError,
    NotFound,
    ObjectExists,
    RecordRefused,
    RequestRefused,
    UnsafeName,
)
from etcdkeep.records import Kind, Records, Signed, stamp
from etcdkeep.restore.engine import StepEvent
from etcdkeep.restore.proposal import PROPOSAL, RestoreProposal
from etcdkeep.sealing.seal import seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from etcdkeep.ports import ObjectStore, StoredObject
    from etcdkeep.restore.engine import RecordStep

log = logging.getLogger(__name__)

BEGUN_FILE = "begun.json"
KUBECONFIG_FILE = "kubeconfig.json"


class Begun(Document):
    """
    That nodes or pods may have been touched.

    :param proposal: Digest of the record of the proposal that is carried out.
    """

    proposal: str


class Lock(Document):
    """Which restore has a cluster."""

    restore: str


class Journal(Document):
    """What one walk did."""

    task: str
    events: tuple[StepEvent, ...]


class Outcome(Document):
    """
    How a restore ended, or stands.

    :param kind: ``held``: left as it is for a person; ``incomplete``: it could not be rolled back completely.
    :param down_s: Seconds from the first stop to the last answer of the control plane.
    :param remaining: The script by which a person rolls back what remains, line by line.
    """

    kind: Literal["restored", "rolled-back", "held", "incomplete"]
    at: AwareDatetime
    words: str
    down_s: float | None = None
    revision: int | None = None
    keys: int | None = None
    notes: tuple[str, ...] = ()
    remaining: tuple[str, ...] = ()

    @property
    def is_end(self) -> bool:
        """Whether the restore is over, and its approvals are spent."""
        return self.kind in {"restored", "rolled-back"}


class KeptKubeconfig(Document):
    """The sealed kubeconfig that a restore kept."""

    file: str
    sha256: str


BEGUN = Kind("begun", "restore", Begun)
LOCK = Kind("lock", "restore", Lock)
JOURNAL = Kind("journal", "restore", Journal)
OUTCOME = Kind("outcome", "restore", Outcome)
KUBECONFIG = Kind("kubeconfig", "restore", KeptKubeconfig)


class RestoreRecord:
    """
    The record of one restore.

    :param restore: Its name (:func:`etcdkeep.naming.restore_id`).
    """

    def __init__(self, records: Records, cluster: str, restore: str) -> None:
        self.restore = restore
        self._restores = naming.restores_prefix(cluster)
        self.folder = f"{self._restores}{restore}/"
        self.gates = Gates(records, self.folder, cluster, restore)
        self._records = records
        self._store: ObjectStore = records.store
        self._cluster = cluster
        self._lock = f"{self._restores}locked.json"

    # --- what is proposed --------------------------------------------------------------------------------------------

    def propose(self, proposal: RestoreProposal) -> Signed[RestoreProposal]:
        """Sign and store what people are asked to approve. It takes the place of what was proposed before."""
        return self._records.append(PROPOSAL, f"{self.folder}proposals/", self._cluster, self.restore, proposal)

    def proposal(self) -> Signed[RestoreProposal]:
        """
        Return what was proposed last.

        :raises RequestRefused: when nothing was.
        """
        found = self._proposals()
        if not found:
            raise RequestRefused(
                f"restore {self.restore!r} of cluster {self._cluster!r} has no signed plan. Nothing was done. Clear the task `preflight`."
            )
        return found[-1]

    def proposal_of(self, digest: str) -> Signed[RestoreProposal]:
        """
        Return a proposal by its digest.

        :raises RequestRefused: when it is not stored any more.
        """
        found = next((each for each in self._proposals() if each.digest == digest), None)
        if found is None:
            raise RequestRefused(
                f"restore {self.restore!r} of cluster {self._cluster!r} has begun with a plan that is not in {self.folder}proposals/. Nothing more was done. Look for a copy of the repository, or finish it by hand: docs/runbook.md."
            )
        return found

    def _proposals(self) -> list[Signed[RestoreProposal]]:
        folder = f"{self.folder}proposals/"
        return self._records.in_folder(PROPOSAL, folder, self._cluster, self.restore)[0]

    # --- who has the cluster -----------------------------------------------------------------------------------------

    def locked_by(self) -> str | None:
        """Return the restore that has this cluster locked; None when it is free, or locked by this one."""
        found = self._read_lock()
        return None if found in (None, self.restore) else found

    def _read_lock(self) -> str | None:
        try:
            found = self._records.find(LOCK, self._lock, self._cluster, self._cluster)
        except RecordRefused as err:
            log.warning("%s", err)
            return None
        if found is None or found.body.restore == self.restore:
            return found.body.restore if found else None
        return None if self._is_void(found) else found.body.restore

    def _is_void(self, lock: Signed[Lock]) -> bool:
        """Whether a lock of another restore counts no more: that one is over, or this one began with the lock since."""
        other = RestoreRecord(self._records, self._cluster, lock.body.restore)
        begun = self._believed_begun()
        return other.end() is not None or (begun is not None and lock.at < begun.at)

    def lock(self, *, override: bool = False) -> datetime:
        """
        Lock the cluster for this restore, if it is not yet.

        :param override: Take the lock from another one, which a person has ended by hand.
        :return: When it was locked, by the store's clock.
        :raises RequestRefused: when another one has it, or has changed the cluster since this one did.
        """
        if later := self._followed_by():
            raise RequestRefused(
                f"restore {self.restore!r} of cluster {self._cluster!r} refused: restore {later!r} has changed the cluster since. Nothing was "
                "done. This plan is out of date. Start a new restore."
            )
        if override and self.locked_by():
            self._store.delete(self._lock)
        self._remove_void_lock()
        try:
            self._records.write(LOCK, self._lock, self._cluster, self._cluster, Lock(restore=self.restore))
        except ObjectExists as err:
            raise RequestRefused(
                f"restore {self.restore!r} of cluster {self._cluster!r} refused: the cluster is locked by restore {self.locked_by()!r}. Nothing "
                f"was done. Wait until it ends, or clear its task `rollback`. If it was ended by hand, delete {self._lock}."
            ) from err
        stored = self._store.stat(self._lock)
        return stored.updated_at if stored else self._records.now()

    def _remove_void_lock(self) -> None:
        try:
            found = self._records.find(LOCK, self._lock, self._cluster, self._cluster)
        except RecordRefused as err:
            log.warning("%s It is removed.", err)
            self._store.delete(self._lock)
            return
        if found is not None and found.body.restore != self.restore and self._is_void(found):
            log.warning("%s belongs to restore %s, which has ended. It is removed.", self._lock, found.body.restore)
            self._store.delete(self._lock)

    def _followed_by(self) -> str | None:
        """Return the newest restore that was begun after this one was; None before this one is begun."""
        items = [item for item in self._store.list(self._restores) if item.name.endswith(f"/{BEGUN_FILE}")]
        begun = []
        for item in items:
            with suppress(RecordRefused, NotFound, UnsafeName, AccessDenied):
                begun.append(self._records.read(BEGUN, item.name, self._cluster, _restore_of(item)))
        ours = next((each for each in begun if each.subject == self.restore), None)
        newest = max(begun, key=lambda each: each.at, default=None)  # by what is signed: a file's time can be set
        return newest.subject if ours and newest and newest.at > ours.at else None

    def release(self) -> None:
        """Let other restores have the cluster."""
        if self.locked_by() is None:
            self._store.delete(self._lock)

    # --- what was done -----------------------------------------------------------------------------------------------

    def begin(self, proposal: Signed[RestoreProposal]) -> None:
        """
        Document that this proposal is being carried out; before the first change.

        :raises RequestRefused: when another one was begun under this name.
        """
        try:
            self._records.write(
                BEGUN, self.folder + BEGUN_FILE, self._cluster, self.restore, Begun(proposal=proposal.digest)
            )
        except ObjectExists as err:
            raise RequestRefused(
                f"restore {self.restore!r} has begun with another plan, or {self.folder}{BEGUN_FILE} was put there by somebody else ({err}). "
                "Nothing more was done. Clear its task `rollback`, then start a new restore."
            ) from err

    def begun(self) -> Signed[Begun] | None:
        """
        Return what was begun; None as long as nothing can have been touched.

        :raises RequestRefused: when its record is missing or forged, although the journal tells of a walk.
        """
        found = self._believed_begun()
        if found is None and self.events():
            raise RequestRefused(
                f"restore {self.restore!r} of cluster {self._cluster!r}: the journal records changes, but {self.folder}{BEGUN_FILE} is "
                "missing or not signed by us. Nothing more was done. Look at the nodes (python -m etcdkeep restore-leftovers) and follow "
                "docs/runbook.md."
            )
        return found

    def _believed_begun(self) -> Signed[Begun] | None:
        try:
            return self._records.find(BEGUN, self.folder + BEGUN_FILE, self._cluster, self.restore)
        except RecordRefused as err:
            log.warning("%s", err)
            return None

    @contextmanager
    def journal(self, task: str, now: datetime) -> Iterator[RecordStep]:
        """
        Yield what an engine tells its events; they are stored when the block ends, the first one at once.

        A repository that does not answer must not end a restore half way: then the events stand in the task's log alone.
        """
        name = f"journal/{stamp(now)}-{task}"
        events: list[StepEvent] = []

        def tell(event: StepEvent) -> None:
            events.append(event)
            if len(events) == 1:
                self._keep_events(f"{name}.began.json", task, events)

        try:
            yield tell
        finally:
            self._keep_events(f"{name}.json", task, events)

    def _keep_events(self, name: str, task: str, events: list[StepEvent]) -> None:
        try:
            body = Journal(task=task, events=tuple(events))
            self._records.write(JOURNAL, self.folder + name, self._cluster, self.restore, body)
        except EtcdkeepError as err:
            log.warning("the journal %s could not be stored, its events are in this log: %s", name, err)

    def events(self) -> list[StepEvent]:
        """Return all events, in order of time."""
        walks = self._records.in_folder(JOURNAL, f"{self.folder}journal/", self._cluster, self.restore)[0]
        return sorted({event for walk in walks for event in walk.body.events}, key=lambda event: event.at)

    def conclude(self, outcome: Outcome) -> None:
        """Record how it ended."""
        name = f"{self.folder}outcome/{stamp(outcome.at)}-{outcome.kind}.json"
        self._records.write(OUTCOME, name, self._cluster, self.restore, outcome, outcome.at)

    def outcome(self) -> Outcome | None:
        """Return the last word; None as long as there is none."""
        found = self._outcomes()
        return found[-1] if found else None

    def end(self) -> Outcome | None:
        """Return how the restore ended, which spent its approvals; None while it has not."""
        return next((each for each in self._outcomes() if each.is_end), None)

    def _outcomes(self) -> list[Outcome]:
        found = self._records.in_folder(OUTCOME, f"{self.folder}outcome/", self._cluster, self.restore)[0]
        return [each.body for each in found]

    def is_held(self) -> bool:
        """Whether it was left as it is for a person, and nothing was walked since."""
        last, events = self.outcome(), self.events()
        return last is not None and last.kind == "held" and not (events and events[-1].at > last.at.timestamp())

    # --- the new kubeconfig ------------------------------------------------------------------------------------------

    def keep_kubeconfig(self, text: bytes, recipients: Sequence[str]) -> str:
        """Seal the restored cluster's kubeconfig into the record, once, and return the object's name."""
        kept = self._records.find(KUBECONFIG, self.folder + KUBECONFIG_FILE, self._cluster, self.restore)
        if kept is None:
            sealed = io.BytesIO()
            seal([text], sealed, recipients)
            digest = hashlib.sha256(sealed.getvalue()).hexdigest()
            body = KeptKubeconfig(file=f"kubeconfig-{digest[:16]}.zst.age", sha256=digest)
            write(self._store, self.folder + body.file, sealed.getvalue())
            kept = self._records.write(KUBECONFIG, self.folder + KUBECONFIG_FILE, self._cluster, self.restore, body)
        return self.folder + kept.body.file

    def sealed_kubeconfig(self) -> bytes:
        """
        Return the sealed kubeconfig.

        :raises NotFound: when there is none.
        :raises RecordRefused: when it is not the one that the restore kept.
        """
        kept = self._records.read(KUBECONFIG, self.folder + KUBECONFIG_FILE, self._cluster, self.restore)
        sealed = read(self._store, self.folder + kept.body.file)
        if hashlib.sha256(sealed).hexdigest() != kept.body.sha256:
            raise RecordRefused(
                f"{self.folder}{kept.body.file} is not the kubeconfig that restore {self.restore!r} kept: its SHA-256 differs. Nothing was "
                "written. Take the file from a node: control_plane.admin_conf.",
                word="foreign",
            )
        return sealed


def restores_with_kubeconfig(records: Records, cluster: str) -> list[str]:
    """Return the cluster's restores that kept a kubeconfig, oldest first."""
    items = [
        item
        for item in records.store.list(naming.restores_prefix(cluster))
        if item.name.endswith(f"/{KUBECONFIG_FILE}")
    ]
    kept = []
    for item in items:
        with suppress(RecordRefused, NotFound, UnsafeName, AccessDenied):
            kept.append(records.read(KUBECONFIG, item.name, cluster, _restore_of(item)))
    return [each.subject for each in sorted(kept, key=lambda each: each.at)]


def _restore_of(item: StoredObject) -> str:
    return item.name.split("/")[-2]
