"""What only the nodes have: PKI, manifests and access files, streamed sealed into the spool; nothing on a node changes."""

from __future__ import annotations

import io
import logging
import posixpath
import tarfile
from contextlib import suppress
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.backup.discover import member_address
from etcdkeep.control_plane import named_files
from etcdkeep.control_plane import node_archive as node_layout
from etcdkeep.control_plane.archive import read_archive
from etcdkeep.control_plane.pki import ca_fingerprint
from etcdkeep.control_plane.static_pod import etcd_config_file, etcd_static_pod
from etcdkeep.documents import Document
from etcdkeep.errors import ArchiveRefused, CommandFailed, ConfigError, EtcdkeepError, NotFound, TransientError
from etcdkeep.ports import CommandRunner, StreamLimits
from etcdkeep.sets.known_member import known_member
from etcdkeep.sets.manifest import Artifact, Member

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from etcdkeep.backup.copy_out import OpenNode
    from etcdkeep.backup.discover import Discovery
    from etcdkeep.backup.spool import Spool
    from etcdkeep.config.models import Cluster
    from etcdkeep.control_plane.static_pod import KnownMember

log = logging.getLogger(__name__)

APISERVER_MANIFEST = "kube-apiserver.yaml"
ETCD_MANIFEST = "etcd.yaml"
SMALL_TAR_BYTES = 32 * 2**20
"""Of what is read into memory to look at: manifests, configuration."""


class NodeFiles(Document):
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
            log.warning("node %s is left out, its member is not usable: %s", member.node, err)
            notes.append(
                f"node {member.node}: none of its files is in the set; its etcd member is not usable, and {err}"
            )
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
            node_layout.read_file_argv(posixpath.join(layout.manifests_dir, APISERVER_MANIFEST)), limits
        ).stdout
        ca = node.run(node_layout.read_file_argv(posixpath.join(layout.pki_dir, "ca.crt")), limits).stdout
        manifests, notes = _read_manifests(node, cluster)
        known = known_member(cluster, member.node, member_address(member), member)
        named, missing = _named_files(node, cluster, {**manifests, APISERVER_MANIFEST: manifest}, known)
        paths = node_layout.node_archive_paths(layout, manifest, cluster.extra_paths, named)
        notes += [*missing, *_restore_notes(node, cluster, manifests, known)]
        listed = node.run(node_layout.list_node_argv(paths), limits)
        listing = node_layout.read_listing(paths, listed.stdout, node.where, listed.stderr)
        if member.problem is not None:
            _check_complete(cluster, listing, node.where)
        log.info("node %s: reading %d file(s) and folder(s)", member.node, len(listing.members))
        tar = _tar_stream(node, node_layout.tar_argv(paths, listing), cluster)
        artifact = spool.seal(name, "control-plane", tar, node=member.node)
    told = " ".join(notes)
    absent = [
        path for path in listing.missing if path not in layout.optional_paths and f"{path} does not exist" not in told
    ]
    notes = [*(f"{path} does not exist" for path in absent), *notes]
    for note in notes:
        log.warning("node %s: %s", member.node, note)
    found = NodeFiles(
        artifacts=(artifact,),
        ca_sha256=ca_fingerprint(ca),
        notes=tuple(f"node {member.node}: {note}" for note in notes),
    )
    spool.finish(name, found)
    return found


def _check_complete(cluster: Cluster, listing: node_layout.NodeListing, where: str) -> None:
    """
    Leave the files of an unfit member's node out when they are not whole: half an archive would spoil a good set.

    :raises NotFound: naming what is not there.
    """
    there = {member.name for member in listing.members}
    if lacking := [name for name in cluster.control_plane.required_files if name not in there]:
        raise NotFound(f"{where} has no {', '.join(lacking)}")


