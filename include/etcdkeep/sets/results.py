"""What verifications, drills and rehearsals say of a set: signed records beside it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from etcdkeep.documents import Document
from etcdkeep.records import Kind
from etcdkeep.sets.manifest import AboutSet, Plaintext, Stored

Level = Literal["stored", "sealed", "etcd", "pki", "drill"]


class Index(Document):
    """
    The sealed list of what is in a set's snapshot; no artifact: the set is whole without it.

    :param recipients: Whom it is sealed to; empty in records of before, which means the recipients of the snapshot.
    """

    plaintext: Plaintext
    stored: Stored
    recipients: tuple[str, ...] = ()


class DrillResult(Document):
    """
    What a real etcd was started with.

    :param restore_s: Seconds from the sealed snapshot to an etcd that serves it, on the machine of the drill: an estimate for a restore.
    """

    etcd_version: str
    tool: str
    restore_s: float | None = None


class Verification(AboutSet):
    """
    What one verification or drill found.

    :param levels: The levels passed, in order.
    :param complete: Whether every level was tried that this set can have; False where no age identity was at hand.
    :param problems: What is wrong with the set; empty when nothing is.
    :param index: The index that was found right or made; None where the snapshot was not opened or is not sound.
    :param drill: For a drill only.
    :param expires_at: When the first certificate in use expires; None where none was looked at.
    :param expires_first: Which file that is.
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
    drill: DrillResult | None = None
    expires_at: datetime | None = None
    expires_first: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.problems


Restorable = Literal["yes", "no", "unknown"]


class Rehearsal(AboutSet):
    """
    What a restore's preflight said of a set on the night it was made, against the live site.

    :param restorable: ``unknown`` where something could not be asked from there.
    :param reasons: Why it is not ``yes``, one sentence each.
    :param seconds: How long it took.
    """

    at: datetime
    restorable: Restorable
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


class Copied(AboutSet):
    """
    That a set of another repository was copied here, and that every byte of it was read back.

    :param source: Where it was copied from.
    :param by: Who, or which run.
    :param seconds: How long copying and reading back took.
    """

    at: datetime
    source: str
    by: str
    seconds: float = 0.0


VERIFICATION = Kind("verification", "verify", Verification)
"""Of a verification or a drill."""
REHEARSAL = Kind("rehearsal", "verify", Rehearsal)
COPIED = Kind("copy", "verify", Copied)
"""Beside a set in a copy, never in the repository that it was made in."""
