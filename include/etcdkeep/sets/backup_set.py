"""One backup set, as its repository shows it: what is in it, what later verifications said, and so what it is good for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from etcdkeep import naming
from etcdkeep.sets.pins import current_use, pin_reason

if TYPE_CHECKING:
    from datetime import datetime

    from etcdkeep.records import Refused, Signed
    from etcdkeep.sets.manifest import Manifest
    from etcdkeep.sets.pins import InUse, Pin
    from etcdkeep.sets.results import Copied, Index, Level, Rehearsal, Restorable, Verification

Distrust = Literal["unsigned", "foreign", "moved", "future", "unreadable"]
"""
Why a manifest is not believed: it has no signature; the signature is of no trusted key, or of other bytes; it is of another
cluster or id; it was taken in the future; it cannot be read.
"""
State = Literal["good", "unverified", "bad", "unsigned", "foreign", "moved", "future", "unreadable"]
GOOD: tuple[State, ...] = ("good",)
USABLE: tuple[State, ...] = ("good", "unverified", "bad")
"""States of sets whose manifest is believed."""
ANY: tuple[State, ...] = (*USABLE, "unsigned", "foreign", "moved", "future", "unreadable")


class Doubt(NamedTuple):
    """Why a set counts as bad whatever the verifications say."""

    word: Distrust
    sentence: str


@dataclass(frozen=True)
class BackupSet:
    """
    One published set.

    :param manifest: None where it is not believed: `doubt` says why.
    :param signature: Empty where the manifest is not believed.
    :param records: The signed verifications and drills, oldest first by the store's time.
    :param refused: Records that count as nothing.
    :param rehearsal: The last one.
    :param pins: The signed pins and their ends.
    :param uses: What said that it uses the set.
    :param copied: That it was copied here from another repository; None for a set that was made here, or whose copy is not finished.
    :param locked_until: Until when the store refuses to delete some of its objects; None where it does not.
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
    pins: tuple[Signed[Pin], ...] = ()
    uses: tuple[Signed[InUse], ...] = ()
    locked_until: datetime | None = None
    copied: Signed[Copied] | None = None

    @property
    def name(self) -> str:
        """``cluster/backup-id``."""
        return f"{self.cluster}/{self.backup_id}"

    @property
    def taken_at(self) -> datetime:
        """When the data was taken: what orders sets. The id's time where the manifest is not believed."""
        return self.manifest.taken_at if self.manifest else naming.backup_time(self.backup_id)

    @property
    def order(self) -> tuple[datetime, str]:
        """Sorts sets, oldest first."""
        return self.taken_at, self.backup_id

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
    def whole(self) -> bool:
        """
        Whether its bytes are those of the manifest, as far as was seen: nothing is missing, and the last verification found
        them as recorded. What is wrong beyond that is wrong in every copy.
        """
        return not self.doubt and not self.missing and all(record.ok or record.levels for record in self._checks[-1:])

    @property
    def restorable(self) -> Restorable | None:
        """What the last rehearsal said; None where there was none."""
        return self.rehearsal.body.restorable if self.rehearsal else None

    def pinned(self, now: datetime) -> str | None:
        """Return why the set is pinned; None where it is not."""
        return pin_reason(self.manifest, self.pins, now)

    def in_use(self, now: datetime) -> str | None:
        """Return what uses the set; None where nothing does."""
        return current_use(self.uses, now)

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
    def believed(self) -> bool:
        """Whether its manifest is signed by a trusted key, and is its own."""
        return self.manifest is not None

    @property
    def drilled(self) -> bool:
        """Whether its last drill found nothing wrong."""
        return bool(self.drills) and self.drills[-1].ok

    @property
    def restore_took(self) -> tuple[datetime, float] | None:
        """When the last drill measured it, and the seconds from the sealed snapshot to a served etcd."""
        drills = [(each.at, each.drill.restore_s) for each in self.drills if each.drill]
        measured = [(at, seconds) for at, seconds in drills if seconds is not None]
        return max(reversed(measured), key=lambda each: each[0]) if measured and self.believed else None

    @property
    def expiry(self) -> tuple[datetime, str] | None:
        """When its first certificate expires, and which, as the last verification that read them found."""
        return next(((each.expires_at, each.expires_first or "") for each in reversed(self.verifications) if each.expires_at), None)  # fmt: skip

    @property
    def doubted(self) -> str | None:
        """
        A record that is not believed and would keep the set if it were.

        It may have been overwritten, or its key is no longer in the configuration: a person decides, retention does not.
        """
        folders = ("pins/", "in-use/") if self.state == "good" else ("pins/", "in-use/", "verification/")
        prefix = naming.set_prefix(self.cluster, self.backup_id)
        return next((each.name for each in self.refused if each.name.removeprefix(prefix).startswith(folders)), None)

    @property
    def revision(self) -> int | None:
        """Of the data; None where the manifest is not believed, as of the sizes."""
        return self.manifest.revision if self.manifest else None

    @property
    def snapshot_bytes(self) -> int | None:
        """Size of the snapshot, opened."""
        return self.manifest.snapshot.size_bytes if self.manifest else None

    @property
    def database_bytes(self) -> int | None:
        """Size of the file that the quota counts: of the largest member, as it was when the backup was taken."""
        if self.manifest is None:
            return None
        return max(self.manifest.snapshot.size_bytes, *(each.db_size_bytes for each in self.manifest.members), 0)

    @property
    def copied_at(self) -> datetime | None:
        """When it was copied here from another repository and read back."""
        return self.copied.body.at if self.copied else None

    @property
    def _checks(self) -> tuple[Verification, ...]:
        return tuple(record for record in self.verifications if not record.drill)

    @property
    def index(self) -> Index | None:
        """The index of the snapshot, as the last verification that opened it recorded it."""
        return next((record.index for record in reversed(self.verifications) if record.index), None)
