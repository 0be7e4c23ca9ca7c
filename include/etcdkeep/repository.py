"""
The backup sets of a repository: what is published, and what later verifications said of it.

The catalogue is the repository itself: a set is there when its manifest is there. Nothing else is kept.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import Field

from etcdkeep import naming
from etcdkeep.errors import NotFound, ObjectDamaged, SignatureInvalid
from etcdkeep.manifest import Manifest, Plaintext, Record, Stored, parse_manifest
from etcdkeep.records import CLOCK_SKEW, Kind, Records, Refused, Signed, Trust
from etcdkeep.signature import check_signature
from etcdkeep.stored_documents import read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from etcdkeep.ports import ObjectStore, StoredObject
    from etcdkeep.records import Purpose

Level = Literal["stored", "sealed", "etcd", "pki", "drill"]
Distrust = Literal["unsigned", "foreign", "moved", "future", "bad"]
"""
Why a manifest is not believed: it has no signature; the signature is of no trusted key, or of other bytes; it is of another
cluster or id; it was taken in the future; it cannot be read.
"""
State = Literal["good", "unverified", "bad", "unsigned", "foreign", "moved", "future"]
GOOD: tuple[State, ...] = ("good",)
USABLE: tuple[State, ...] = ("good", "unverified", "bad")
"""States of sets whose manifest is believed."""
ANY: tuple[State, ...] = (*USABLE, "unsigned", "foreign", "moved", "future")


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
    :param manifest_sha256: Of the manifest that it speaks of; set when it is stored.
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
    manifest_sha256: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


Restorable = Literal["yes", "no", "unknown"]


class Rehearsal(Record):
    """
    What a restore's preflight said of a set on the night it was made, against the live site.

    :param restorable: ``unknown`` where something could not be asked from there.
    :param reasons: Why it is not ``yes``, one sentence each.
    :param seconds: How long it took.
    :param manifest_sha256: Of the manifest that it speaks of; set when it is stored.
    """

    at: datetime
    restorable: Restorable
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    manifest_sha256: str = ""


VERIFICATION = Kind("verification", "verify", Verification)
"""Of a verification or a drill."""
REHEARSAL = Kind("rehearsal", "verify", Rehearsal)


class Doubt(NamedTuple):
    """Why a set counts as bad whatever the verifications say."""

    word: Distrust
    sentence: str


@dataclass(frozen=True)
class BackupSet:
    """
    One published set.

    :param manifest: None where it is not believed: `doubt` says why.
    :param records: The signed verifications and drills, oldest first by the store's time.
    :param refused: Records that count as nothing.
    :param rehearsal: The last one.
    :param missing: What of it is not in the store, or is of another size; one sentence each.
    """

    cluster: str
    backup_id: str
    manifest: Manifest | None
    manifest_bytes: bytes
    signature: bytes
    records: tuple[Signed[Verification], ...] = ()
    doubt: Doubt | None = None
    refused: tuple[Refused, ...] = ()
    missing: tuple[str, ...] = ()
    rehearsal: Signed[Rehearsal] | None = None

    @property
    def name(self) -> str:
        """``cluster/backup-id``."""
        return f"{self.cluster}/{self.backup_id}"

    @property
    def taken_at(self) -> datetime:
        """When the data was taken: what orders sets. The id's time where the manifest is not believed."""
        return self.manifest.taken_at if self.manifest else naming.backup_time(self.backup_id)

    @property
    def manifest_sha256(self) -> str:
        """SHA-256 of the manifest's bytes, hex: what records name the set by."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def verifications(self) -> tuple[Verification, ...]:
        """What verifications and drills found, oldest first."""
        return tuple(record.body for record in self.records)

    @property
    def problem(self) -> str | None:
        """Why the set is bad whatever the verifications say."""
        if self.doubt:
            return self.doubt.sentence
        return "; ".join(self.missing) or None

    @property
    def state(self) -> State:
        """
        By the manifest, then by what is in the store, then by the last verification that failed or was complete, and the last drill.

        A failure counts until one of its own kind finds nothing wrong: no verification sees what made a drill fail.
        """
        if self.doubt:
            return self.doubt.word
        if self.missing or (self.drills and not self.drills[-1].ok):
            return "bad"
        for record in reversed(self._checks):
            if not record.ok:
                return "bad"
            if record.complete:
                return "good"
        return "unverified"

    @property
    def restorable(self) -> Restorable | None:
        """What the last rehearsal said; None where there was none."""
        return self.rehearsal.body.restorable if self.rehearsal else None

    @property
    def standing(self) -> str:
        """The state in words: a good set that could not be restored is not just good."""
        return f"{self.state}, not restorable" if self.state == "good" and self.restorable == "no" else self.state

    @property
    def levels(self) -> tuple[Level, ...]:
        """Every level passed, in order, by the last verification that failed and those since; and by the last drill."""
        failed = [index for index, record in enumerate(self._checks) if not record.ok]
        counted = (*self._checks[failed[-1] if failed else 0 :], *self.drills[-1:])
        return tuple(dict.fromkeys(level for record in counted for level in record.levels))

    @property
    def problems(self) -> tuple[str, ...]:
        """What makes the set bad; empty for one that is not."""
        if self.doubt:
            return (self.doubt.sentence,)
        failed = next((record for record in reversed(self._checks) if record.complete or not record.ok), None)
        last = (*([failed] if failed else []), *self.drills[-1:])
        return (*self.missing, *(problem for record in last for problem in record.problems))

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

    :param trust: Which keys may sign what; a set of another signer is not believed.
    :param signer: Gives private keys, where records are written.
    """

    def __init__(
        self, store: ObjectStore, trust: Trust, signer: Callable[[Purpose], Ed25519PrivateKey] | None = None
    ) -> None:
        self.store = store
        self.trust = trust
        self.records = Records(store, trust, signer)

    def sets(self, cluster: str) -> Iterator[BackupSet]:
        """Yield a cluster's published sets, oldest first by when they were taken. Half-published ones do not show."""
        listed: dict[str, list[StoredObject]] = {}
        for item in self.store.list(f"{cluster}/"):
            identifier = item.name.split("/")[1]
            if naming.is_backup_id(identifier):
                listed.setdefault(identifier, []).append(item)
        found = []
        for identifier, items in listed.items():
            if _has_manifest(cluster, identifier, items):
                with suppress(NotFound):  # deleted since it was listed
                    found.append(self._load(cluster, identifier, items))
        yield from sorted(found, key=lambda each: (each.taken_at, each.backup_id))

    def get(self, cluster: str, identifier: str) -> BackupSet:
        """
        Return one set.

        :raises NotFound: when it was never published, or `identifier` is no backup id.
        """
        if not naming.is_backup_id(identifier):
            raise NotFound(f"{identifier!r} is no backup id; see `python -m etcdkeep list {cluster}`.")
        items = list(self.store.list(naming.set_prefix(cluster, identifier)))
        if not _has_manifest(cluster, identifier, items):
            raise NotFound(
                f"no backup {cluster}/{identifier} in {self.store.url}; see `python -m etcdkeep list {cluster}`."
            )
        return self._load(cluster, identifier, items)

    def newest(self, cluster: str, states: Collection[State] = GOOD) -> BackupSet | None:
        """Return the cluster's set in one of the states that was taken last."""
        return next((found for found in reversed(list(self.sets(cluster))) if found.state in states), None)

    def record(self, found: BackupSet, record: Verification) -> str:
        """
        Sign a verification and store it with its set; return the object's name.

        A set whose manifest is not believed gets none: there is nothing that a record could be about.
        """
        if found.manifest is None:
            return ""
        level = record.levels[-1] if record.levels else "none"
        name = naming.verification_name(found.cluster, found.backup_id, record.at, level)
        body = record.model_copy(update={"manifest_sha256": found.manifest_sha256})
        self.records.write(VERIFICATION, name, found.cluster, found.backup_id, body, record.at)
        return name

    def record_rehearsal(self, found: BackupSet, rehearsal: Rehearsal) -> None:
        """Sign a rehearsal and store it with its set."""
        name = naming.rehearsal_name(found.cluster, found.backup_id, rehearsal.at)
        body = rehearsal.model_copy(update={"manifest_sha256": found.manifest_sha256})
        self.records.write(REHEARSAL, name, found.cluster, found.backup_id, body, rehearsal.at)

    def _load(self, cluster: str, identifier: str, items: Sequence[StoredObject]) -> BackupSet:
        prefix = naming.set_prefix(cluster, identifier)
        by_name = {item.name: item for item in items}
        try:
            data = read(self.store, prefix + naming.MANIFEST)
            signature = read(self.store, prefix + naming.SIGNATURE) if prefix + naming.SIGNATURE in by_name else b""
        except ObjectDamaged as err:
            return BackupSet(cluster, identifier, None, b"", b"", doubt=Doubt("bad", str(err)))
        manifest, doubt = self._judge(cluster, identifier, data, signature, by_name[prefix + naming.MANIFEST])
        if manifest is None:
            return BackupSet(cluster, identifier, None, data, signature, doubt=doubt)
        verifications = [item for item in items if item.name.startswith(f"{prefix}verification/")]
        records, refused = self.records.read_all(VERIFICATION, verifications, cluster, identifier)
        digest = hashlib.sha256(data).hexdigest()
        rehearsals = [item for item in items if item.name.startswith(f"{prefix}rehearsal/")]
        rehearsal, not_rehearsed = self._last_rehearsal(rehearsals, cluster, identifier, digest)
        return BackupSet(
            cluster,
            identifier,
            manifest,
            data,
            signature,
            records=tuple(record for record in records if record.body.manifest_sha256 == digest),
            refused=(
                *refused,
                *not_rehearsed,
                *(_of_another_manifest(record) for record in records if record.body.manifest_sha256 != digest),
            ),
            missing=tuple(_missing(prefix, manifest, by_name)),
            rehearsal=rehearsal,
        )

    def _last_rehearsal(
        self, items: Sequence[StoredObject], cluster: str, identifier: str, digest: str
    ) -> tuple[Signed[Rehearsal] | None, list[Refused]]:
        """Return the newest rehearsal that is believed; older ones are not opened."""
        refused: list[Refused] = []
        for item in sorted(items, key=lambda item: item.updated_at, reverse=True):
            found, not_believed = self.records.read_all(REHEARSAL, [item], cluster, identifier)
            refused += not_believed
            if found and found[0].body.manifest_sha256 == digest:
                return found[0], refused
        return None, refused

    def _judge(
        self, cluster: str, identifier: str, data: bytes, signature: bytes, stored: StoredObject
    ) -> tuple[Manifest | None, Doubt | None]:
        """Return the manifest, or why it is not believed."""
        if not signature:
            return None, Doubt("unsigned", f"{stored.name} has no signature. Do not restore from this set.")
        try:
            check_signature(stored.name, data, signature, self.trust["backup"])
            manifest = parse_manifest(stored.name, data)
        except SignatureInvalid as err:
            return None, Doubt("foreign", str(err))
        except ObjectDamaged as err:
            return None, Doubt("bad", str(err))
        if (manifest.cluster, manifest.backup_id) != (cluster, identifier):
            origin = f"{manifest.cluster}/{manifest.backup_id}"
            return None, Doubt(
                "moved", f"{stored.name} is the manifest of {origin}: the set was moved here. Look for it as {origin}."
            )
        if manifest.taken_at > datetime.now(UTC) + CLOCK_SKEW:
            when = f"{manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
            return None, Doubt(
                "future",
                f"{stored.name} says that it was taken at {when}, which is in the future. Check the clocks of workers and store.",
            )
        return manifest, None


def _has_manifest(cluster: str, identifier: str, items: Sequence[StoredObject]) -> bool:
    name = naming.set_prefix(cluster, identifier) + naming.MANIFEST
    return any(item.name == name for item in items)


def _missing(prefix: str, manifest: Manifest, by_name: Mapping[str, StoredObject]) -> Iterator[str]:
    for artifact in manifest.artifacts:
        item = by_name.get(prefix + artifact.name)
        if item is None:
            yield f"{artifact.name} is not in the repository"
        elif item.size_bytes != artifact.stored.size_bytes:
            yield f"{artifact.name} has {item.size_bytes} bytes in the repository, the manifest says {artifact.stored.size_bytes}"


def _of_another_manifest(record: Signed[Verification]) -> Refused:
    return Refused(record.name, "moved", f"{record.name} speaks of another manifest. It counts as nothing.")
