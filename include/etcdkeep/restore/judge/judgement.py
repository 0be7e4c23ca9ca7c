"""
The judgement on a restore.

:func:`judge` looks at everything; :func:`judge_live` at what a plan is made from, which is all that is needed to plan again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.restore.found.pods import PodFacts
from etcdkeep.restore.judge.backup_set import judge_set
from etcdkeep.restore.judge.choice import judge_choice
from etcdkeep.restore.judge.finding import Finding, by_weight, final
from etcdkeep.restore.judge.identity import judge_api
from etcdkeep.restore.judge.members import judge_members
from etcdkeep.restore.judge.node import judge_node
from etcdkeep.restore.judge.pods import judge_pods
from etcdkeep.restore.plan.targets import NodeTargets, PodTargets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.restore.circumstances import Circumstances
    from etcdkeep.restore.options import Options
    from etcdkeep.restore.plan.targets import Facts, TargetNode, Targets
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Manifest


@dataclass(frozen=True)
class Judgement:
    """
    What a judge says.

    :param findings: Weightiest first.
    :param targets: What to plan with; None when nothing can be planned: a finding that nobody may override says why.
    """

    findings: tuple[Finding, ...]
    targets: Targets | None


def judge(cluster: Cluster, found: BackupSet, facts: Facts | None, options: Options, known: Circumstances) -> Judgement:
    """
    Judge a restore from everything that was gathered.

    :param facts: Of the nodes or pods; None when these could not be read, which `known` explains.
    """
    findings = [*judge_set(found, options, known)]
    manifest = found.manifest
    if manifest is None:
        return Judgement(by_weight(findings), None)
    if facts is None:
        return Judgement(
            by_weight([final(known.unread or "nothing was read of the live control plane"), *findings]), None
        )
    live = judge_live(cluster, manifest, facts, options)
    findings += live.findings
    if not isinstance(facts, PodFacts):
        findings += (*judge_api(manifest, known.live_uid), *judge_members(manifest, facts, known))
    all_read = not (known.unreachable or known.unasked)
    return Judgement(by_weight(findings), live.targets if all_read else None)


def judge_live(cluster: Cluster, manifest: Manifest, facts: Facts, options: Options) -> Judgement:
    """Judge what a plan is made from: the choice, and the facts of nodes or pods."""
    choice = [*judge_choice(cluster, manifest, options)]
    if isinstance(facts, PodFacts):
        findings = by_weight([*choice, *judge_pods(manifest, facts, options)])
        snapshot = manifest.artifact("etcd")
        if choice or snapshot is None or not facts.members:
            return Judgement(findings, None)
        return Judgement(findings, PodTargets(cluster, manifest, options, snapshot, facts))
    judged = [judge_node(manifest, node, options) for node in facts]
    targets = [target for _, target in judged if target is not None]
    shared = [*_shared_peer_urls(targets)]
    findings = by_weight([*choice, *(finding for found, _ in judged for finding in found), *shared])
    if choice or shared or not targets or len(targets) < len(facts):
        return Judgement(findings, None)
    snapshot = manifest.artifact("etcd") if "etcd" in options.what else None
    return Judgement(findings, NodeTargets(cluster, manifest, options, snapshot, tuple(targets)))


def _shared_peer_urls(nodes: Sequence[TargetNode]) -> Iterator[Finding]:
    """Yield which nodes give the same peer URL: no etcd cluster starts from that."""
    users: dict[str, list[str]] = {}
    for node in nodes:
        for url in node.etcd.initial_advertise_peer_urls.split(","):
            users.setdefault(url, []).append(node.name)
    for url, names in users.items():
        if len(names) > 1:
            yield final(
                f"nodes {', '.join(names)} have the same peer URL {url}; give each its own --initial-advertise-peer-urls in etcd.yaml"
            )
