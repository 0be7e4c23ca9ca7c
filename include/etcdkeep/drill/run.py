"""
One drill, from the sealed snapshot to the verdict.

What the set is to blame for becomes a problem in the record. What the machine is to blame for (no program, no room, no
time, no identity) is raised, and says nothing of the set.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from etcdkeep.drill.compare import compare_contents, find_undecodable
from etcdkeep.drill.contents import Contents, LiveKey, Tallies, read_contents
from etcdkeep.drill.tools import Programs, check_versions
from etcdkeep.errors import (
    CommandFailed,
    DrillImpossible,
    EtcdkeepError,
    NotFound,
    SealError,
    SecretUnavailable,
    SnapshotDamaged,
    SnapshotUnreadable,
    VerificationFailed,
)
from etcdkeep.sealing.private_file import telling_full_disk
from etcdkeep.sealing.seal import unseal
from etcdkeep.sets.manifest import compare_with_member
from etcdkeep.sets.results import DrillResult, Verification
from etcdkeep.snapshot import open_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Artifact, Manifest
    from etcdkeep.sets.repository import Repository
    from etcdkeep.snapshot import Snapshot, SnapshotReport

Phase = str
PHASES: tuple[Phase, ...] = ("unseal", "restore", "start", "read", "compare")
RESTORE_PHASES = PHASES[:3]
"""What a restore has to do as well, after which etcd serves again."""


class Server(Protocol):
    """
    An etcd that runs and serves.

    :raises CommandFailed: by each method, when the etcd has ended by itself.
    :raises DrillImpossible: by each method, when it does not answer.
    """

    def revision(self) -> int:
        """Return the current revision."""

    def keys(self, revision: int) -> Iterator[Sequence[LiveKey]]:
        """Yield every key that exists, some at a time."""

    def hash_kv(self) -> int:
        """Return HashKV at the current revision."""


class Workshop(Protocol):
    """
    What one drill works with; gone without a trace when it is closed.

    :param folder: Private and empty at first, with room for the drill.
    """

    folder: Path
    programs: Programs

    def restore(self, snapshot: Path) -> None:
        """
        Make the data directory.

        :raises CommandFailed: when the program refuses the snapshot.
        """

    def serve(self, *, empty: bool = False) -> AbstractContextManager[Server]:
        """
        Run an etcd on the data directory.

        :param empty: Run it on a new one instead.
        :raises CommandFailed: when it ends before it serves.
        """


def drill_set(
    repository: Repository,
    found: BackupSet,
    identities: Sequence[Identity] | None,
    open_workshop: Callable[[int], AbstractContextManager[Workshop]],
    begun: Callable[[Phase], None] = lambda phase: None,
) -> Verification:
    """
    Restore one set into a throw-away etcd, read all of it back, and return the record; storing it is the caller's act.

    :param open_workshop: Given the snapshot's size.
    :param begun: Called at the begin of each phase.
    :raises VerificationFailed: when the set's manifest cannot be trusted.
    :raises SecretUnavailable: without an identity.
    :raises DrillImpossible: when this machine cannot drill.
    :raises NoSpace: when it has too little room.
    """
    if found.manifest is None:
        raise VerificationFailed(
            f"backup {found.name} is {found.state} and cannot be drilled. Choose another set.", found.problems
        )
    if identities is None:
        raise SecretUnavailable(
            f"backup {found.name} cannot be drilled: there is no age identity here (age_identity of the configuration). "
            "The backup is not in doubt."
        )
    artifact = found.manifest.artifact("etcd")
    if artifact is None:
        raise VerificationFailed(f"backup {found.name} has no snapshot; choose another set.")
    with open_workshop(artifact.plaintext.size_bytes) as workshop:
        return _Drill(repository.store, found.manifest, artifact, workshop, begun).run(found.name, identities)


class _Unfit(Exception):
    """The set is to blame, and the drill cannot go on."""


class _Drill:
    def __init__(
        self,
        store: ObjectStore,
        manifest: Manifest,
        artifact: Artifact,
        workshop: Workshop,
        begun: Callable[[Phase], None],
    ) -> None:
        self.store = store
        self.manifest = manifest
        self.artifact = artifact
        self.workshop = workshop
        self.begun = begun
        self.seconds: dict[str, float] = {}
        self.report: SnapshotReport | None = None

    def run(self, name: str, identities: Sequence[Identity]) -> Verification:
        """Do it all and judge the set."""
        at = datetime.now(UTC)
        programs = self.workshop.programs
        warnings = check_versions(programs, self.manifest.versions.get("etcd", ""))
        try:
            snapshot = self._unseal(name, identities)
            served, recorded = self._restore_and_read(snapshot)
            with self._timed("compare"):
                problems = [*self._compare_with_member(), *compare_contents(served, recorded)]
                warnings += find_undecodable(served.tallies.samples)
        except _Unfit as err:
            problems = [str(err)]
        is_served = all(phase in self.seconds for phase in RESTORE_PHASES)
        return Verification(
            at=at,
            levels=() if problems else ("drill",),
            problems=tuple(problems),
            warnings=tuple(warnings),
            total_keys=self.report.total_keys if self.report else None,
            live_keys=self.report.live_keys if self.report else None,
            seconds=self.seconds,
            drill=DrillResult(
                etcd_version=programs.etcd.version,
                tool=programs.restore.words,
                restore_s=round(sum(self.seconds[phase] for phase in RESTORE_PHASES), 3) if is_served else None,
            ),
        )

    def _unseal(self, name: str, identities: Sequence[Identity]) -> Path:
        path = self.workshop.folder / "snapshot.db"
        size_bytes = self.artifact.plaintext.size_bytes
        try:
            with (
                self._timed("unseal"),
                self.store.open(f"{name}/{self.artifact.name}") as stored,
                telling_full_disk(self.workshop.folder, size_bytes),
                open(path, "xb", opener=_private) as plain,
            ):
                facts = unseal(stored, plain, identities, size_limit=size_bytes)
        except NotFound as err:
            raise _Unfit(f"{self.artifact.name} is not in the repository") from err
        except SealError as err:
            raise _Unfit(f"{self.artifact.name}: {err}") from err
        if facts.plain_sha256 != self.artifact.plaintext.sha256:
            raise _Unfit(
                f"{self.artifact.name}, opened, has SHA-256 {facts.plain_sha256}, the manifest says {self.artifact.plaintext.sha256}"
            )
        return path

    def _restore_and_read(self, path: Path) -> tuple[Contents, Contents]:
        """Return what the etcd serves and what the snapshot holds; the file is read while etcd's tool works on it."""
        try:
            with open_snapshot(path) as snapshot, ThreadPoolExecutor(1, "drill") as pool:
                reading = pool.submit(self._read_snapshot, snapshot)
                with self._timed("restore"):
                    self._restore(path)
                path.unlink()
                served = self._serve_and_read()
                return served, reading.result()
        except (SnapshotUnreadable, SnapshotDamaged) as err:
            raise _Unfit(f"{self.artifact.name}: {err}") from err

    def _read_snapshot(self, snapshot: Snapshot) -> Contents:
        self.report = snapshot.status()
        return read_contents(snapshot)

    def _restore(self, snapshot: Path) -> None:
        try:
            self.workshop.restore(snapshot)
        except CommandFailed as err:
            raise _Unfit(str(err)) from err

    def _serve_and_read(self) -> Contents:
        with ExitStack() as stack:
            with self._timed("start"):
                server = self._start(stack)
            with self._timed("read"):
                try:
                    return _read_server(server)
                except CommandFailed as err:
                    raise _Unfit(f"an etcd restored from it ended while it was read: {err}") from err

    def _start(self, stack: ExitStack) -> Server:
        try:
            return stack.enter_context(self.workshop.serve())
        except CommandFailed as err:
            self._check_without_backup()
            raise _Unfit(f"a real etcd does not start from it: {err}") from err

    def _check_without_backup(self) -> None:
        """Tell a fault of the set from one of this machine: where no etcd starts at all, it is the machine's."""
        try:
            with self.workshop.serve(empty=True):
                pass
        except EtcdkeepError as err:
            raise DrillImpossible(
                f"etcd does not start on this machine, not even without the backup: {err} The backup is not in doubt."
            ) from err

    def _compare_with_member(self) -> list[str]:
        return compare_with_member(self.report, self.manifest.snapshot) if self.report else []

    @contextmanager
    def _timed(self, phase: Phase) -> Iterator[None]:
        self.begun(phase)
        began = time.monotonic()
        yield
        self.seconds[phase] = round(time.monotonic() - began, 3)


def _read_server(server: Server) -> Contents:
    revision = server.revision()
    tallies = Tallies()
    for some in server.keys(revision):
        tallies.add(some)
    return Contents(revision, server.hash_kv(), tallies)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
