"""The backup set itself, and what holds the cluster meanwhile."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING

from etcdkeep.restore.judge.finding import Finding, final, note, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.circumstances import Circumstances
    from etcdkeep.restore.options import Options
    from etcdkeep.sets.backup_set import BackupSet

OLD = timedelta(days=7)
EXPIRES_SOON = timedelta(days=30)


def judge_set(found: BackupSet, options: Options, known: Circumstances) -> Iterator[Finding]:
    """Yield what is wrong with the backup set, and what else uses the cluster."""
    manifest = found.manifest
    if manifest is None:
        yield final(f"backup {found.name} cannot be trusted ({found.state}): {found.problem}")
        return
    if found.state == "bad":
        yield final(f"backup {found.name} is bad: {'; '.join(found.problems)}")
    elif found.state == "unverified":
        reached = ", ".join(found.levels) or "none"
        yield problem(f"backup {found.name} was never completely verified (levels reached: {reached})")
    elif "drill" not in found.levels:
        yield warning(f"no etcd was ever started from backup {found.name} (no drill)")
    age = known.now - manifest.taken_at
    words = f"the backup is {_words(age)} old: everything written since {manifest.taken_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC will be lost"
    yield warning(words) if age > OLD else note(words)
    yield from (warning(f"when the backup was taken: {each}") for each in manifest.notes)
    yield from _certificates(options, known)
    if known.sealed:
        yield final(f"backup {found.name} cannot be opened here: {known.sealed}", "unasked")
    if known.locked_by:
        words = f"cluster {manifest.cluster} is locked by restore {known.locked_by!r}, which did not finish"
        yield problem(f"{words}. Clear its task `rollback`. If it was ended by hand, override this")
    if known.running_backup:
        yield problem(f"backup run {known.running_backup} of this cluster is running. Wait until it ends, or stop it")


def _certificates(options: Options, known: Circumstances) -> Iterator[Finding]:
    if "pki" not in options.what or known.expires_at is None:
        return
    when = f"{known.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if known.expires_at <= known.now:
        yield problem(
            f"certificates in the backup have expired ({when}); restore etcd alone, or renew them right after the restore"
        )
    elif known.expires_at - known.now < EXPIRES_SOON:
        yield warning(f"certificates in the backup expire soon ({when})")


def _words(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    if hours < 2:
        return f"{age.total_seconds() // 60:.0f} min"
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
