"""One control-plane node: everything that is wrong with it, and the target that it is when it can be planned."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.restore.found.config_files import put_back
from etcdkeep.restore.found.nodes import ACTIVE, run_base
from etcdkeep.restore.judge.finding import Finding, final, note, warning
from etcdkeep.restore.judge.identity import judge_node_identity
from etcdkeep.restore.judge.node_files import archive_of, judge_archive, judge_config
from etcdkeep.restore.judge.node_tools import judge_space, judge_tool_exists, judge_versions, tool_of
from etcdkeep.restore.judge.words import release_words, unfinished
from etcdkeep.restore.plan.staging import StagingSite
from etcdkeep.restore.plan.targets import TargetNode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.options import Options
    from etcdkeep.sets.manifest import Manifest


def judge_node(manifest: Manifest, node: NodeFacts, options: Options) -> tuple[list[Finding], TargetNode | None]:
    """Return the findings about a node, and what the plan needs of it; None where a finding says what is missing for that."""
    needed = [
        *_static_pods(node),
        *judge_tool_exists(manifest, node, options),
        *_layout(node, options),
        *judge_archive(manifest, node, options),
    ]
    findings = [
        *judge_node_identity(manifest, node),
        *needed,
        *_readable(node),
        *_earlier(manifest, node, options),
        *_programs(node, options),
        *judge_config(node, options),
        *judge_space(manifest, node),
        *judge_versions(manifest, node, options),
    ]
    missing = any(each.severity == "blocking problem" for each in needed)
    return findings, None if missing else _target(manifest, node, options)


def _target(manifest: Manifest, node: NodeFacts, options: Options) -> TargetNode | None:
    if node.etcd is None or node.apiserver is None:
        return None
    mounts = node.mount_points
    config = tuple(file for file in node.config if put_back(file, options) and file.movable)
    site = StagingSite(node.node, node.node, run_base(node.data.path, mounts), options.run, SUDO)
    return TargetNode(
        facts=node,
        etcd=node.etcd,
        apiserver=node.apiserver,
        tool=tool_of(manifest, node, options),
        site=site,
        keys_site=replace(site, base=run_base(node.pki.path, mounts)),
        park=posixpath.join(run_base(node.manifests_dir.path, mounts), options.run, "manifests"),
        archive=archive_of(manifest, node.node) if "pki" in options.what or config else None,
        config=config,
    )


def _static_pods(node: NodeFacts) -> Iterator[Finding]:
    """What cannot be planned without: the manifests of etcd and the API server."""
    if node.etcd is not None and node.apiserver is not None:
        return
    told_elsewhere = (node.crictl_problem, node.ca_problem)
    problems = [each for each in node.problems if each not in told_elsewhere]
    lacks = "; ".join(problems) or "the static pod manifests cannot be read"
    way_out = ". Put the manifests back first: `unseal` gives them as control-plane/manifests" if node.absent else ""
    yield final(f"node {node.node}: {lacks}{way_out}")


def _readable(node: NodeFacts) -> Iterator[Finding]:
    where = f"node {node.node}: "
    yield from (final(f"{where}{unknown}. A restore is planned only when that is known") for unknown in node.unknown)
    yield from (warning(f"{where}{each}") for each in (node.etcd.notes if node.etcd else ()))


def _layout(node: NodeFacts, options: Options) -> Iterator[Finding]:
    """What on a node cannot be replaced by renames alone."""
    where = f"node {node.node}: "
    if "etcd" in options.what and node.member.path in node.mount_points:
        yield final(f"{where}{node.member.path} is a mount point and cannot be renamed")
    if "etcd" in options.what and node.etcd and node.etcd.wal_dir:
        yield final(f"{where}etcd keeps its log in {node.etcd.wal_dir} (--wal-dir), which is not supported")
    if "pki" in options.what and node.pki.path in node.mount_points:
        yield final(f"{where}{node.pki.path} is a mount point and cannot be renamed; restore etcd alone")
    if options.way == "manifests" and node.manifests_dir.path in node.mount_points:
        yield final(f"{where}{node.manifests_dir.path} is a mount point; choose the way `kubelet`")


def _programs(node: NodeFacts, options: Options) -> Iterator[Finding]:
    """What stops the control plane and asks it: crictl, curl and the kubelet's commands."""
    where = f"node {node.node}: "
    if node.running is None:
        yield final(where + node.crictl_problem)
    if not node.curl:
        yield final(where + node.curl_problem)
    if options.way == "kubelet" and node.kubelet_running is None:
        yield final(
            f"{where}the kubelet cannot be stopped by control_plane.kubelet's commands; correct them, or choose the way `manifests`"
        )
    elif node.kubelet_running is False:
        yield warning(f"{where}the kubelet does not run now; it will run after the restore")


def _earlier(manifest: Manifest, node: NodeFacts, options: Options) -> Iterator[Finding]:
    """Other restores that hold the node, or left their old state on it."""
    others = [earlier for earlier in node.earlier if earlier.run != options.run]
    for run in sorted({earlier.run for earlier in others if earlier.state == ACTIVE}):
        folders = ", ".join(earlier.folder for earlier in others if earlier.run == run)
        words = unfinished(manifest.cluster, run, f"here ({folders})")
        yield final(f"node {node.node}: {words}. {release_words(manifest.cluster, run)}")
    if over := sorted({earlier.run for earlier in others if earlier.state != ACTIVE}):
        yield note(
            f"node {node.node}: {len(over)} earlier restore(s) left the old state behind: {', '.join(over)} (python -m etcdkeep restore-leftovers)"
        )
