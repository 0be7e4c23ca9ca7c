"""
The backup sets of a repository: what is published, and what later verifications said of it.

The catalogue is the repository itself: a set is there when its manifest is there. Nothing else is kept.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from etcdkeep import naming
from etcdkeep.documents import read
from etcdkeep.errors import NotFound, ObjectDamaged, PermanentError, SetNameInvalid, SignatureInvalid
from etcdkeep.records import CLOCK_SKEW, Kind, Records, Refused, Signed, Trust
from etcdkeep.sealing.signature import check_signature
from etcdkeep.sets.backup_set import GOOD, BackupSet, Doubt
from etcdkeep.sets.manifest import AboutSet, Manifest, parse_manifest
from etcdkeep.sets.pins import IN_USE, PIN, InUse, Pin
from etcdkeep.sets.results import (
    COPIED,
    REHEARSAL,
    VERIFICATION,
    Copied,
    Rehearsal,
    Verification,
)
from etcdkeep.side_by_side import AT_ONCE, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from etcdkeep.ports import ObjectStore, StoredObject
    from etcdkeep.records import Purpose
    from etcdkeep.sets.backup_set import State

About = TypeVar("About", bound=AboutSet)
MAX_MANIFEST_BYTES = 4 * 2**20
"""A hundred times what ours have: many sets are read at once, and somebody may have written larger ones."""
MAX_SIGNATURE_BYTES = 4096


@dataclass(frozen=True)
class ListedSet:
    """
    A published set, as a listing shows it.

    :param items: Its objects.
    :param stored_at: When the store had its manifest.
    """

    cluster: str
    backup_id: str
    items: Sequence[StoredObject]
    stored_at: datetime

    def has(self, folder: str, ending: str = "") -> bool:
        """Say whether something with such a name lies in a folder beside it; what that is, only its signature says."""
        start = f"{naming.set_prefix(self.cluster, self.backup_id)}{folder}/"
        return any(item.name.startswith(start) and item.name.endswith(ending) for item in self.items)

    @property
    def fingerprint(self) -> bytes:
        """Changes when an object of the set is added, removed, or changes as far as the store tells."""
        return fingerprint(self.items)

    @property
    def not_after(self) -> datetime:
        """No later was its data taken; the id's time counts where the manifest is not believed, or a file's time was set."""
        return max(self.stored_at, naming.backup_time(self.backup_id)) + CLOCK_SKEW


class Repository:
    """
    Sets in one store.

    :param trust: Which keys may sign what; a set of another signer is not believed.
    :param signer: Gives private keys, where records are written.
    :param others: URLs of the other repositories of the same clusters. A record that was signed for one of them counts here
        for a set that was copied here since, and for nothing else.
    """

    def __init__(
        self,
        store: ObjectStore,
        trust: Trust,
        signer: Callable[[Purpose], Ed25519PrivateKey] | None = None,
        others: Iterable[str] = (),
    ) -> None:
        self.store = store
        self.trust = trust
        self.records = Records(store, trust, signer, others=others)

    def sets(self, cluster: str, items: Iterable[StoredObject] | None = None) -> list[BackupSet]:
        """
        Return a cluster's published sets, oldest first by when they were taken. Half-published ones do not show.

        :param items: The cluster's objects in name order, where they are listed already.
        """
        return sorted(self.each_set(cluster, items), key=attrgetter("order"))

    def each_set(self, cluster: str, items: Iterable[StoredObject] | None = None) -> Iterator[BackupSet]:
        """Yield what :meth:`sets` returns in order of the ids, each as it is read: few are in memory at once."""
        return self.open_all(cluster, self.listed(cluster, items))

    def get(self, cluster: str, identifier: str) -> BackupSet:
        """
        Return one set.

        :raises NotFound: when it was never published.
        :raises SetNameInvalid: when `identifier` is not a backup id.
        """
        if not naming.is_backup_id(identifier):
            raise SetNameInvalid(f"{identifier!r} is not a backup id; see `python -m etcdkeep list {cluster}`.")
        listed = next(self.listed(cluster, self.store.list(naming.set_prefix(cluster, identifier))), None)
        if listed is None:
            raise NotFound(
                f"no backup {cluster}/{identifier} in {self.store.url}; see `python -m etcdkeep list {cluster}`."
            )
        return self._load(cluster, listed)

    def newest(self, cluster: str, states: Collection[State] = GOOD) -> BackupSet | None:
        """Return the cluster's set in one of the states that was taken last; none whose id is of the future."""
        latest = datetime.now(UTC) + CLOCK_SKEW
        for found in self.from_newest(cluster):
            if found.state in states and found.taken_at <= latest:
                return found
        return None

    def from_newest(self, cluster: str, items: Iterable[StoredObject] | None = None) -> Iterator[BackupSet]:
        """
        Yield what :meth:`sets` returns, the one that was taken last first; of many, few more are opened than are asked for.

        A set is not older than its data. So when a set was taken later than the others were stored, none of these comes before
        it: they need not be opened to know that.
        """
        waiting = sorted(self.listed(cluster, items), key=lambda each: each.not_after, reverse=True)
        opened: list[BackupSet] = []
        at_once = 1
        while waiting or opened:
            while waiting and (not opened or waiting[0].not_after >= opened[-1].taken_at):
                batch, waiting = waiting[:at_once], waiting[at_once:]
                for found in self.open_all(cluster, batch):
                    insort(opened, found, key=attrgetter("order"))
                at_once = min(2 * at_once, AT_ONCE)
            if opened:
                yield opened.pop()

    def open_all(self, cluster: str, listed: Iterable[ListedSet]) -> Iterator[BackupSet]:
        """Yield listed sets in their order, several read at once; one that was deleted since is left out."""

        def load(each: ListedSet) -> BackupSet | None:
            try:
                return self._load(cluster, each)
            except NotFound:
                return None  # deleted since it was listed

        return (found for found in side_by_side(load, listed) if found)

    def listed(self, cluster: str, items: Iterable[StoredObject] | None) -> Iterator[ListedSet]:
        """Yield the published sets among the cluster's objects, which are in name order."""
        found = self.store.list(f"{cluster}/") if items is None else items
        for identifier, group in groupby(found, key=lambda item: item.name.split("/")[1]):
            if naming.is_backup_id(identifier):
                objects = list(group)
                name = naming.set_prefix(cluster, identifier) + naming.MANIFEST
                if manifest := next((item for item in objects if item.name == name), None):
                    yield ListedSet(cluster, identifier, objects, manifest.updated_at)

    def record(self, found: BackupSet, record: Verification) -> str:
        """
        Sign a verification and store it with its set; return the object's name.

        A set whose manifest is not believed gets none: there is nothing that a record could be about.
        """
        if found.manifest is None:
            return ""
        level = record.levels[-1] if record.levels else "none"
        name = naming.verification_name(found.cluster, found.backup_id, record.at, level)
        self._write(VERIFICATION, name, found, record, record.at)
        return name

    def record_rehearsal(self, found: BackupSet, rehearsal: Rehearsal) -> None:
        """Sign a rehearsal and store it with its set."""
        name = naming.rehearsal_name(found.cluster, found.backup_id, rehearsal.at)
        self._write(REHEARSAL, name, found, rehearsal, rehearsal.at)

    def record_pin(self, found: BackupSet, pin: Pin) -> None:
        """Sign a pin, or the end of one, and store it with its set."""
        at = self.records.now()
        self._write(PIN, naming.beside_set(found.cluster, found.backup_id, "pins", at), found, pin, at)

    def record_copy(self, found: BackupSet, copied: Copied) -> None:
        """Sign that a set was copied here and read back, and store it with the set."""
        self._write(
            COPIED, naming.beside_set(found.cluster, found.backup_id, "copied", copied.at), found, copied, copied.at
        )

    def record_use(self, found: BackupSet, use: InUse) -> str:
        """Sign that something uses a set, and return the object's name: delete it when that is over."""
        at = self.records.now()
        name = naming.beside_set(found.cluster, found.backup_id, "in-use", at)
        self._write(IN_USE, name, found, use, at)
        return name

    def _write(self, kind: Kind[About], name: str, found: BackupSet, body: About, at: datetime) -> None:
        about = body.model_copy(update={"manifest_sha256": found.manifest_sha256})
        self.records.write(kind, name, found.cluster, found.backup_id, about, at)

    def _load(self, cluster: str, listed: ListedSet) -> BackupSet:
        identifier, items = listed.backup_id, listed.items
        prefix = naming.set_prefix(cluster, identifier)
        by_name = {item.name: item for item in items}
        if (size_bytes := by_name[prefix + naming.MANIFEST].size_bytes) > MAX_MANIFEST_BYTES:
            sentence = f"{prefix}{naming.MANIFEST} has {size_bytes} bytes; no manifest has more than {MAX_MANIFEST_BYTES}. It was not read. Check who wrote it, then delete it."
            return _unreadable(cluster, identifier, sentence)
        try:
            data = read(self.store, prefix + naming.MANIFEST)
            signature = self._signature(by_name.get(prefix + naming.SIGNATURE))
        except NotFound:
            raise
        except PermanentError as err:  # of one object: it must not hide the others
            return _unreadable(
                cluster, identifier, f"{err} Backup {cluster}/{identifier} is ignored while it cannot be read."
            )
        manifest, doubt = self._judge(cluster, identifier, data, signature, by_name[prefix + naming.MANIFEST])
        if manifest is None:
            return BackupSet(cluster, identifier, None, data, b"", doubt=doubt)
        digest = hashlib.sha256(data).hexdigest()
        refused: list[Refused] = []

        def beside(
            kind: Kind[About], folder: str, *, only_last: bool = False, brought: datetime | None = None
        ) -> tuple[Signed[About], ...]:
            listed = [item for item in items if item.name.startswith(f"{prefix}{folder}/")]
            about = (cluster, identifier, digest)
            return tuple(self._beside(kind, listed, about, refused, only_last=only_last, brought=brought))

        copied = next(iter(beside(COPIED, "copied", only_last=True)), None)
        brought = copied.body.at + CLOCK_SKEW if copied else None  # pins follow a copy, whenever they were made
        return BackupSet(
            cluster,
            identifier,
            manifest,
            data,
            signature,
            records=beside(VERIFICATION, "verification", brought=brought),
            rehearsal=next(iter(beside(REHEARSAL, "rehearsal", only_last=True, brought=brought)), None),
            pins=beside(PIN, "pins", brought=datetime.max.replace(tzinfo=UTC) if copied else None),
            uses=beside(IN_USE, "in-use"),
            copied=copied,
            refused=tuple(refused),
            missing=tuple(_missing(prefix, manifest, by_name)),
            locked_until=max((item.locked_until for item in items if item.locked_until), default=None),
        )

    def _beside(
        self,
        kind: Kind[About],
        items: Sequence[StoredObject],
        about: tuple[str, str, str],
        refused: list[Refused],
        *,
        only_last: bool,
        brought: datetime | None,
    ) -> list[Signed[About]]:
        """
        Return the records beside a set that are believed, oldest first by the store's time; the others go to `refused`.

        :param about: Cluster, backup id and SHA-256 of the manifest.
        :param only_last: Open no more than needed to find the newest one.
        :param brought: When those of the repository that the set was copied from were brought here.
        """
        cluster, identifier, digest = about
        believed: list[Signed[About]] = []
        for item in sorted(items, key=lambda item: item.updated_at, reverse=True):
            found, not_believed = self.records.read_all(kind, [item], cluster, identifier, brought=brought)
            of_this = [record for record in found if record.body.manifest_sha256 == digest]
            refused += (*not_believed, *(_of_another_manifest(record) for record in found if record not in of_this))
            believed += of_this
            if believed and only_last:
                break
        return sorted(believed, key=lambda record: record.order)

    def _signature(self, stored: StoredObject | None) -> bytes:
        """
        Return a signature's bytes; none where there is none.

        :raises ObjectDamaged: when the object is too large for one.
        """
        if stored is None:
            return b""
        if stored.size_bytes > MAX_SIGNATURE_BYTES:
            raise ObjectDamaged(
                f"{stored.name} has {stored.size_bytes} bytes; no signature has more than {MAX_SIGNATURE_BYTES}. It was not read. "
                "Check who wrote it, then delete it."
            )
        return read(self.store, stored.name)

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
            return None, Doubt("unreadable", str(err))
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


def _unreadable(cluster: str, identifier: str, sentence: str) -> BackupSet:
    return BackupSet(cluster, identifier, None, b"", b"", doubt=Doubt("unreadable", sentence))


def fingerprint(items: Iterable[StoredObject]) -> bytes:
    """Return what changes when one of the objects does, as far as the store tells: by names, sizes, times, checksums."""
    facts = (f"{each.name} {each.size_bytes} {each.updated_at.timestamp()} {each.crc32c} {each.locked_until} {each.version}" for each in items)  # fmt: skip
    return hashlib.blake2b("\n".join(facts).encode(errors="replace"), digest_size=16).digest()


def _missing(prefix: str, manifest: Manifest, by_name: Mapping[str, StoredObject]) -> Iterator[str]:
    for artifact in manifest.artifacts:
        item = by_name.get(prefix + artifact.name)
        if item is None:
            yield f"{artifact.name} is not in the repository"
        elif item.size_bytes != artifact.stored.size_bytes:
            yield f"{artifact.name} has {item.size_bytes} bytes in the repository, the manifest says {artifact.stored.size_bytes}"


def _of_another_manifest(record: Signed[About]) -> Refused:
    return Refused(record.name, "moved", f"{record.name} is about another manifest. It is ignored.")
