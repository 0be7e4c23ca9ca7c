"""One backup as a page shows it: its manifest, what each verification proved, its artifacts, and how to open it with stock tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from shlex import quote
from typing import TYPE_CHECKING

from etcdkeep.config.copies import scheme
from etcdkeep.overview.copies import SetCopy, set_copy
from etcdkeep.plain_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etcdkeep.config.models import Cluster
    from etcdkeep.overview.copies import CopyReading
    from etcdkeep.retention.plan import Verdict
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Manifest
    from etcdkeep.sets.results import Verification

PROVES: Mapping[str, str] = {
    "stored": "the signature is ours, and the bytes in the repository are those of the manifest",
    "sealed": "every artifact opens to the recorded plaintext",
    "etcd": "every page and record of the snapshot is sound, and is what the member reported",
    "pki": "required files, certificate chains and key pairs are complete",
    "drill": "a real etcd was started from it and served every key",
}


@dataclass(frozen=True)
class SetRow:
    """
    A backup in the timeline.

    :param state: One word; `standing` is the same in words, such as "good, not restorable".
    :param believed: Whether its manifest is signed by a trusted key. Of one that is not, nothing but its name is shown.
    :param why_kept: What keeps it, or why it is removed; empty where the cluster has no retention.
    :param kept: None where the cluster has no retention.
    :param kept_until: The day on which the rules would let it go, if every scheduled backup comes out good; None for one that
        stays longer than :data:`etcdkeep.overview.cluster.LOOK_AHEAD_DAYS`.
    :param copies: What each configured copy holds of it.
    """

    backup_id: str
    taken_at: datetime
    state: str
    standing: str
    believed: bool
    levels: tuple[str, ...]
    problems: tuple[str, ...] = ()
    revision: int | None = None
    database_bytes: int | None = None
    stored_bytes: int | None = None
    restorable: str | None = None
    by_hand: bool = False
    reason: str = ""
    pinned: str | None = None
    locked_until: datetime | None = None
    in_use: str | None = None
    kept: bool | None = None
    why_kept: tuple[str, ...] = ()
    kept_until: datetime | None = None
    manifest_sha256: str = ""
    copies: tuple[SetCopy, ...] = ()


@dataclass(frozen=True)
class ArtifactRow:
    """One sealed file with its sizes and digests."""

    name: str
    kind: str
    node: str
    plain_bytes: int
    plain_sha256: str
    stored_bytes: int
    stored_sha256: str
    recipients: tuple[str, ...]


@dataclass(frozen=True)
class CheckRow:
    """
    One verification or drill.

    :param drill: The etcd and tool of a drill; empty for a verification.
    """

    at: datetime
    ok: bool
    complete: bool
    levels: tuple[str, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: Mapping[str, float]
    drill: str = ""
    restore_s: float | None = None


@dataclass(frozen=True)
class MemberRow:
    """One etcd member as it was when the backup was taken."""

    name: str
    node: str
    role: str
    etcd_version: str
    database_bytes: int
    revision: int
    problem: str


@dataclass(frozen=True)
class SetView:
    """
    One backup.

    :param doubt: Why its manifest is not believed; then most fields are empty.
    :param proved: Each level passed, with what it proves.
    :param refused: Records beside it that are not believed, one sentence each.
    :param unseal: The command that opens it with etcdkeep; `stock` those that need stock tools only.
    """

    row: SetRow
    cluster: str
    repository: str
    doubt: str
    facts: Mapping[str, str]
    notes: tuple[str, ...]
    manifest_sha256: str
    signing_key: str
    proved: Mapping[str, str]
    checks: tuple[CheckRow, ...]
    rehearsal: tuple[str, ...]
    artifacts: tuple[ArtifactRow, ...]
    members: tuple[MemberRow, ...]
    refused: tuple[str, ...]
    unseal: str
    stock: str


def with_copies(row: SetRow, copies: Iterable[CopyReading]) -> SetRow:
    """Return a backup's line with what each copy holds of it."""
    return replace(row, copies=tuple(set_copy(row.backup_id, row.manifest_sha256, each) for each in copies))


def set_row(found: BackupSet, now: datetime, verdict: Verdict | None = None, goes: datetime | None = None) -> SetRow:
    """Return a backup's line, with what retention says of it."""
    manifest = found.manifest
    pinned, in_use = found.pinned(now), found.in_use(now)
    facts = verdict.found if verdict else None
    return SetRow(
        backup_id=found.backup_id,
        taken_at=found.taken_at,
        state=found.state,
        standing=found.standing,
        believed=manifest is not None,
        levels=found.levels,
        problems=tuple(map(one_line, found.problems)),
        revision=manifest.revision if manifest else None,
        database_bytes=manifest.snapshot.size_bytes if manifest else None,
        stored_bytes=manifest.stored_bytes if manifest else None,
        restorable=found.restorable,
        by_hand=bool(facts and facts.by_hand),
        reason=one_line(manifest.run.reason) if manifest else "",
        pinned=None if pinned is None else one_line(pinned),
        locked_until=facts.locked_until if facts else found.locked_until,
        in_use=one_line(facts.in_use) if facts and facts.in_use else one_line(in_use) if in_use else None,
        kept=verdict.keep if verdict else None,
        why_kept=tuple(map(one_line, verdict.reasons)) if verdict else (),
        kept_until=goes,
        manifest_sha256=found.manifest_sha256 if manifest else "",
    )


