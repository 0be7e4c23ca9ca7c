"""The wrong-target guard: whether nodes, pods and API belong to the cluster of the backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.restore.found.members import of_another_cluster
from etcdkeep.restore.judge.finding import Finding, final, note, problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.found.pods import PodFacts
    from etcdkeep.sets.manifest import Manifest


def judge_api(manifest: Manifest, live_uid: str | None) -> Iterator[Finding]:
    """
    Yield what the cluster's own API says against it.

    :param live_uid: UID of its namespace kube-system; None while it does not answer.
    """
    expected = manifest.identity.kube_system_uid
    if live_uid and live_uid != expected:
        yield final(
            f"the live cluster is not the cluster of the backup: its kube-system has UID {live_uid}, the backup has {expected}"
        )


def judge_node_identity(manifest: Manifest, node: NodeFacts) -> Iterator[Finding]:
    """Yield whether a node belongs to the cluster, by the cluster's CA."""
    expected, etcd_id = manifest.identity.ca_sha256, manifest.identity.etcd_cluster_id
    if not expected or not node.ca_sha256:
        lacks = node.ca_problem or f"node {node.node} has no CA certificate"
        lacks = lacks if expected else "the backup has no CA certificate"
        yield problem(f"cannot confirm that node {node.node} belongs to this cluster: {lacks}")
    elif of_another_cluster(manifest, node):
        digests = f"its CA has SHA-256 {node.ca_sha256[:16]}…, the backup's CA has {expected[:16]}…"
        yield final(f"node {node.node} belongs to another cluster: {digests}")
    if node.status and node.status.cluster_id != etcd_id:
        words = f"node {node.node}: etcd's cluster id is {node.status.cluster_id}, at the backup it was {etcd_id}"
        yield note(f"{words}; a restore since then changes it")


def judge_pod_identity(manifest: Manifest, facts: PodFacts) -> Iterator[Finding]:
    """Yield whether pods belong to the cluster, by the admin cluster and the namespace."""
    identity = manifest.identity
    if facts.kube_system_uid != identity.kube_system_uid:
        yield final(
            f"this is another admin cluster: its kube-system has UID {facts.kube_system_uid}, the backup's had {identity.kube_system_uid}"
        )
    if facts.namespace_uid != identity.namespace_uid:
        yield final(
            f"namespace {facts.namespace} is another one: its UID is {facts.namespace_uid}, at the backup it was {identity.namespace_uid}"
        )
