"""What is known of a restore beside its nodes and pods: the set opened, who the live cluster is, what else is going on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.control_plane.archive import read_files
from etcdkeep.control_plane.pki import check_pki
from etcdkeep.errors import ArchiveRefused, EtcdkeepError, NotFound, SecretUnavailable, VerificationFailed
from etcdkeep.restore.found.config_files import ArchivedConfig, archived_files
from etcdkeep.sets.opening import ARCHIVE_LIMIT_BYTES, open_artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import KubeApi, ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Circumstances:
    """
    What is known beside the facts of nodes or pods.

    :param expires_at: When the first certificate of the set expires; None when it was not read.
    :param live_uid: UID of the live cluster's namespace kube-system; None while its API does not answer.
    :param unread: Why nothing was read of the live control plane; empty when something was.
    :param unreachable: Node → why there is no connection to it.
    :param unasked: Node → why it runs none of our commands.
    :param left_out: Member of the backup that cannot be restored and may be left out → why.
    :param running_backup: Run id of a backup of this cluster that is running.
    :param sealed: Why the set cannot be opened here; None when it can, or when that was not tried.
    :param archived: Node → what its archive holds beside the PKI; None when it was not read.
    :param locked_by: Another restore that has locked this cluster.
    """

    now: datetime
    expires_at: datetime | None = None
    live_uid: str | None = None
    unread: str = ""
    unreachable: Mapping[str, str] | None = None
    unasked: Mapping[str, str] | None = None
    left_out: Mapping[str, str] | None = None
    running_backup: str | None = None
    sealed: str | None = None
    locked_by: str | None = None
    archived: Mapping[str, Mapping[str, ArchivedConfig]] | None = None


def collect_circumstances(
    cluster: Cluster,
    found: BackupSet,
    store: ObjectStore,
    identities: Sequence[Identity] | None,
    open_api: Callable[[], KubeApi],
    *,
    now: datetime,
    locked_by: str | None = None,
    running_backup: str | None = None,
) -> Circumstances:
    """
    Read what is known beside the nodes: whether the set opens here, when its certificates expire, who the live cluster is.

    :param identities: Private age keys; None where there are none.
    :raises TransientError: when the repository could not be read.
    """
    expires_at, sealed = None, None
    archived: dict[str, dict[str, ArchivedConfig]] = {}
    try:
        expires_at = certificates_expire(cluster, found, store, identities, now, archived)
    except (SecretUnavailable, VerificationFailed, ArchiveRefused, NotFound) as err:
        sealed = str(err)
    return Circumstances(
        now,
        expires_at,
        _live_uid(cluster, open_api),
        sealed=sealed,
        archived=archived,
        locked_by=locked_by,
        running_backup=running_backup,
    )


def certificates_expire(
    cluster: Cluster,
    found: BackupSet,
    store: ObjectStore,
    identities: Sequence[Identity] | None,
    now: datetime,
    archived: dict[str, dict[str, ArchivedConfig]] | None = None,
) -> datetime | None:
    """
    Return when the first certificate in a set expires; None when it holds none.

    :param archived: Filled with what each node's archive holds beside the PKI, since this reads them all.
    :raises SecretUnavailable: when the set cannot be opened here.
    :raises VerificationFailed: when it is not what its manifest says.
    """
    artifacts = found.manifest.artifacts if found.manifest else ()
    expiries = []
    for artifact in artifacts:
        if artifact.kind == "etcd":
            continue
        with open_artifact(store, found.name, artifact, identities) as plain:
            if artifact.kind == "control-plane":
                files = {file.path: file.data for file in read_files(plain, ARCHIVE_LIMIT_BYTES)}
                report = check_pki(files, required=(), now=now, warning_days=cluster.cert_warning_days)
                expiries.append(report.expires_at)
                if archived is not None and artifact.node:
                    archived[artifact.node] = archived_files(files)
    return min((each for each in expiries if each), default=None)


def _live_uid(cluster: Cluster, open_api: Callable[[], KubeApi]) -> str | None:
    """A kubeception cluster's own API is not the one that is reached; its namespace is compared in its place."""
    if not cluster.control_plane.has_nodes:
        return None
    try:
        return str(open_api().get("/api/v1/namespaces/kube-system")["metadata"]["uid"])
    except EtcdkeepError as err:
        log.info("cluster %s: its identity cannot be read from its API: %s", cluster.name, err)
        return None
