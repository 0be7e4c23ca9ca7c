"""
The etcdctl and etcdutl calls that a backup makes, and what they print.

Argv only: official etcd images have no shell. Output shapes are those of etcdctl 3.4 to 3.6 with ``-w json``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import TransientError

if TYPE_CHECKING:
    from etcdkeep.config.profiles import ControlPlane

UTIL_SINCE = (3, 6)
"""From here on ``snapshot status`` and ``snapshot restore`` are etcdutl's alone."""


LIVE_KEYS_SINCE = (3, 6)
"""From here on ``totalKey`` of ``snapshot status`` counts live keys, before it every record of every bucket."""


@dataclass(frozen=True)
class EndpointStatus:
    """One member's answer to ``endpoint status``. Ids are 16 hex digits, sizes bytes."""

    cluster_id: str
    member_id: str
    leader: bool
    learner: bool
    version: str
    revision: int
    raft_index: int
    db_size_bytes: int
    errors: tuple[str, ...]


@dataclass(frozen=True)
class ListedMember:
    """
    One entry of ``member list``.

    :param member_id: 16 hex digits.
    :param name: Empty for a member that never started.
    """

    member_id: str
    name: str
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    learner: bool = False


@dataclass(frozen=True)
class HashKV:
    """
    One member's HashKV.

    :param compact_revision: Hashes compare only where this is the same on both members.
    """

    hash: int
    compact_revision: int


@dataclass(frozen=True)
class SnapshotStatus:
    """What ``snapshot status`` prints; `total_keys` by the rule of the tool's version, `size_bytes` without the trailer."""

    hash: int
    revision: int
    total_keys: int
    size_bytes: int


def etcdctl_argv(control_plane: ControlPlane, *command: str, timeout_s: float) -> tuple[str, ...]:
    """Return the call of one etcdctl command against the pod's own member."""
    tls = control_plane.tls
    return (
        *control_plane.etcdctl,
        f"--endpoints={control_plane.endpoint}",
        f"--cacert={tls.ca}",
        f"--cert={tls.cert}",
        f"--key={tls.key}",
        f"--command-timeout={math.ceil(timeout_s)}s",
        *command,
    )


def endpoint_status_argv(control_plane: ControlPlane, timeout_s: float) -> tuple[str, ...]:
    """Return the call that asks a member for its state."""
    return etcdctl_argv(control_plane, "endpoint", "status", "-w", "json", timeout_s=timeout_s)


def endpoint_health_argv(control_plane: ControlPlane, timeout_s: float) -> tuple[str, ...]:
    """Return the call that ends with 0 when the member can commit a proposal."""
    return etcdctl_argv(control_plane, "endpoint", "health", timeout_s=timeout_s)


def hash_kv_argv(control_plane: ControlPlane, revision: int, timeout_s: float) -> tuple[str, ...]:
    """Return the call that hashes a member's keys up to `revision`."""
    return etcdctl_argv(control_plane, "endpoint", "hashkv", f"--rev={revision}", "-w", "json", timeout_s=timeout_s)


def member_list_argv(control_plane: ControlPlane, timeout_s: float) -> tuple[str, ...]:
    """Return the call that lists the members that the cluster should have."""
    return etcdctl_argv(control_plane, "member", "list", "-w", "json", timeout_s=timeout_s)


def get_key_argv(control_plane: ControlPlane, key: str, timeout_s: float) -> tuple[str, ...]:
    """Return the call that prints `key` when etcd holds it, and nothing when it does not."""
    return etcdctl_argv(control_plane, "get", key, "--keys-only", timeout_s=timeout_s)


def snapshot_save_argv(control_plane: ControlPlane, path: str, timeout_s: float) -> tuple[str, ...]:
    """Return the call that saves one snapshot; without ``--command-timeout`` it would wait for ever (etcd #10298)."""
    return etcdctl_argv(control_plane, "snapshot", "save", path, timeout_s=timeout_s)


def version_argv(control_plane: ControlPlane) -> tuple[str, ...]:
    """Return the call that prints etcdctl's version."""
    return (*control_plane.etcdctl, "version")


def snapshot_status_argv(control_plane: ControlPlane, path: str, version: str) -> tuple[str, ...]:
    """
    Return the call that describes a snapshot file.

    :param version: etcdctl's version, which tells the tool that can do it.
    """
    tool = control_plane.etcdutl if version_tuple(version) >= UTIL_SINCE else control_plane.etcdctl
    return (*tool, "snapshot", "status", path, "-w", "json")


def version_tuple(version: str) -> tuple[int, int]:
    """Return major and minor of such as ``3.5.16``."""
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if not match:
        raise TransientError(f"expected a version such as 3.5.16, found {version!r}.")
    return int(match[1]), int(match[2])


def parse_version(output: bytes) -> str:
    """Return the version from ``etcdctl version``."""
    match = re.search(rb"etcdctl version: (\S+)", output)
    if not match:
        raise _unexpected("etcdctl version", output)
    return match[1].decode()


def parse_endpoint_status(output: bytes) -> EndpointStatus:
    """Read ``endpoint status -w json`` of one endpoint."""
    try:
        status = _single(output)["Status"]
        header = status["header"]
        return EndpointStatus(
            cluster_id=f"{header['cluster_id']:016x}",
            member_id=f"{header['member_id']:016x}",
            leader=status.get("leader") == header["member_id"],
            learner=bool(status.get("isLearner", False)),
            version=status["version"],
            revision=header.get("revision", 0),
            raft_index=status.get("raftIndex", 0),
            db_size_bytes=status.get("dbSize", 0),
            errors=tuple(status.get("errors") or ()),
        )
    except (KeyError, TypeError, ValueError) as err:
        raise _unexpected("endpoint status", output) from err


def parse_hash_kv(output: bytes) -> HashKV:
    """Read ``endpoint hashkv -w json`` of one endpoint."""
    try:
        answer = _single(output)["HashKV"]
        return HashKV(hash=answer["hash"], compact_revision=answer.get("compact_revision", 0))
    except (KeyError, TypeError, ValueError) as err:
        raise _unexpected("endpoint hashkv", output) from err


def parse_member_list(output: bytes) -> tuple[ListedMember, ...]:
    """Read ``member list -w json``."""
    try:
        return tuple(
            ListedMember(
                member_id=f"{member['ID']:016x}",
                name=member.get("name", ""),
                peer_urls=tuple(member.get("peerURLs") or ()),
                client_urls=tuple(member.get("clientURLs") or ()),
                learner=bool(member.get("isLearner", False)),
            )
            for member in json.loads(output)["members"]
        )
    except (KeyError, TypeError, ValueError) as err:
        raise _unexpected("member list", output) from err


def parse_snapshot_status(output: bytes) -> SnapshotStatus:
    """Read ``snapshot status -w json``."""
    try:
        answer = json.loads(output)
        return SnapshotStatus(answer["hash"], answer["revision"], answer["totalKey"], answer["totalSize"])
    except (KeyError, TypeError, ValueError) as err:
        raise _unexpected("snapshot status", output) from err


def _single(output: bytes) -> dict[str, Any]:
    answers = json.loads(output)
    if len(answers) != 1:
        raise ValueError(f"{len(answers)} endpoints answered, expected 1")
    answer: dict[str, Any] = answers[0]
    return answer


def _unexpected(command: str, output: bytes) -> TransientError:
    return TransientError(f"{command}: expected the JSON of etcdctl 3.4 to 3.6, found {output[:200]!r}.")
