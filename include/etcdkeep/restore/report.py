"""
What a restored cluster looks like, compared with the backup: problems are reasons to roll the restore back.

Everything about nodes is asked over SSH; what only the API knows is added when it answers.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.errors import EtcdkeepError, OutputUnexpected
from etcdkeep.etcd import etcdctl
from etcdkeep.objects.keys import DEFAULT_PREFIX, clean_prefix
from etcdkeep.ports import StreamLimits
from etcdkeep.restore import node_commands as commands
from etcdkeep.restore.found.nodes import parse_container_names, parse_etcd_status
from etcdkeep.restore.probe.nodes import gather_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from etcdkeep.config.models import Cluster
    from etcdkeep.ports import CommandRunner, KubeApi
    from etcdkeep.restore.actions import World
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.steps import Place, Plan

ASK_S = 60.0
KEYS_MAY_DIFFER = 0.05
"""Leases, events and node states come and go within seconds of a start."""


@dataclass(frozen=True)
class NodeState:
    """
    One member after the restore.

    :param keys: Live keys below the API server's ``--etcd-prefix``.
    :param leases: Addresses in its folder ``masterleases``: where API servers say they are.
    :param pods: UID → ``namespace/name`` of the pods that really run on the node and came from the API.
    """

    node: str
    address: str
    cluster_id: str
    revision: int
    keys: int
    leases: tuple[str, ...]
    running: tuple[str, ...]
    pods: Mapping[str, str]


@dataclass(frozen=True)
class RestoreReport:
    """
    The comparison.

    :param problems: Why the restore is not good.
    :param notes: What somebody should look at; it often mends itself within a minute.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    revision: int
    keys: int


def ask_node(runner: CommandRunner, cluster: Cluster, facts: NodeFacts) -> NodeState:
    """
    Ask a restored node for its state.

    :raises CommandFailed: when etcd or crictl does not answer.
    """
    layout, etcd, apiserver = cluster.control_plane, facts.etcd, facts.apiserver
    if etcd is None or apiserver is None:
        raise ValueError(f"node {facts.node} has no static pods")

    def ask(*argv: str) -> str:
        return runner.run(argv, StreamLimits(ASK_S)).stdout.decode(errors="replace")

    def keys(prefix: bytes, *, count_only: bool) -> dict[str, Any]:
        start, end = (b64encode(each).decode() for each in (prefix, prefix[:-1] + bytes([prefix[-1] + 1])))
        answer: dict[str, Any] = json.loads(
            ask(*commands.etcd_range_argv(etcd, apiserver, start, end, count_only=count_only))
        )
        return answer

    registry = f"{clean_prefix(apiserver.etcd_prefix)}/".encode()
    lease_folder = registry + b"masterleases/"
    status = parse_etcd_status(ask(*commands.etcd_status_argv(etcd, apiserver)))
    leases = (b64decode(each["key"]) for each in keys(lease_folder, count_only=False).get("kvs", ()))
    containers = commands.containers_argv(layout, layout.static_pods, "--output", "json")
    return NodeState(
        node=facts.node,
        address=facts.address,
        cluster_id=status.cluster_id,
        revision=status.revision,
        keys=int(keys(registry, count_only=True).get("count", 0)),
        leases=tuple(lease.removeprefix(lease_folder).decode(errors="replace") for lease in leases),
        running=parse_container_names(ask(*containers)),
        pods=parse_pods(ask(*SUDO, *layout.crictl, "pods", "--state", "Ready", "--output", "json")),
    )


def parse_pods(output: str) -> dict[str, str]:
    """Read ``crictl pods -o json``: UID → name of the pods that the kubelet has from the API, not from a manifest."""
    return {
        item["metadata"]["uid"]: f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        for item in json.loads(output).get("items") or ()
        if (item.get("annotations") or {}).get("kubernetes.io/config.source") == "api"
    }


def parse_count(output: str) -> int:
    """Read ``etcdctl get --count-only -w fields``, the one format in which etcdctl gives a count."""
    match = re.search(r'^"Count" : (\d+)$', output, re.MULTILINE)
    if match is None:
        raise OutputUnexpected(f"etcdctl counted no keys: {output[:200]!r}.", said=output[:200])
    return int(match[1])


def compare(
    plan: Plan,
    cluster: Cluster,
    states: Sequence[NodeState],
    *,
    live_keys: int | None = None,
    pods: Sequence[Mapping[str, Any]] | None = None,
    nodes: Sequence[Mapping[str, Any]] | None = None,
) -> RestoreReport:
    """
    Compare what is with what was to be.

    :param live_keys: Of the backup, as its verification counted them.
    :param pods: Of the whole cluster, from its API; None when it did not answer. `nodes` likewise.
    """
    return RestoreReport(
        problems=tuple(_problems(plan, cluster, states)),
        notes=(*_key_notes(states, live_keys), *_lease_notes(states), *_pod_notes(states, pods), *_node_notes(nodes)),
        revision=max(state.revision for state in states),
        keys=max(state.keys for state in states),
    )


