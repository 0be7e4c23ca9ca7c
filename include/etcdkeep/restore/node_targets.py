"""What of each node's facts a plan rests on, and which facts make a plan impossible."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.control_plane import SUDO
from etcdkeep.errors import RestoreRefused
from etcdkeep.restore.config_files import ConfigFile, put_back
from etcdkeep.restore.facts import NodeFacts, run_base
from etcdkeep.restore.members import doubtful
from etcdkeep.restore.staging import Site
from etcdkeep.restore.tools import Tool, best_tool, image_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Artifact, Manifest
    from etcdkeep.restore.planning import Options
    from etcdkeep.static_pod import ApiserverStaticPod, EtcdStaticPod


@dataclass(frozen=True)
class TargetNode:
    """
    A node of which all is known that the plan needs.

    :param site: Where its data are prepared; `keys_site` its keys.
    :param park: Where its manifests wait, with the way `manifests`.
    :param archive: Its files in the set; None when none of them are restored.
    :param config: The files beside the PKI that are put back.
    """

    facts: NodeFacts
    etcd: EtcdStaticPod
    apiserver: ApiserverStaticPod
    tool: Tool
    site: Site
    keys_site: Site
    park: str
    archive: Artifact | None
    config: tuple[ConfigFile, ...] = ()

    @property
    def name(self) -> str:
        """The node's name."""
        return self.facts.node


def usable_nodes(
    cluster: Cluster, manifest: Manifest, nodes: Sequence[NodeFacts], options: Options
) -> list[TargetNode]:
    """
    Return the nodes with what the plan needs of each.

    :raises RestoreRefused: with everything that is missing on any node.
    """
    problems: list[str] = []
    usable = []
    unsure = {member.node for member in manifest.members if doubtful(member)}
    for facts in nodes:
        if facts.etcd is None or facts.apiserver is None:
            problems += [f"node {facts.node}: {problem}" for problem in facts.problems or ("no static pod manifests",)]
            continue
        tool = best_tool(
            facts.tools,
            image_version(facts.etcd.image) or manifest.versions.get("etcd", ""),
            bump=options.bump_revision,
        )
        if tool is None:
            problems.append(
                f"node {facts.node}: no etcdutl or etcdctl that can restore, neither on the node nor in an image there"
            )
            continue
        config = tuple(file for file in facts.config if put_back(file, options) and file.movable)
        archive = _archive(manifest, facts.node) if "pki" in options.what or config else None
        if "pki" in options.what and archive is None and facts.node not in unsure:
            problems.append(
                f"the backup holds no certificates and keys of node {facts.node}; restore etcd alone, or choose another set"
            )
        problems += unsupported_layout(facts, options)
        site = Site(facts.node, facts.node, run_base(facts.data.path, facts.mount_points), options.run, SUDO)
        keys_site = replace(site, base=run_base(facts.pki.path, facts.mount_points))
        park = posixpath.join(run_base(facts.manifests_dir.path, facts.mount_points), options.run, "manifests")
        usable.append(TargetNode(facts, facts.etcd, facts.apiserver, tool, site, keys_site, park, archive, config))
    problems += _shared_peer_urls(usable)
    if problems:
        raise RestoreRefused(f"the restore of cluster {cluster.name!r} cannot be planned:", tuple(problems))
    return usable


def _shared_peer_urls(nodes: Sequence[TargetNode]) -> list[str]:
    """Say which nodes give the same peer URL: no etcd cluster starts from that."""
    users: dict[str, list[str]] = {}
    for node in nodes:
        for url in node.etcd.initial_advertise_peer_urls.split(","):
            users.setdefault(url, []).append(node.name)
    return [
        f"nodes {', '.join(names)} have the same peer URL {url}; give each its own --initial-advertise-peer-urls in etcd.yaml"
        for url, names in users.items()
        if len(names) > 1
    ]


def _archive(manifest: Manifest, node: str) -> Artifact | None:
    found = (artifact for artifact in manifest.artifacts if artifact.kind == naming.CONTROL_PLANE)
    return next((artifact for artifact in found if artifact.node == node), None)


def unsupported_layout(facts: NodeFacts, options: Options) -> list[str]:
    """Say what on a node cannot be replaced by renames alone."""
    problems = []
    if "etcd" in options.what and facts.member.path in facts.mount_points:
        problems.append(f"node {facts.node}: {facts.member.path} is a mount point and cannot be renamed")
    if "etcd" in options.what and facts.etcd and facts.etcd.wal_dir:
        problems.append(
            f"node {facts.node}: etcd keeps its log in {facts.etcd.wal_dir} (--wal-dir), which is not supported"
        )
    if "pki" in options.what and facts.pki.path in facts.mount_points:
        problems.append(
            f"node {facts.node}: {facts.pki.path} is a mount point and cannot be renamed; restore etcd alone"
        )
    if options.way == "manifests" and facts.manifests_dir.path in facts.mount_points:
        problems.append(f"node {facts.node}: {facts.manifests_dir.path} is a mount point; choose the way `kubelet`")
    return problems