def _read_manifests(node: CommandRunner, cluster: Cluster) -> tuple[dict[str, bytes], list[str]]:
    """Return the static pod manifests of a node, name → content, and what kept them from being read."""
    folder = cluster.control_plane.manifests_dir
    argv = (*node_layout.SUDO, "tar", "-h", "-C", folder, "-cf", "-", ".")
    try:
        files = _read_tar(node, argv, cluster)
    except ArchiveRefused as err:
        return {}, [f"{folder} could not be read as a whole, files that its manifests name may be missing: {err}"]
    return {path: data for path, data in files.items() if "/" not in path and not path.startswith(".")}, []


def _named_files(
    node: CommandRunner, cluster: Cluster, manifests: Mapping[str, bytes], known: KnownMember
) -> tuple[list[str], list[str]]:
    """
    Look for the files that manifests and kubelet name, and for those that they name in turn.

    :return: The paths that are to travel, and a sentence on each that does not although something needs it.
    """
    layout = cluster.control_plane
    kubelet = (posixpath.join(posixpath.dirname(layout.admin_conf), "kubelet.conf"), *layout.kubelet_files)
    asked = [*named_files.manifest_files(manifests, known.downward), *named_files.kubelet_files(kubelet)]
    found: dict[str, named_files.NamedFile] = {}
    seen: set[str] = set()
    notes: list[str] = []
    for _ in range(named_files.DEPTH):
        asked = [file for file in asked if file.path not in seen]
        if len(seen) + len(asked) > named_files.LIMIT_FILES:
            notes.append(
                f"manifests and kubelet name more than {named_files.LIMIT_FILES} files; the rest is not in the set"
            )
            asked = asked[: named_files.LIMIT_FILES - len(seen)]
        if not asked:
            break
        seen.update(file.path for file in asked)
        output = node.run(named_files.look_argv(asked), StreamLimits(cluster.limits.command_s)).stdout
        looked = named_files.read_look(output)
        notes += named_files.missing_notes(asked, looked)
        plain = {file.path: file for file in asked if file.path in looked.plain}
        found |= plain
        contents = _contents(node, cluster, list(plain))
        asked = [
            each for path, file in plain.items() for each in named_files.files_named_in(file, contents.get(path, b""))
        ]
    return list(found), notes


def _contents(node: CommandRunner, cluster: Cluster, paths: Sequence[str]) -> dict[str, bytes]:
    """Return the content of small files of the node, path → content."""
    if not paths:
        return {}
    try:
        files = _read_tar(node, (*node_layout.SUDO, "tar", "-h", "-C", "/", "-cf", "-", *paths), cluster)
    except ArchiveRefused as err:
        log.warning("%s: what the named files name in turn was not read: %s", node.where, err)
        return {}
    return {"/" + path: data for path, data in files.items()}


def _read_tar(node: CommandRunner, argv: tuple[str, ...], cluster: Cluster) -> dict[str, bytes]:
    try:
        output = node.run(argv, StreamLimits(cluster.limits.command_s)).stdout
    except CommandFailed as err:
        raise node_layout.explain_tar_failure(err, node.where) from err
    return read_archive(io.BytesIO(output), SMALL_TAR_BYTES)


def _restore_notes(
    node: CommandRunner, cluster: Cluster, manifests: Mapping[str, bytes], known: KnownMember
) -> list[str]:
    """Say tonight what a restore could not tell from this node's etcd manifest, or would take from elsewhere."""
    if ETCD_MANIFEST not in manifests:
        return []
    path, config = posixpath.join(cluster.control_plane.manifests_dir, ETCD_MANIFEST), None
    try:
        file = etcd_config_file(manifests[ETCD_MANIFEST], path, known)
        if file is not None:
            with suppress(CommandFailed):
                limits = StreamLimits(cluster.limits.command_s)
                config = node.run(node_layout.read_file_argv(file), limits).stdout
        return list(etcd_static_pod(manifests[ETCD_MANIFEST], path, known, config).notes)
    except ConfigError as err:
        return [f"a restore cannot be planned: {err}"]


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