def _problems(plan: Plan, cluster: Cluster, states: Sequence[NodeState]) -> Iterator[str]:
    ids = {state.cluster_id for state in states}
    if len(ids) > 1:
        shown = ", ".join(f"{state.node}: {state.cluster_id}" for state in states)
        yield f"the members form {len(ids)} etcd clusters instead of one ({shown})"
    for state in states:
        if "etcd" in plan.what and state.revision < plan.expected_revision:
            yield f"node {state.node}: etcd is at revision {state.revision}, expected at least {plan.expected_revision}: it runs on other data"
        missing = [name for name in cluster.control_plane.static_pods[:2] if name not in state.running]
        if missing:
            yield f"node {state.node}: {', '.join(missing)} is not running"


def _key_notes(states: Sequence[NodeState], live_keys: int | None) -> Iterator[str]:
    for state in states:
        if live_keys and abs(state.keys - live_keys) > max(20, live_keys * KEYS_MAY_DIFFER):
            yield f"node {state.node}: etcd holds {state.keys} keys, the backup held {live_keys}"


def _lease_notes(states: Sequence[NodeState]) -> Iterator[str]:
    addresses = {state.address.rpartition(":")[0] or state.address for state in states}
    leases = {lease for state in states for lease in state.leases}
    stale = sorted(leases - addresses)
    if stale and leases & addresses:
        yield f"masterleases names API servers that are not among the nodes: {', '.join(stale)}; they expire by themselves"


def _pod_notes(states: Sequence[NodeState], pods: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    if pods is None:
        yield "the API did not answer: pods that it does not know were not searched for"
        return
    known = {pod["metadata"]["uid"] for pod in pods}
    for state in states:
        phantoms = sorted(name for uid, name in state.pods.items() if uid not in known)
        if phantoms:
            yield f"node {state.node} runs {len(phantoms)} pod(s) that the restored cluster does not know: {_some(phantoms)}"


def _node_notes(nodes: Sequence[Mapping[str, Any]] | None) -> Iterator[str]:
    stale = sorted(
        node["metadata"]["name"]
        for node in nodes or ()
        if not any(
            each["type"] == "Ready" and each["status"] == "True" for each in node["status"].get("conditions", ())
        )
    )
    if stale:
        yield f"{len(stale)} node(s) are not ready, or are only in the backup and no longer exist: {_some(stale)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def inspect(
    world: World, cluster: Cluster, plan: Plan, *, api: Callable[[], KubeApi], live_keys: int | None = None
) -> RestoreReport:
    """
    Ask all that was restored, and compare.

    :param api: Opens the API; nodes are looked at without it when it does not answer.
    :param live_keys: Of the backup, as its verification counted them.
    """
    if plan.way == "pods":
        return inspect_pods(world, cluster, plan, [place.name for place in plan.places if _is_member(place)])
    facts = [gather_node(world.runner(place.name), cluster, place.name, place.address) for place in plan.places]
    try:
        opened = api()
    except EtcdkeepError:
        opened = None
    return inspect_nodes(world, cluster, plan, facts, api=opened, live_keys=live_keys)


def _is_member(place: Place) -> bool:
    """A pod that the plan does not make itself is etcd's."""
    return place.kind == "pod" and not place.made_by


def inspect_nodes(
    world: World,
    cluster: Cluster,
    plan: Plan,
    facts: Iterable[NodeFacts],
    *,
    api: KubeApi | None,
    live_keys: int | None = None,
) -> RestoreReport:
    """
    Ask all restored nodes, and the API where it is given, and compare.

    :param api: None when it cannot be reached from here.
    """
    states = [ask_node(world.runner(each.node), cluster, each) for each in facts]
    pods, nodes = None, None
    if api is not None:
        try:
            pods, nodes = api.list("/api/v1/pods"), api.list("/api/v1/nodes")
        except EtcdkeepError:
            pods, nodes = None, None
    return compare(plan, cluster, states, live_keys=live_keys, pods=pods, nodes=nodes)


def inspect_pods(world: World, cluster: Cluster, plan: Plan, members: Iterable[str]) -> RestoreReport:
    """
    Ask the restored members of a kubeception cluster, and compare.

    :param members: Their pods.
    """
    states = []
    for pod in members:
        runner = world.runner(pod)
        status = etcdctl.parse_endpoint_status(
            runner.run(etcdctl.endpoint_status_argv(cluster.control_plane, ASK_S / 4), StreamLimits(ASK_S)).stdout
        )
        count = etcdctl.etcdctl_argv(
            cluster.control_plane,
            "get",
            f"{clean_prefix(cluster.etcd_prefix or DEFAULT_PREFIX)}/",
            "--prefix",
            "--count-only",
            "-w",
            "fields",
            timeout_s=ASK_S / 4,
        )
        keys = parse_count(runner.run(count, StreamLimits(ASK_S)).stdout.decode(errors="replace"))
        names = cluster.control_plane.static_pods
        states.append(NodeState(pod, pod, status.cluster_id, status.revision, keys, (), names, {}))
    return compare(plan, cluster, states, pods=())
