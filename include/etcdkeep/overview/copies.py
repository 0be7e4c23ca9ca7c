"""Which copies hold a backup, and since when each of them was read back: what a copy's own signed records say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from etcdkeep.freshness.copied import is_copy
from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from etcdkeep.sets.backup_set import BackupSet

CopyState = Literal["read back", "not read back", "bad", "differs", "none", "unknown"]


@dataclass(frozen=True)
class HeldSet:
    """
    A backup as a copy holds it.

    :param at: When it was read back there; None where no signed record says that it was.
    """

    state: CopyState
    at: datetime | None
    manifest_sha256: str
    words: str = ""


@dataclass(frozen=True)
class CopyView:
    """What a copy holds of a cluster, by backup id."""

    held: Mapping[str, HeldSet]


@dataclass(frozen=True)
class CopyReading:
    """
    What is known of a copy now.

    :param view: None as long as nothing is known.
    :param problem: Why it cannot be read now; `view` is what was read before.
    """

    repository: str
    view: CopyView | None
    age_s: float | None = None
    problem: str = ""
    reading: bool = False


@dataclass(frozen=True)
class CopyRow:
    """
    A copy.

    :param sets: How many backups it holds that were read back there; None where it was not read.
    :param newest: Backup id of the newest of them.
    :param age_s: How long ago that was read.
    """

    repository: str
    sets: int | None
    newest: str = ""
    age_s: float | None = None
    problem: str = ""
    reading: bool = False


@dataclass(frozen=True)
class SetCopy:
    """
    A backup in a copy.

    :param state: ``read back``; ``not read back`` where no signed record says so; ``bad``; ``differs`` where its manifest is
        another one; ``none``; ``unknown`` where the copy was not read.
    :param at: When it was read back.
    :param words: What is wrong, or why nothing is known.
    """

    repository: str
    state: CopyState
    at: datetime | None = None
    words: str = ""


def copy_view(sets: Iterable[BackupSet]) -> CopyView:
    """Return what a copy holds."""
    return CopyView({each.backup_id: _held(each) for each in sets})


def _held(found: BackupSet) -> HeldSet:
    at, words = found.copied_at, one_line("; ".join(found.problems[:3]))
    if is_copy(found):
        return HeldSet("read back", at, found.manifest_sha256)
    if not found.believed or not found.whole or found.state == "bad":
        return HeldSet("bad", at, found.manifest_sha256, words)
    return HeldSet("not read back", at, found.manifest_sha256)


def copy_row(found: CopyReading) -> CopyRow:
    """Return a copy's line."""
    read = [name for name, held in found.view.held.items() if held.state == "read back"] if found.view else []
    return CopyRow(
        one_line(found.repository),
        len(read) if found.view else None,
        max(read, default=""),
        found.age_s,
        one_line(found.problem),
        found.reading,
    )


def set_copy(backup_id: str, manifest_sha256: str, copy: CopyReading) -> SetCopy:
    """Return what a copy holds of a backup with this manifest."""
    repository = one_line(copy.repository)
    if copy.view is None:
        return SetCopy(repository, "unknown", None, one_line(copy.problem) or "being read")
    held = copy.view.held.get(backup_id)
    words = f"cannot be read now: {one_line(copy.problem)}" if copy.problem else ""
    if held is None:
        return SetCopy(repository, "none", None, words)
    if held.state != "bad" and held.manifest_sha256 != manifest_sha256:
        return SetCopy(repository, "differs", held.at, "its manifest is another one than here")
    return SetCopy(repository, held.state, held.at, "; ".join(filter(None, (held.words, words))))
