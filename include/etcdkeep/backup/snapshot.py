"""Saving a snapshot inside a member's pod, and what the member's own tool says of the file."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.backup.discover import member_address, pod_runner
from etcdkeep.control_plane.disk_space import df_argv, parse_df
from etcdkeep.documents import Document
from etcdkeep.errors import (
    CommandFailed,
    CommandMissing,
    EtcdkeepError,
    MembersUnfit,
    NoSpace,
    NotFound,
    TransientError,
)
from etcdkeep.etcd import etcdctl
from etcdkeep.ports import CommandRunner, KubeApi, StreamLimits
from etcdkeep.sets.manifest import Member, SnapshotFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config.models import Cluster

log = logging.getLogger(__name__)

TRAILER_BYTES = 32
ROOM_FACTOR = 1.1
"""A database grows while it is copied."""


MAY_PASS = (CommandFailed, NotFound)
"""What a member says that is just restarting: etcdctl gets no answer, the pod is not there."""


class SavedSnapshot(Document):
    """A snapshot file in a pod, `path` as the container sees it."""

    pod: str
    path: str
    snapshot: SnapshotFacts


def save_snapshot(
    api: KubeApi, cluster: Cluster, candidates: Sequence[Member], identifier: str, *, task: str, attempt: int
) -> SavedSnapshot:
    """
    Save a snapshot on the first candidate that can.

    :param candidates: Members in order of preference.
    :param task: Who asks, and its try: together they name the file (:func:`~etcdkeep.naming.pod_snapshot`).
    :raises EtcdkeepError: the member's own error where there is one candidate.
    :raises MembersUnfit: when every one of several failed, or the only one was restarting.
    """
    path = naming.pod_snapshot(cluster.control_plane.snapshot_dir, identifier, task, attempt)
    failures: list[tuple[Member, EtcdkeepError]] = []
    for member in candidates:
        try:
            return _save(api, cluster, member, path)
        except (TransientError, NoSpace, *MAY_PASS) as err:
            log.warning("pod %s gave no snapshot: %s", member.pod, err)
            failures.append((member, err))
    if len(failures) == 1 and not isinstance(failures[0][1], MAY_PASS):
        raise failures[0][1]
    reasons = "; ".join(f"{member.pod}: {err}" for member, err in failures)
    raise MembersUnfit(f"cluster {cluster.name!r}: no snapshot from any of {len(failures)} member(s): {reasons}")


def free_bytes(runner: CommandRunner, folder: str, limits: StreamLimits) -> int | None:
    """Return the room in a folder, or None where the image has no ``df`` or it prints something else."""
    try:
        return parse_df(runner.run(df_argv(folder), limits).stdout.decode(errors="replace"))
    except CommandMissing:
        return None


def _save(api: KubeApi, cluster: Cluster, member: Member, path: str) -> SavedSnapshot:
    runner = pod_runner(api, cluster, member.pod)
    limits = StreamLimits(cluster.limits.command_s)
    if cluster.copy_out == "exec":
        _check_cat(runner, cluster, member, limits)
    else:
        member_address(member)  # before anything is written: without it the file could neither be read nor removed
    _check_room(runner, cluster, member, limits)
    timeout_s = cluster.limits.long_work_s(member.db_size_bytes)
    version = etcdctl.parse_version(runner.run(etcdctl.version_argv(cluster.control_plane), limits).stdout)
    log.info(
        "pod %s: saving a snapshot of %d bytes to %s (at most %.0f s)",
        member.pod,
        member.db_size_bytes,
        path,
        timeout_s,
    )
    save = etcdctl.snapshot_save_argv(cluster.control_plane, path, timeout_s)
    status = etcdctl.snapshot_status_argv(cluster.control_plane, path, version)
    try:
        runner.run(save, StreamLimits(timeout_s + cluster.limits.command_s))
        reported = etcdctl.parse_snapshot_status(runner.run(status, StreamLimits(timeout_s)).stdout)
    except CommandFailed as err:
        if "no space left on device" in err.stderr_tail:
            raise NoSpace(
                f"pod {cluster.namespace}/{member.pod}: {path} does not fit: no space left on device. Free room there, or set "
                "control_plane.snapshot_dir to a larger folder of the container."
            ) from err
        raise
    return SavedSnapshot(
        pod=member.pod,
        path=path,
        snapshot=SnapshotFacts(
            member=member.name,
            taken_at=datetime.now(UTC),
            hash=reported.hash,
            revision=reported.revision,
            total_keys=reported.total_keys,
            size_bytes=reported.size_bytes,
            tool=status[0],
            tool_version=version,
        ),
    )


def _check_cat(runner: CommandRunner, cluster: Cluster, member: Member, limits: StreamLimits) -> None:
    """Ask before anything is written: without cat the file could neither be read nor removed."""
    try:
        runner.run(("cat", "/dev/null"), limits)
    except CommandMissing as err:
        raise CommandMissing(
            f"pod {cluster.namespace}/{member.pod}: its image has no cat, so a snapshot cannot be read through exec; none was taken. "
            f"Set `copy_out: node` for cluster {cluster.name!r}: the file is then read over SSH on the pod's node."
        ) from err


def _check_room(runner: CommandRunner, cluster: Cluster, member: Member, limits: StreamLimits) -> None:
    folder = cluster.control_plane.snapshot_dir
    free = free_bytes(runner, folder, limits)
    needed = int(member.db_size_bytes * ROOM_FACTOR)
    if free is None:
        log.info("pod %s: its image has no df; the free space in %s is unknown", member.pod, folder)
    elif free < needed:
        raise NoSpace(
            f"pod {cluster.namespace}/{member.pod}: {folder} has {free} bytes free, the snapshot needs {needed}; none was taken. "
            "Free room there, or set control_plane.snapshot_dir to a larger folder of the container."
        )
