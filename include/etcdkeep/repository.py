"""
The backup sets of a repository: what is published, and what later verifications said of it.

The catalogue is the repository itself: a set is there when its manifest is there. Nothing else is kept.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field, ValidationError

from etcdkeep import naming
from etcdkeep.errors import NotFound, ObjectDamaged, ObjectExists, SignatureInvalid
from etcdkeep.manifest import Manifest, Plaintext, Record, Stored, parse_manifest
from etcdkeep.signature import check_signature

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from etcdkeep.ports import ObjectStore

Level = Literal["stored", "sealed", "etcd", "pki", "drill"]
State = Literal["good", "bad", "unverified"]
GOOD: tuple[State, ...] = ("good",)
ANY: tuple[State, ...] = ("good", "bad", "unverified")

MAX_DOCUMENT_BYTES = 64 * 2**20
"""No manifest, signature or record comes near it; a larger object is not ours."""


class Index(Record):
    """The sealed list of what is in a set's snapshot; no artifact: the set is whole without it."""

    plaintext: Plaintext
    stored: Stored


class Drill(Record):
    """
    What a real etcd was started with.

    :param restore_s: Seconds from the sealed snapshot to an etcd that serves it, on the machine of the drill: an estimate for a restore.
    """

    etcd_version: str
    tool: str
    restore_s: float | None = None


class Verification(Record):
    """
    What one verification or drill found.

    :param levels: The levels passed, in order.
    :param complete: Whether every level was tried that this set can have; False where no age identity was at hand.
    :param problems: What is wrong with the set; empty when nothing is.
    :param index: The index that was found right or made; None where the snapshot was not opened or is not sound.
    :param drill: For a drill only.
    """

    at: datetime
    levels: tuple[Level, ...] = ()
    complete: bool = False
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    total_keys: int | None = None
    live_keys: int | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    index: Index | None = None
    drill: Drill | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


@dataclass(frozen=True)
class BackupSet:
    """
    One published set.

    :param problem: Why the set is bad whatever the verifications say: an unreadable or wrongly signed manifest.
    """

    cluster: str
    backup_id: str
    manifest: Manifest | None
    manifest_bytes: bytes
    signature: bytes
    verifications: tuple[Verification, ...]
    problem: str | None = None

    @property
    def name(self) -> str:
        """``cluster/backup-id``."""
        return f"{self.cluster}/{self.backup_id}"

    @property
    def state(self) -> State:
        """
        By the last verification that failed or was complete, and the last drill.

        A failure counts until one of its own kind finds nothing wrong: no verification sees what made a drill fail.
        """
        if self.problem or (self.drills and not self.drills[-1].ok):
            return "bad"
        for record in reversed(self._checks):
            if not record.ok:
                return "bad"
            if record.complete:
                return "good"
        return "unverified"

    @property
    def levels(self) -> tuple[Level, ...]:
        """Every level passed, in order, by the last verification that failed and those since; and by the last drill."""
        failed = [index for index, record in enumerate(self._checks) if not record.ok]
        counted = (*self._checks[failed[-1] if failed else 0 :], *self.drills[-1:])
        return tuple(dict.fromkeys(level for record in counted for level in record.levels))

    @property
    def problems(self) -> tuple[str, ...]:
        """What makes the set bad; empty for one that is not."""
        if self.problem:
            return (self.problem,)
        failed = next((record for record in reversed(self._checks) if record.complete or not record.ok), None)
        last = (*([failed] if failed else []), *self.drills[-1:])
        return tuple(problem for record in last for problem in record.problems)

    @property
    def drills(self) -> tuple[Verification, ...]:
        """The drills of the set, oldest first."""
        return tuple(record for record in self.verifications if record.drill)

    @property
    def _checks(self) -> tuple[Verification, ...]:
        return tuple(record for record in self.verifications if not record.drill)

    @property
    def index(self) -> Index | None:
        """The index of the snapshot, as the last verification that opened it recorded it."""
        return next((record.index for record in reversed(self.verifications) if record.index), None)


