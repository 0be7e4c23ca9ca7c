"""
From a cluster and a backup set to facts, findings and a plan: gather, judge, plan.

The one way in for the DAG, its dry run, the rehearsal, the command line and the bench. Reads only.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from etcdkeep.errors import EtcdkeepError, NotFound, RequestRefused, TransientError
from etcdkeep.restore.circumstances import collect_circumstances
from etcdkeep.restore.found.members import doubtful, left_out
from etcdkeep.restore.found.nodes import with_archived
from etcdkeep.restore.found.pods import PodFacts
from etcdkeep.restore.judge.finding import blocking_problems
from etcdkeep.restore.judge.judgement import judge
from etcdkeep.restore.plan.any_cluster import plan_restore
from etcdkeep.restore.probe.nodes import gather_node, restore_nodes
from etcdkeep.restore.probe.pods import gather_pods

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import CommandRunner, KubeApi
    from etcdkeep.restore.circumstances import Circumstances
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.judge.finding import Finding
    from etcdkeep.restore.options import Options
    from etcdkeep.restore.plan.targets import Facts
    from etcdkeep.restore.steps import Plan
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Manifest
    from etcdkeep.sets.repository import Repository


class Access(Protocol):
    """A cluster with its clients, each opened when first used: :class:`~etcdkeep.site.site.Site`."""

    @property
    def cluster(self) -> Cluster:
        """Its configuration."""

    @property
    def repository(self) -> Repository:
        """Its backup sets."""

    @property
    def api(self) -> KubeApi:
        """The API through which it is reached."""

    def open_node(self, address: str) -> AbstractContextManager[CommandRunner]:
        """Open a shell on a node."""


@dataclass(frozen=True)
class Prepared:
    """
    All that is known before anybody is asked.

    :param options: As given, the way decided.
    :param facts: Of the nodes that answered, or of the kubeception control plane; None when that cannot be read.
    :param findings: Weightiest first.
    :param plan: None when there can be none: a finding says why.
    :param api_answers: Whether the API of a cluster with nodes said who the cluster is.
    """

    options: Options
    facts: Facts | None
    findings: tuple[Finding, ...]
    plan: Plan | None
    api_answers: bool = False

    def plan_to_approve(self, cluster: str, *, override: bool) -> Plan:
        """
        Return the plan, when people may be asked for it.

        :param override: Whether blocking problems that can be overridden are.
        :raises RequestRefused: with everything for which the restore ends here.
        """
        reasons = blocking_problems(self.findings, override=override)
        if self.plan is None or reasons:
            way_out = (
                " All of these can be overridden: `override` in the form, --override of `runbook`."
                if all(each.overridable for each in reasons)
                else ""
            )
            raise RequestRefused(
                f"restore of cluster {cluster!r} refused; nothing was changed.{way_out}",
                tuple(each.sentence for each in reasons),
            )
        return self.plan


def prepare_restore(
    site: Access,
    found: BackupSet,
    options: Options,
    identities: Sequence[Identity] | None,
    *,
    now: datetime,
    choose_way: bool = False,
    locked_by: str | None = None,
    running_backup: str | None = None,
) -> Prepared:
    """
    Gather everything, judge it, and plan where the judge gives targets.

    :param site: With the set that SSH keys come from, where the API may be down.
    :param identities: Private age keys; None where there are none.
    :param choose_way: Stop the kubelet where every node can, else park manifests, whatever `options` say.
    :param locked_by: Another restore that has locked the cluster.
    :param running_backup: A backup of the cluster that is running.
    :raises TransientError: when the repository could not be read, or the API through which a kubeception cluster is
        restored does not answer.
    """
    cluster, store = site.cluster, site.repository.store
    known = collect_circumstances(
        cluster,
        found,
        store,
        identities,
        lambda: site.api,
        now=now,
        locked_by=locked_by,
        running_backup=running_backup,
    )
    facts, known = (None, known) if found.manifest is None else _read_live(site, found.manifest, known)
    if choose_way:
        options = with_way(options, facts)
    judgement = judge(cluster, found, facts, options, known)
    plan = plan_restore(judgement.targets) if judgement.targets else None
    return Prepared(options, facts, judgement.findings, plan, api_answers=known.live_uid is not None)


def with_way(options: Options, facts: Facts | None) -> Options:
    """Return the options with the way that every node allows: stop the kubelet, else park the manifests."""
    if facts is None or isinstance(facts, PodFacts):
        return options
    can = all(node.kubelet_running is not None for node in facts)
    return replace(options, way="kubelet" if can else "manifests")


def _read_live(site: Access, manifest: Manifest, known: Circumstances) -> tuple[Facts | None, Circumstances]:
    """Return the facts of nodes or pods, and what became of those that gave none."""
    try:
        if not site.cluster.control_plane.has_nodes:
            return gather_pods(site.api, site.cluster, manifest), known
        facts, failed = _read_nodes(site, manifest)
    except (NotFound, RequestRefused) as err:
        return None, replace(known, unread=str(err))
    unreachable = {node: str(err) for node, err in failed.items() if isinstance(err, TransientError)}
    unasked = {node: str(err) for node, err in failed.items() if node not in unreachable}
    surplus = left_out(site.cluster, manifest, facts, unreachable)
    without = {member.node for member in manifest.members if member.name in surplus}
    without -= {member.node for member in manifest.members if member.name not in surplus}
    unreachable = {node: reason for node, reason in unreachable.items() if node not in without}
    kept = with_archived(tuple(each for each in facts if each.node not in without), known.archived or {})
    return kept, replace(known, unreachable=unreachable, unasked=unasked, left_out=surplus)


def _read_nodes(site: Access, manifest: Manifest) -> tuple[tuple[NodeFacts, ...], dict[str, EtcdkeepError]]:
    """Return the facts of the nodes that answer, and node → why of those that do not."""

    def read(node: tuple[str, str]) -> NodeFacts | EtcdkeepError:
        try:
            with site.open_node(node[1]) as runner:
                return gather_node(runner, site.cluster, *node, members.get(node[0]))
        except EtcdkeepError as err:
            return err

    nodes = restore_nodes(site.cluster, manifest)
    members = {member.node: member for member in sorted(manifest.members, key=doubtful, reverse=True)}
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        answers = dict(zip(nodes, pool.map(read, nodes.items()), strict=True))
    facts = tuple(answer for answer in answers.values() if not isinstance(answer, EtcdkeepError))
    return facts, {node: answer for node, answer in answers.items() if isinstance(answer, EtcdkeepError)}
