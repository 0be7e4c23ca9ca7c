"""
Which members of a backup are restored, and which may be left out.

Sets made before etcd's own member list was asked may have a member too many: a pod that was being deleted, had ended or
belonged to another etcd. Such a member, and one that was lost already when the backup was taken, may be left out when an
approver agrees; one that was at work at the backup may not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.sets.manifest import Manifest, Member


def doubtful(member: Member) -> bool:
    """Say whether a member gave no sign at the backup of being one that works."""
    return member.problem is not None and not member.healthy


def of_another_cluster(manifest: Manifest, node: NodeFacts) -> bool:
    """Say whether a node has a CA, and it is not the one of the backup's cluster."""
    expected = manifest.identity.ca_sha256
    return bool(expected and node.ca_sha256 and node.ca_sha256 != expected)


def address_of(cluster: Cluster, member: Member) -> str | None:
    """Return where a member's node is reached; the configuration wins over the set."""
    return cluster.ssh.addresses.get(member.node) or member.address if member.node else None


def left_out(
    cluster: Cluster, manifest: Manifest, facts: Sequence[NodeFacts], unreachable: Mapping[str, str]
) -> dict[str, str]:
    """
    Return the doubtful members that cannot be restored: name → why.

    :param facts: Of the nodes that answered.
    :param unreachable: Node → why it did not.
    """
    sure = {member.node for member in manifest.members if not doubtful(member)}
    found = {each.node: each for each in facts}
    reasons: dict[str, str] = {}
    for member in manifest.members:
        if doubtful(member) and member.node not in sure:
            reason = _reason(cluster, manifest, member, found.get(member.node), unreachable)
            if reason:
                reasons[member.name] = f"{reason}. At the backup it did not work: {member.problem}"
        elif doubtful(member) and member.name not in {each.name for each in manifest.members if not doubtful(each)}:
            reasons[member.name] = f"another member runs on its node. At the backup it did not work: {member.problem}"
    return reasons


def _reason(
    cluster: Cluster, manifest: Manifest, member: Member, facts: NodeFacts | None, unreachable: Mapping[str, str]
) -> str:
    if address_of(cluster, member) is None:
        return f"its node {member.node or '(unknown)'} has no known address"
    if facts is None:
        return f"its node {member.node} cannot be reached ({unreachable.get(member.node, 'it was not asked')})"
    if of_another_cluster(manifest, facts):
        return f"its node {member.node} belongs to another cluster now"
    if facts.etcd is None and "etcd.yaml" not in facts.manifests:
        return f"its node {member.node} has no etcd manifest"
    return ""