class Repository:
    """
    Sets in one store.

    :param public_keys: Trusted signing keys; a set of another signer counts as bad.
    """

    def __init__(self, store: ObjectStore, public_keys: Iterable[str]) -> None:
        self.store = store
        self.public_keys = tuple(public_keys)

    def sets(self, cluster: str) -> Iterator[BackupSet]:
        """Yield a cluster's published sets, oldest first. Half-published ones do not show."""
        names: dict[str, list[str]] = {}
        for item in self.store.list(f"{cluster}/"):
            identifier = item.name.split("/")[1]
            if naming.is_backup_id(identifier):
                names.setdefault(identifier, []).append(item.name)
        for identifier, found in sorted(names.items()):
            if naming.set_prefix(cluster, identifier) + naming.MANIFEST in found:
                with suppress(NotFound):  # deleted since it was listed
                    yield self._load(cluster, identifier, found)

    def get(self, cluster: str, identifier: str) -> BackupSet:
        """
        Return one set.

        :raises NotFound: when it was never published.
        """
        prefix = naming.set_prefix(cluster, identifier)
        found = [item.name for item in self.store.list(prefix)]
        if prefix + naming.MANIFEST not in found:
            raise NotFound(
                f"no backup {cluster}/{identifier} in {self.store.url}; see `python -m etcdkeep list {cluster}`."
            )
        return self._load(cluster, identifier, found)

    def newest(self, cluster: str, states: Collection[State] = GOOD) -> BackupSet | None:
        """Return a cluster's newest set in one of the states."""
        return next((found for found in reversed(list(self.sets(cluster))) if found.state in states), None)

    def record(self, found: BackupSet, record: Verification) -> str:
        """Store a verification with its set, and return the object's name."""
        level = record.levels[-1] if record.levels else "none"
        name = naming.verification_name(found.cluster, found.backup_id, record.at, level)
        write(self.store, name, record.model_dump_json(indent=2).encode() + b"\n")
        return name

    def _load(self, cluster: str, identifier: str, found: list[str]) -> BackupSet:
        prefix = naming.set_prefix(cluster, identifier)
        data = signature = b""
        manifest, problem = None, None
        records: list[Verification] = []
        try:
            data = read(self.store, prefix + naming.MANIFEST)
            signature = read(self.store, prefix + naming.SIGNATURE) if prefix + naming.SIGNATURE in found else b""
            check_signature(f"{prefix}{naming.MANIFEST}", data, signature, self.public_keys)
            manifest = parse_manifest(f"{prefix}{naming.MANIFEST}", data)
            if (manifest.cluster, manifest.backup_id) != (cluster, identifier):
                raise ObjectDamaged(
                    f"{prefix} holds the manifest of {manifest.cluster}/{manifest.backup_id}: the set was moved."
                )
            records = [self._verification(name) for name in sorted(found) if name.startswith(f"{prefix}verification/")]
        except (SignatureInvalid, ObjectDamaged) as err:
            problem = str(err)
        return BackupSet(cluster, identifier, manifest, data, signature, tuple(records), problem)

    def _verification(self, name: str) -> Verification:
        try:
            return Verification.model_validate_json(read(self.store, name))
        except ValidationError as err:
            raise ObjectDamaged(f"{name} is no verification record; delete it and verify the set again.") from err


def read(store: ObjectStore, name: str) -> bytes:
    """
    Return a small document.

    :raises ObjectDamaged: when it is larger than any of ours.
    """
    with store.open(name) as stream:
        data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ObjectDamaged(f"{name} in {store.url} is larger than {MAX_DOCUMENT_BYTES} bytes: no document of ours.")
    return data


def write(store: ObjectStore, name: str, data: bytes) -> None:
    """
    Store a small document, create-only; one of the same bytes that is there already counts as stored.

    :raises ObjectExists: when there is another one.
    """
    try:
        with store.create(name, content_type="application/json") as stream:
            stream.write(data)
    except ObjectExists:
        if read(store, name) != data:
            raise
