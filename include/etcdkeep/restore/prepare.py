"""
From a cluster and a backup set to facts, objections and a plan: one door for the DAG and the command line. Reads only.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etcdkeep.archive import read_files
from etcdkeep.errors import (
    ArchiveRefused,
    EtcdkeepError,
    NotFound,
    RestoreRefused,
    SecretUnavailable,
    TransientError,
    VerificationFailed,
)
from etcdkeep.pki import check_pki
from etcdkeep.restore.config_files import ArchivedFile, archived_files, with_archived
from etcdkeep.restore.gather import gather_node, restore_nodes
from etcdkeep.restore.members import doubtful, left_out
from etcdkeep.restore.plans import plan_restore
from etcdkeep.restore.pod_facts import PodFacts, gather_pods
from etcdkeep.restore.preflight import (
    Circumstances,
    Objection,
    blocking,
    by_weight,
    check_set,
    preflight,
    preflight_pods,
)
from etcdkeep.unseal import open_artifact
from etcdkeep.verify import ARCHIVE_LIMIT_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from etcdkeep.age_keys import Identity
    from etcdkeep.config import Cluster
    from etcdkeep.manifest import Manifest
    from etcdkeep.ports import CommandRunner, KubeApi, ObjectStore
    from etcdkeep.repository import BackupSet
    from etcdkeep.restore.facts import NodeFacts
    from etcdkeep.restore.planning import Options
    from etcdkeep.restore.steps import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """
    All that is known before anybody is asked.

    :param options: As given, the way decided.
    :param facts: Of the nodes that answered, or of the kubeception control plane; None when that cannot be read.
    :param objections: Weightiest first.
    :param plan: None when there can be none: an objection says why.
    """

    options: Options
    facts: tuple[NodeFacts, ...] | PodFacts | None
    objections: tuple[Objection, ...]
    plan: Plan | None

    def plan_to_approve(self, cluster: str, *, override: bool) -> Plan:
        """
        Return the plan, when people may be asked for it.

        :param override: Whether what may be passed over is.
        :raises RestoreRefused: with everything for which the restore ends here.
        """
        reasons = blocking(self.objections, override=override)
        if self.plan is None or reasons:
            way_out = " All of it can be overridden." if all(each.overridable for each in reasons) else ""
            raise RestoreRefused(
                f"restore of cluster {cluster!r} refused; nothing was touched.{way_out}",
                tuple(each.sentence for each in reasons),
            )
        return self.plan


def look_round(
    cluster: Cluster,
    found: BackupSet,
    store: ObjectStore,
    identities: Sequence[Identity] | None,
    open_api: Callable[[], KubeApi],
    *,
    now: datetime,
) -> Circumstances:
    """
    Ask for what is known beside the nodes: whether the set opens here, when its certificates expire, who the live cluster is.

    :param identities: Private age keys; None where there are none.
    :raises TransientError: when the repository could not be read.
    """
    expires_at, sealed = None, None
    archived: dict[str, dict[str, ArchivedFile]] = {}
    try:
        expires_at = certificates_expire(cluster, found, store, identities, now, archived)
    except (SecretUnavailable, VerificationFailed, ArchiveRefused, NotFound) as err:
        sealed = str(err)
    return Circumstances(now, expires_at, _live_uid(cluster, open_api), sealed=sealed, archived=archived)


def certificates_expire(
    cluster: Cluster,
    found: BackupSet,
    store: ObjectStore,
    identities: Sequence[Identity] | None,
    now: datetime,
    archived: dict[str, dict[str, ArchivedFile]] | None = None,
) -> datetime | None:
    """
    Return when the first certificate in a set expires; None when it holds none.

    :param archived: Filled with what each node's archive holds beside the PKI, since this reads them all.
    :raises SecretUnavailable: when the set cannot be opened here.
    :raises VerificationFailed: when it is not what its manifest says.
    """
    artifacts = found.manifest.artifacts if found.manifest else ()
    expiries = []
    for artifact in artifacts:
        if artifact.kind == "etcd":
            continue
        with open_artifact(store, found.name, artifact, identities) as plain:
            if artifact.kind == "control-plane":
                files = {file.path: file.data for file in read_files(plain, ARCHIVE_LIMIT_BYTES)}
                report = check_pki(files, required=(), now=now, warning_days=cluster.cert_warning_days)
                expiries.append(report.expires_at)
                if archived is not None and artifact.node:
                    archived[artifact.node] = archived_files(files)
    return min((each for each in expiries if each), default=None)


def _live_uid(cluster: Cluster, open_api: Callable[[], KubeApi]) -> str | None:
    """A kubeception cluster's own API is not the one that is reached; its namespace is compared in its place."""
    if not cluster.control_plane.has_nodes:
        return None
    try:
        return str(open_api().get("/api/v1/namespaces/kube-system")["metadata"]["uid"])
    except EtcdkeepError as err:
        log.info("cluster %s: its API does not say who it is: %s", cluster.name, err)
        return None


