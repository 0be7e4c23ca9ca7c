"""
Proving a backup set good: read back from the repository as a stranger would, level by level.

``stored``: the signature is ours and the bytes are those of the manifest. ``sealed``: they open to the recorded plaintext.
``etcd``: the snapshot is sound and is what the member reported. ``pki``: certificates and keys are complete, belong
together and are valid, and the keys of encrypted values are there. Every artifact is read once; plaintext exists only in
a private unlinked file.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import takewhile
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from etcdkeep.control_plane.access_files import check_access
from etcdkeep.control_plane.archive import read_files
from etcdkeep.control_plane.encryption import check_encryption_keys
from etcdkeep.control_plane.pki import check_pki
from etcdkeep.errors import (
    ArchiveRefused,
    EtcdkeepError,
    IdentityMismatch,
    NotFound,
    SealError,
    SnapshotDamaged,
    SnapshotUnreadable,
)
from etcdkeep.objects.index import index_snapshot
from etcdkeep.sealing.digest import Digest, Hasher
from etcdkeep.sealing.private_file import private_file
from etcdkeep.sealing.seal import unseal
from etcdkeep.sets.manifest import Artifact, Manifest, Plaintext, Stored, compare_with_member
from etcdkeep.sets.opening import ARCHIVE_LIMIT_BYTES
from etcdkeep.sets.results import Index, Level, Verification
from etcdkeep.snapshot import EncryptionUse, SnapshotReport, encryption_use, open_snapshot
from etcdkeep.snapshot.record import ENCRYPTED

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository
    from etcdkeep.snapshot import Snapshot as OpenSnapshot

log = logging.getLogger(__name__)

READ_BYTES = 2**20

Progress = Callable[[int, int], None]


def verify_set(
    repository: Repository,
    cluster: Cluster,
    found: BackupSet,
    identities: Sequence[Identity] | None,
    progress: Progress | None = None,
    *,
    write_index: bool = True,
) -> Verification:
    """
    Check one set, and return the record; storing it is the caller's act.

    :param identities: Private age keys; without them the check ends at ``stored``.
    :param progress: Called with bytes done and bytes in all.
    :param write_index: Whether the set gets a sealed index of its snapshot, which `objects list` reads; for whoever
        stores the record, since an index counts only with its digest there.
    :raises IdentityMismatch: when no identity opens the set: that says nothing of the set.
    :raises TransientError: when the repository could not be read.
    """
    at = datetime.now(UTC)
    if found.manifest is None:
        return Verification(at=at, problems=(found.problem or "it has no manifest",))
    check = _Check(repository.store, cluster, found.name, found.manifest, progress)
    check.index_identities = identities if write_index else None
    check.recorded_index = found.index
    for artifact in found.manifest.artifacts:
        check.artifact(artifact, identities)
    levels = ("stored",) if identities is None else check.levels()
    return Verification(
        at=at,
        levels=tuple(takewhile(lambda level: not check.problems[level], levels)),
        complete=identities is not None,
        problems=tuple(problem for level in levels for problem in check.problems[level]),
        warnings=tuple(check.warnings),
        total_keys=check.report.total_keys if check.report else None,
        live_keys=check.report.live_keys if check.report else None,
        seconds=check.seconds,
        index=check.index,
        expires_at=check.expiry[0] if check.expiry else None,
        expires_first=check.expiry[1] if check.expiry else None,
    )


class _Check:
    """Reads each artifact once and sorts what is wrong by level."""

    def __init__(
        self, store: ObjectStore, cluster: Cluster, name: str, manifest: Manifest, progress: Progress | None
    ) -> None:
        self.store = store
        self.cluster = cluster
        self.name = name
        self.manifest = manifest
        self.progress = progress
        self.problems: defaultdict[Level, list[str]] = defaultdict(list)
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}
        self.report: SnapshotReport | None = None
        self.encryption: set[EncryptionUse] = set()
        self.index: Index | None = None
        self.expiry: tuple[datetime, str] | None = None
        self.index_identities: Sequence[Identity] | None = None
        self.recorded_index: Index | None = None
        self.files: dict[str, bytes] = {}
        self.read_bytes = 0

    def levels(self) -> tuple[Level, ...]:
        """Return the levels that this set can have, after the checks that need several artifacts."""
        if self.manifest.artifact("etcd") is None:
            self.problems["etcd"].append("the set has no snapshot")
        layout = self.cluster.control_plane
        coverage = check_encryption_keys(self.encryption, self.files, layout.optional_paths)
        self.problems["pki"] += coverage.problems
        self.warnings += coverage.notes
        if layout.has_nodes and self.manifest.artifact("control-plane") is None:
            self.problems["pki"].append("the set has no files of a control-plane node")
        return (
            ("stored", "sealed", "etcd", "pki") if layout.has_nodes or self.encryption else ("stored", "sealed", "etcd")
        )

    def artifact(self, artifact: Artifact, identities: Sequence[Identity] | None) -> None:
        """Read one artifact back and check it as far as the identities allow."""
        try:
            if identities is None:
                self._compare_stored(artifact, self._digest(artifact))
            else:
                self._open(artifact, identities)
        except NotFound:
            self.problems["stored"].append(f"{artifact.name} is not in the repository")

    def _open(self, artifact: Artifact, identities: Sequence[Identity]) -> None:
        with private_file(artifact.plaintext.size_bytes) as plain:
            try:
                with self._timed("read"), self._stored(artifact) as stored:
                    facts = unseal(stored, plain, identities, size_limit=artifact.plaintext.size_bytes)
            except (SealError, IdentityMismatch) as err:
                if self._compare_stored(artifact, self._digest(artifact)) and isinstance(err, IdentityMismatch):
                    raise IdentityMismatch(
                        f"{self.name}/{artifact.name}, sealed to {', '.join(artifact.recipients)}: {err}"
                    ) from err
                self.problems["sealed"].append(f"{artifact.name}: {err}")
                return
            self._compare_stored(artifact, Digest(facts.stored_size_bytes, facts.stored_sha256, facts.stored_crc32c))
            opened = Plaintext(size_bytes=facts.plain_size_bytes, sha256=facts.plain_sha256)
            if opened != artifact.plaintext:
                self.problems["sealed"].append(_differs(f"{artifact.name}, opened", opened, artifact.plaintext))
                return
            plain.flush()
            plain.seek(0)
            with self._timed(artifact.kind):
                self._check_plain(artifact, plain)

    def _check_plain(self, artifact: Artifact, plain: IO[bytes]) -> None:
        if artifact.kind == "etcd":
            self._check_snapshot(artifact, plain)
        elif artifact.kind == "control-plane":
            self._check_control_plane(artifact, plain)
        elif artifact.kind == "access":
            self._check_access(artifact, plain)

    def _check_snapshot(self, artifact: Artifact, plain: IO[bytes]) -> None:
        try:
            with open_snapshot(plain.fileno()) as snapshot:
                self.report = snapshot.check()
                for hint in self.report.hints:
                    log.warning("%s: %s", artifact.name, hint)
                problems = [*self.report.problems, *compare_with_member(self.report, self.manifest.snapshot)]
                self.problems["etcd"] += [f"{artifact.name}: {problem}" for problem in problems]
                if self.report.ok and self.report.encryption:
                    self.encryption = _live_encryption(snapshot)
                self._index(artifact, snapshot)
        except (SnapshotUnreadable, SnapshotDamaged) as err:
            self.problems["etcd"].append(f"{artifact.name}: {err}")

    def _index(self, artifact: Artifact, snapshot: OpenSnapshot) -> None:
        """Give the set its index; a set without one is as good, and only slower to look into."""
        if self.index_identities is None or any(self.problems.values()):
            return
        try:
            with self._timed("index"):
                self.index = index_snapshot(
                    self.store,
                    self.name,
                    snapshot,
                    artifact.recipients,
                    self.index_identities,
                    index_recipients=self.cluster.index_recipients,
                    prefix=self.cluster.etcd_prefix,
                    recorded=self.recorded_index,
                )
        except EtcdkeepError as err:
            self.warnings.append(f"there is no index of {artifact.name}, lists will read all of it: {err}")

    def _check_control_plane(self, artifact: Artifact, plain: IO[bytes]) -> None:
        try:
            archived = read_files(plain, ARCHIVE_LIMIT_BYTES)
        except ArchiveRefused as err:
            self.problems["pki"].append(f"{artifact.name}: {err}")
            return
        files = {file.path: file.data for file in archived}
        self.files.update(files)
        report = check_pki(
            files,
            required=self.cluster.control_plane.required_files,
            now=datetime.now(UTC),
            warning_days=self.cluster.cert_warning_days,
            modes={file.path: file.mode for file in archived},
        )
        self.problems["pki"] += [f"{artifact.name}: {problem}" for problem in report.problems]
        self.warnings += [f"{artifact.name}: {warning}" for warning in report.warnings]
        if report.expires_at and (self.expiry is None or report.expires_at < self.expiry[0]):
            self.expiry = report.expires_at, f"{artifact.node or artifact.name}:{report.expires_first}"

    def _check_access(self, artifact: Artifact, plain: IO[bytes]) -> None:
        """Say what of the keys does not work elsewhere; the set restores without them, so these are warnings."""
        try:
            files = {file.path: file.data for file in read_files(plain, ARCHIVE_LIMIT_BYTES)}
        except ArchiveRefused as err:
            self.problems["pki"].append(f"{artifact.name}: {err}")
            return
        self.warnings += [f"{artifact.name}: {finding}" for finding in check_access(files, datetime.now(UTC))]

    def _digest(self, artifact: Artifact) -> Digest:
        passed = Hasher()
        with self._stored(artifact) as stored:
            while block := stored.read(READ_BYTES):
                passed.update(block)
        return passed.digest()

    def _compare_stored(self, artifact: Artifact, digest: Digest) -> bool:
        found = Stored(size_bytes=digest.size_bytes, sha256=digest.sha256, crc32c=digest.crc32c)
        if found != artifact.stored:
            self.problems["stored"].append(_differs(f"{artifact.name} in the repository", found, artifact.stored))
        return found == artifact.stored

    @contextmanager
    def _stored(self, artifact: Artifact) -> Iterator[BinaryIO]:
        with self.store.open(f"{self.name}/{artifact.name}") as stream:
            yield stream if self.progress is None else cast("BinaryIO", _Counted(stream, self._tick))

    def _tick(self, size_bytes: int) -> None:
        self.read_bytes += size_bytes
        if self.progress is not None:
            self.progress(self.read_bytes, self.manifest.stored_bytes)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - began, 3)


class _Counted:
    """A stream that tells how much was read of it."""

    def __init__(self, stream: BinaryIO, tick: Callable[[int], None]) -> None:
        self._stream = stream
        self._tick = tick

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._tick(len(data))
        return data


def _live_encryption(snapshot: OpenSnapshot) -> set[EncryptionUse]:
    """Tell how the values are encrypted that a restored API server will read: what was replaced or deleted needs no key."""
    return {encryption_use(value) for _, value in snapshot.live_values() if value.startswith(ENCRYPTED)}


def _differs(what: str, found: Stored | Plaintext, expected: Stored | Plaintext) -> str:
    return (
        f"{what} has {found.size_bytes} bytes with SHA-256 {found.sha256}, the manifest says {expected.size_bytes} bytes with "
        f"{expected.sha256}"
    )
