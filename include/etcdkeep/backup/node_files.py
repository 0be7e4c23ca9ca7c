"""What only the nodes have: PKI, manifests and access files, streamed sealed into the spool; nothing on a node changes."""

from __future__ import annotations

import io
import logging
import posixpath
import tarfile
from typing import TYPE_CHECKING

from etcdkeep import control_plane as node_layout
from etcdkeep import naming
from etcdkeep.backup.discover import member_address
from etcdkeep.errors import CommandFailed, EtcdkeepError, NotFound, TransientError
from etcdkeep.manifest import Artifact, Member, Record
from etcdkeep.pki import ca_fingerprint
from etcdkeep.ports import CommandRunner, StreamLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from etcdkeep.backup.copy_out import OpenNode
    from etcdkeep.backup.discover import Discovery
    from etcdkeep.backup.spool import Spool
    from etcdkeep.config import Cluster

log = logging.getLogger(__name__)


class NodeFiles(Record):
    """
    The sealed artifacts of the nodes.

    :param ca_sha256: SHA-256 of the cluster CA's DER, hex.
    :param notes: What a reader of the manifest should know of them.
    """

    artifacts: tuple[Artifact, ...] = ()
    ca_sha256: str | None = None
    notes: tuple[str, ...] = ()


def fetch_node_files(
    open_node: OpenNode, cluster: Cluster, spool: Spool, discovery: Discovery, access_files: Mapping[str, bytes]
) -> NodeFiles:
    """
    Fetch every control-plane node's files, and add those with which the cluster is reached.

    A node that cannot be reached and whose member is unfit is left out with a note: a broken member of three is no
    reason to go without a backup.

    :param access_files: File name → content, for the artifact ``access``.
    :raises NotFound: when a required path is not on a node.
    """
    nodes = {member.node: member for member in discovery.members if member.node}
    picked = discovery.members[0].node
    fetched: list[NodeFiles] = []
    notes: list[str] = []
    for member in nodes.values():
        try:
            fetched.append(_fetch_node(open_node, cluster, spool, member, picked))
        except EtcdkeepError as err:
            if member.problem is None or (member.pod and not isinstance(err, (TransientError, NotFound))):
                raise
            log.warning("node %s is left out, its member is unfit: %s", member.node, err)
            notes.append(f"node {member.node}: none of its files is in the set; its etcd member is unfit, and {err}")
    access = spool.finished(naming.ACCESS_ARTIFACT)
    if access is None:
        sealed = spool.seal(naming.ACCESS_ARTIFACT, "access", [_tar(access_files)])
        spool.finish(naming.ACCESS_ARTIFACT, NodeFiles(artifacts=(sealed,)))
        access = {"artifacts": [sealed]}
    if "kubeconfig" not in access_files:
        notes.append("access holds no kubeconfig: the worker used its own service account")
    return NodeFiles(
        artifacts=(
            *(artifact for found in fetched for artifact in found.artifacts),
            *NodeFiles.model_validate(access).artifacts,
        ),
        ca_sha256=fetched[0].ca_sha256,
        notes=(*(note for found in fetched for note in found.notes), *notes),
    )


def _fetch_node(open_node: OpenNode, cluster: Cluster, spool: Spool, member: Member, picked: str) -> NodeFiles:
    name = naming.control_plane_artifact(member.node, picked)
    done = spool.finished(name)
    if done is not None:
        log.info("%s is in the spool already", name)
        return NodeFiles.model_validate(done)
    limits = StreamLimits(cluster.limits.command_s)
    layout = cluster.control_plane
    with open_node(member_address(member)) as node:
        manifest = node.run(
            node_layout.read_file_argv(posixpath.join(layout.manifests_dir, "kube-apiserver.yaml")), limits
        ).stdout
        ca = node.run(node_layout.read_file_argv(posixpath.join(layout.pki_dir, "ca.crt")), limits).stdout
        paths = node_layout.node_archive_paths(layout, manifest, cluster.extra_paths)
        listing = node_layout.read_listing(
            paths, node.run(node_layout.list_node_argv(paths), limits).stdout, node.where
        )
        log.info("node %s: reading %d file(s) and folder(s)", member.node, len(listing.members))
        tar = _tar_stream(node, node_layout.tar_argv(paths, listing), cluster)
        artifact = spool.seal(name, "control-plane", tar, node=member.node)
    found = NodeFiles(
        artifacts=(artifact,),
        ca_sha256=ca_fingerprint(ca),
        notes=tuple(
            f"node {member.node}: {path} is not there" for path in listing.missing if path not in layout.optional_paths
        ),
    )
    spool.finish(name, found)
    return found


def _tar_stream(node: CommandRunner, argv: tuple[str, ...], cluster: Cluster) -> Iterator[bytes]:
    limits = StreamLimits(cluster.limits.long_work_s(0), cluster.limits.stall_s)
    try:
        yield from node.stream(argv, limits)
    except CommandFailed as err:
        raise node_layout.explain_tar_failure(err, node.where) from err


def _tar(files: Mapping[str, bytes]) -> bytes:
    """Return small files as one tar; the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