def prepare(
    cluster: Cluster,
    found: BackupSet,
    options: Options,
    known: Circumstances,
    *,
    open_node: Callable[[str], AbstractContextManager[CommandRunner]],
    open_api: Callable[[], KubeApi],
    choose_way: bool = False,
) -> Prepared:
    """
    Look everything over, collect every objection, and plan where that is possible.

    :param known: From :func:`look_round`.
    :param open_node: Opens a shell on a node, given its address.
    :param choose_way: Stop the kubelet where every node can, else park manifests, whatever `options` say.
    :raises TransientError: when the API through which a kubeception cluster is restored does not answer.
    """
    manifest = found.manifest
    if manifest is None:
        return Prepared(options, None, by_weight(list(check_set(found, options, known))), None)
    facts: tuple[NodeFacts, ...] | PodFacts
    try:
        if cluster.control_plane.has_nodes:
            facts, failed = _ask_nodes(cluster, manifest, open_node)
            unreachable = {node: str(err) for node, err in failed.items() if isinstance(err, TransientError)}
            unasked = {node: str(err) for node, err in failed.items() if node not in unreachable}
            surplus = left_out(cluster, manifest, facts, unreachable)
            without = {member.node for member in manifest.members if member.name in surplus}
            without -= {member.node for member in manifest.members if member.name not in surplus}
            facts = tuple(each for each in facts if each.node not in without)
            unreachable = {node: reason for node, reason in unreachable.items() if node not in without}
            known = replace(known, unreachable=unreachable, unasked=unasked, left_out=surplus)
            facts = with_archived(facts, known.archived or {})
            if choose_way:
                can = all(node.kubelet_running is not None for node in facts)
                options = replace(options, way="kubelet" if can else "manifests")
            objections = preflight(cluster, found, facts, options, known)
        else:
            facts = gather_pods(open_api(), cluster, manifest)
            objections = preflight_pods(found, facts, options, known)
    except (NotFound, RestoreRefused) as err:
        return Prepared(options, None, by_weight([_final(str(err)), *check_set(found, options, known)]), None)
    if known.unreachable or known.unasked:
        return Prepared(options, facts, objections, None)
    try:
        return Prepared(options, facts, objections, plan_restore(cluster, manifest, facts, options))
    except RestoreRefused as err:
        reasons = [] if blocking(objections, override=True) else [_final(each) for each in err.problems or (str(err),)]
        return Prepared(options, facts, by_weight([*objections, *reasons]), None)


def _ask_nodes(
    cluster: Cluster, manifest: Manifest, open_node: Callable[[str], AbstractContextManager[CommandRunner]]
) -> tuple[tuple[NodeFacts, ...], dict[str, EtcdkeepError]]:
    """Return the facts of the nodes that answer, and node → why of those that do not."""

    def ask(node: tuple[str, str]) -> NodeFacts | EtcdkeepError:
        try:
            with open_node(node[1]) as runner:
                return gather_node(runner, cluster, *node, members.get(node[0]))
        except EtcdkeepError as err:
            return err

    nodes = restore_nodes(cluster, manifest)
    members = {member.node: member for member in sorted(manifest.members, key=doubtful, reverse=True)}
    with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
        answers = dict(zip(nodes, pool.map(ask, nodes.items()), strict=True))
    facts = tuple(answer for answer in answers.values() if not isinstance(answer, EtcdkeepError))
    return facts, {node: answer for node, answer in answers.items() if isinstance(answer, EtcdkeepError)}


def _final(sentence: str) -> Objection:
    return Objection("stop", sentence, overridable=False)
