"""Whether all members can be restored together, and whether a restore is needed at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.restore.judge.finding import Finding, final, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.restore.circumstances import Circumstances
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.sets.manifest import Manifest

TOGETHER = "All members must be restored together"


def judge_members(manifest: Manifest, nodes: Sequence[NodeFacts], known: Circumstances) -> Iterator[Finding]:
    """
    Yield what is wrong with the members of a control plane on nodes.

    :param nodes: Those that were read.
    """
    for name, reason in (known.unreachable or {}).items():
        yield final(f"node {name} cannot be reached: {reason}. {TOGETHER}", "unasked")
    for name, reason in (known.unasked or {}).items():
        yield final(f"node {name} cannot run commands: {reason}. {TOGETHER}")
    left_out = known.left_out or {}
    names = {member.name for member in manifest.members}
    count = len(names - left_out.keys())
    for name, reason in left_out.items():
        yield problem(
            f"member {name} of the backup cannot be restored: {reason}. Override this to restore the other {count} member(s) "
            "without it. Make sure first that its node stays off: it would serve the old data"
        )
    if not count:
        yield final("no member of the backup can be restored; choose another set")
    for node in nodes:
        if node.etcd and node.etcd.name not in names:
            yield problem(
                f"node {node.node}: its etcd is named {node.etcd.name!r}, the backup has {', '.join(sorted(names))}"
            )
    yield from judge_need([node.node for node in nodes if node.etcd_healthy], count)


def judge_need(healthy: Sequence[str], count: int) -> Iterator[Finding]:
    """
    Yield that no restore is needed, where a quorum is healthy.

    :param healthy: Nodes or pods of the members that are.
    :param count: Of all members.
    """
    if len(healthy) > count // 2:
        words = f"{len(healthy)} of {count} member(s) are healthy ({', '.join(healthy)}): no restore is needed"
        yield problem(f"{words}. A restore would only return it to an earlier state", "healthy")
