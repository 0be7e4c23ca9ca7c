"""
Every name that a run uses, derived from the cluster and the run alone, so that a retry meets its own work again.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache

from etcdkeep.errors import SetNameInvalid

BACKUP_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
ETCD_ARTIFACT = "etcd.db.zst.age"
ACCESS_ARTIFACT = "access.tar.zst.age"
INDEX = "index.json.zst.age"
CONTROL_PLANE = "control-plane"

POD_FILE_SLOTS = 8
"""
A killed worker's etcdctl may still be writing in the pod when the retry starts, so each try has a file of its own.
Tries share slots only past this many, when the earlier one's ``--command-timeout`` has long ended it.
"""


def backup_id(cluster: str, logical_date: datetime, run_id: str) -> str:
    """
    Name the set of one run; sorts by time.

    :param logical_date: The run's time, any zone.
    :return: Such as ``20261123T023000Z-1f0c9a3e``.
    """
    digest = hashlib.sha256(f"{cluster}\0{run_id}".encode()).hexdigest()
    return f"{logical_date.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:8]}"


def restore_id(cluster: str, when: datetime, run_id: str) -> str:
    """
    Name one restore; sorts by time. Its folders on the nodes and in the repository have this name.

    :param when: The run's time, any zone.
    :return: Such as ``restore-20261123T041500Z-1f0c9a3e``.
    """
    return f"restore-{backup_id(cluster, when, run_id)}"


def restores_prefix(cluster: str) -> str:
    """Return the folder of a cluster's restores in the repository."""
    return f"{cluster}/restores/"


LAST_YEAR = 9000
"""Ids of later years are nobody's: adding to their time would fail."""


@lru_cache(8192)  # asked of every object that is listed
def backup_time(backup_id: str) -> datetime:
    """Return the run's time that a backup id begins with."""
    return datetime.strptime(backup_id.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def is_backup_id(text: object) -> bool:
    """Say whether `text` is a backup id, with a time that exists; whatever others handed over."""
    try:
        return isinstance(text, str) and bool(BACKUP_ID.fullmatch(text)) and backup_time(text).year <= LAST_YEAR
    except ValueError:
        return False


def parse_set_name(name: str) -> tuple[str, str]:
    """
    Split ``cluster/backup-id``.

    :raises SetNameInvalid: when it is not of that form.
    """
    cluster, _, identifier = name.partition("/")
    if not re.fullmatch(r"[a-z0-9-]+", cluster) or not is_backup_id(identifier):
        raise SetNameInvalid(
            f"{name!r} is not a backup name; expected CLUSTER/ID such as prod/20261123T023000Z-1f0c9a3e (python -m etcdkeep list)."
        )
    return cluster, identifier


def set_prefix(cluster: str, identifier: str) -> str:
    """Return the folder of one set in the repository; the same below the spool."""
    return f"{cluster}/{identifier}/"


def attempt_name(cluster: str, identifier: str) -> str:
    """Return the object that records that a run began."""
    return f"{cluster}/attempts/{identifier}.json"


def verification_name(cluster: str, identifier: str, at: datetime, level: str) -> str:
    """Return the object of one verification."""
    return f"{set_prefix(cluster, identifier)}verification/{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{level}.json"


def rehearsal_name(cluster: str, identifier: str, at: datetime) -> str:
    """Return the object of one rehearsal."""
    return f"{set_prefix(cluster, identifier)}rehearsal/{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.json"


def beside_set(cluster: str, identifier: str, folder: str, at: datetime) -> str:
    """Return the object of one record beside a set, in a folder of its own."""
    return f"{set_prefix(cluster, identifier)}{folder}/{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.json"


def removed_prefix(cluster: str) -> str:
    """Return the folder of a cluster's tombstones: what was removed, when and why."""
    return f"{cluster}/removed/"


def control_plane_artifact(node: str, picked_node: str) -> str:
    """Return the artifact of one node's files; the node whose member gave the snapshot has the plain name."""
    suffix = "" if node == picked_node else f"-{node}"
    return f"{CONTROL_PLANE}{suffix}.tar.zst.age"


def pod_snapshot(folder: str, identifier: str, task: str, attempt: int) -> str:
    """
    Return the snapshot's path in the pod.

    :param task: ``snapshot``, or ``copy_out`` when that task had to save anew.
    :param attempt: The task's try, from 1.
    """
    return f"{folder.rstrip('/')}/etcdkeep-{identifier}-{task}-{attempt % POD_FILE_SLOTS}.db"


def pod_leftovers(folder: str, identifier: str) -> tuple[str, ...]:
    """Return every path that any try of a run may have left in a pod."""
    paths = [
        pod_snapshot(folder, identifier, task, slot)
        for task in ("snapshot", "copy_out")
        for slot in range(POD_FILE_SLOTS)
    ]
    return tuple(name for path in paths for name in (path, f"{path}.part"))


def split_address(address: str, port: int) -> tuple[str, int]:
    """
    Split ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address.

    :param port: The port where `address` names none.
    :raises ValueError: when it is none of these.
    """
    match = re.fullmatch(
        r"\[(?P<v6>[0-9a-fA-F:.]+)\](?::(?P<v6port>\d{1,5}))?|(?P<host>[^\s:/@\[\]]+)(?::(?P<port>\d{1,5}))?", address
    )
    if match is None:
        if re.fullmatch(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", address):
            return address, port
        raise ValueError(f"{address!r} is not an address; expected host, host:port or [IPv6]:port")
    given = int(match["v6port"] or match["port"] or port)
    if not 0 < given < 65536:
        raise ValueError(f"{address!r} is not an address: port {given} is not between 1 and 65535")
    return match["v6"] or match["host"], given
