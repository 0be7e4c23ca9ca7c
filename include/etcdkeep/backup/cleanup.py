"""Removing what a run left, however it ended."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.backup.copy_out import OpenNode, container_root
from etcdkeep.backup.discover import Discovery, member_address, pod_runner
from etcdkeep.backup.publish import remove_unpublished
from etcdkeep.errors import EtcdkeepError, NotFound, TransientError
from etcdkeep.ports import KubeApi, ObjectStore, StreamLimits

if TYPE_CHECKING:
    from collections.abc import Callable

    from etcdkeep.backup.spool import Spool
    from etcdkeep.config.models import Cluster
    from etcdkeep.sets.manifest import Member

log = logging.getLogger(__name__)


def clean_up(
    cluster: Cluster,
    spool: Spool,
    store: ObjectStore,
    discovery: Discovery | None,
    open_api: Callable[[], KubeApi],
    open_node: OpenNode,
) -> int:
    """
    Remove a run's files from its pods, its spool folder, and its folder in the repository unless that is published.

    Goes on where one part fails, and says at the end what may be left.

    :param discovery: None when `discover` failed: then nothing was begun in any pod.
    :return: How many stored objects were removed.
    :raises TransientError: when something may be left.
    """
    removed = 0
    left: list[str] = []
    for where, remove in (
        (spool.store.url, spool.purge),
        (store.url, partial(remove_unpublished, store, cluster.name, spool.identifier)),
    ):
        try:
            removed += remove()
        except EtcdkeepError as err:
            left.append(f"{where}: {err}")
    for member in discovery.candidates if discovery else ():
        try:
            _clean_pod(cluster, spool.identifier, member, open_api(), open_node)
        except NotFound:
            log.info("pod %s/%s is gone, and its files with it", cluster.namespace, member.pod)
        except EtcdkeepError as err:
            folder = cluster.control_plane.snapshot_dir
            left.append(f"pod {cluster.namespace}/{member.pod}, {folder}/etcdkeep-{spool.identifier}-*: {err}")
    if left:
        raise TransientError(f"run {spool.identifier} may have left files; remove them by hand: {'; '.join(left)}")
    return removed


def _clean_pod(cluster: Cluster, identifier: str, member: Member, api: KubeApi, open_node: OpenNode) -> None:
    paths = naming.pod_leftovers(cluster.control_plane.snapshot_dir, identifier)
    limits = StreamLimits(cluster.limits.command_s)
    if cluster.copy_out == "exec":
        pod_runner(api, cluster, member.pod).run(("rm", "-f", "--", *paths), limits)
        return
    with open_node(member_address(member)) as node:
        root = container_root(api, cluster, node, member.pod)
        node.run(("sudo", "-n", "rm", "-f", "--", *(f"{root}{path}" for path in paths)), limits)