def check_row(record: Verification) -> CheckRow:
    """Return what one verification or drill found."""
    drill = record.drill
    return CheckRow(
        at=record.at,
        ok=record.ok,
        complete=record.complete,
        levels=record.levels,
        problems=tuple(map(one_line, record.problems)),
        warnings=tuple(map(one_line, record.warnings)),
        seconds={one_line(phase): seconds for phase, seconds in record.seconds.items()},
        drill=one_line(f"etcd {drill.etcd_version}, {drill.tool}") if drill else "",
        restore_s=drill.restore_s if drill else None,
    )


def member_rows(manifest: Manifest | None) -> tuple[MemberRow, ...]:
    """Return the members that a backup was taken of."""
    return tuple(
        MemberRow(
            one_line(each.name),
            one_line(each.node),
            "leader" if each.leader else "learner" if each.learner else "follower",
            one_line(each.etcd_version),
            each.db_size_bytes,
            each.revision,
            one_line(each.problem or ""),
        )
        for each in (manifest.members if manifest else ())
    )


def set_view(found: BackupSet, cluster: Cluster, row: SetRow) -> SetView:
    """Return all that a page shows of a backup."""
    manifest = found.manifest
    rehearsal = found.rehearsal.body if found.rehearsal else None
    return SetView(
        row=row,
        cluster=found.cluster,
        repository=one_line(cluster.repository),
        doubt=one_line(found.doubt.sentence) if found.doubt else "",
        facts=_facts(manifest, cluster) if manifest else {},
        notes=tuple(map(one_line, manifest.notes)) if manifest else (),
        manifest_sha256=found.manifest_sha256 if manifest else "",
        signing_key=one_line(manifest.signing_key) if manifest else "",
        proved={level: PROVES[level] for level in found.levels},
        checks=tuple(check_row(each) for each in reversed(found.verifications)),
        rehearsal=tuple(map(one_line, (*rehearsal.reasons, *rehearsal.warnings))) if rehearsal else (),
        artifacts=tuple(_artifacts(manifest)),
        members=member_rows(manifest),
        refused=tuple(one_line(each.sentence) for each in found.refused),
        unseal=f"python -m etcdkeep unseal {found.name} --to /dev/shm/{found.backup_id}",
        stock=stock_commands(found, cluster) if manifest else "",
    )


def stock_commands(found: BackupSet, cluster: Cluster) -> str:
    """Return the commands of docs/open-a-backup.md for this backup: fetch, check the signature, open, check the plaintext."""
    folder = f"{cluster.repository.rstrip('/')}/{found.name}"
    fetch = {
        "gs": f"gcloud storage cp {quote(folder + '/*')} .",
        "s3": f"aws s3 cp --recursive {quote(folder)} .",
    }.get(scheme(cluster.repository), f"cp {quote(folder.removeprefix('file://'))}/*.* .")
    key = found.manifest.signing_key if found.manifest else ""
    return "\n".join(
        (
            f"umask 077; mkdir /dev/shm/{found.backup_id}; cd /dev/shm/{found.backup_id}",
            fetch,
            f"PUBLIC_KEY={quote(one_line(key))}   # as in clusters.yaml, signing.public_keys",
            r"(printf '\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00'; echo " + '"$PUBLIC_KEY" | base64 -d) | openssl pkey -pubin -inform DER -out signing.pem',
            "openssl pkeyutl -verify -pubin -inkey signing.pem -rawin -in manifest.json -sigfile manifest.json.sig",
            """jq -r '.artifacts[] | "\\(.stored.sha256)  \\(.name)"' manifest.json | sha256sum -c""",
            'for f in *.age; do age -d -i ~/age-identity.txt "$f" | zstd -dq > "${f%.zst.age}"; done',
            """jq -r '.artifacts[] | "\\(.plaintext.sha256)  \\(.name | rtrimstr(".zst.age"))"' manifest.json | sha256sum -c""",
            "etcdutl snapshot status etcd.db",
        )
    )  # fmt: skip


def _facts(manifest: Manifest, cluster: Cluster) -> Mapping[str, str]:
    """Return what the manifest says, by a word for people. The API of a control plane in pods is the admin cluster's."""
    identity, snapshot = manifest.identity, manifest.snapshot
    uids = {"UID of kube-system": identity.kube_system_uid}
    if not cluster.control_plane.has_nodes:
        uids = {f"UID of namespace {cluster.namespace}": identity.namespace_uid or "-"} | {
            "UID of the admin cluster's kube-system": identity.kube_system_uid
        }
    versions = ", ".join(f"{key} {value}" for key, value in manifest.versions.items())
    facts = {
        "Run": f"{manifest.run.dag_id}, {manifest.run.run_id}",
        "Reason": manifest.run.reason or "-",
        "Profile": manifest.profile,
        "Versions": versions or "-",
        "Member that was saved": f"{snapshot.member}, by {snapshot.tool} {snapshot.tool_version}",
        "etcd cluster id": identity.etcd_cluster_id,
        **uids,
        "SHA-256 of the cluster CA": identity.ca_sha256 or "-",
    }
    return {key: one_line(value) for key, value in facts.items()}


def _artifacts(manifest: Manifest | None) -> list[ArtifactRow]:
    return [
        ArtifactRow(
            one_line(each.name),
            each.kind,
            one_line(each.node or ""),
            each.plaintext.size_bytes,
            one_line(each.plaintext.sha256),
            each.stored.size_bytes,
            one_line(each.stored.sha256),
            tuple(map(one_line, each.recipients)),
        )
        for each in (manifest.artifacts if manifest else ())
    ]
