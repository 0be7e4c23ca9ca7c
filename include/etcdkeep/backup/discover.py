"""Which cluster is this, which members does it have, and which of them gives the snapshot."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from etcdkeep.backup.members import Assignment, PodSeen, answers_for_itself, assign, see_pod, serves
from etcdkeep.control_plane.pod_spec import containers, downward_of
from etcdkeep.control_plane.static_pod import apiserver_container, etcd_servers
from etcdkeep.documents import Document
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    CommandMissing,
    EtcdkeepError,
    MembersUnfit,
    NotFound,
    PermanentError,
)
from etcdkeep.etcd import etcdctl
from etcdkeep.plain_text import one_line
from etcdkeep.ports import KubeApi, PodRef, PodRunner, StreamLimits
from etcdkeep.sets.manifest import Identity, Member

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from etcdkeep.config.models import Cluster

log = logging.getLogger(__name__)

ETCDCTL_GRACE_S = 5
"""etcdctl ends by its own time-out first, and then says what it was waiting for."""

KUBE_SYSTEM_KEY = "/registry/namespaces/kube-system"
"""Where an etcd holds a cluster's objects, this is one of them."""

HASH_TRIES = 3
"""A compaction between two members' answers makes one comparison void; Kubernetes compacts every five minutes."""


class Discovery(Document):
    """
    What `discover` hands to the other tasks.

    :param members: The member that gives the snapshot first, then those to fall back on, then the unfit ones.
    :param notes: Pods that are no members, members without a pod, learners: a sentence on each.
    """

    identity: Identity
    versions: dict[str, str]
    members: tuple[Member, ...]
    notes: tuple[str, ...] = ()

    @property
    def candidates(self) -> tuple[Member, ...]:
        """The members fit to give a snapshot, the preferred one first."""
        return tuple(member for member in self.members if member.problem is None)


def discover(api: KubeApi, cluster: Cluster) -> Discovery:
    """
    Look a cluster over.

    :raises NotFound: when there is no etcd pod where the configuration says.
    :raises MembersUnfit: when no member is healthy.
    :raises PermanentError: when healthy members hold different data at one revision.
    """
    namespace = api.get(f"/api/v1/namespaces/{cluster.namespace}")
    kube_system = api.get("/api/v1/namespaces/kube-system")
    pods, notes = _etcd_pods(api, cluster)
    seen = _ask_all(api, cluster, pods)
    cluster_id = _main_etcd(api, cluster, seen)
    seen = [_checked(api, cluster, pod) if _is_of(pod, cluster_id) else pod for pod in seen]
    listed = _member_list(api, cluster, [pod for pod in seen if _is_of(pod, cluster_id)])
    assignment = assign(listed, seen, cluster_id)
    members = [_member(api, cluster, entry, assignment.pods.get(entry.member_id)) for entry in listed]
    notes += _notes(cluster, members, assignment)
    fit = [member for member in members if member.problem is None]
    if not fit:
        raise _unfit(cluster, [(member.pod or member.name, member.problem) for member in members])
    hashes = compare_hashes(api, cluster, fit) if len(fit) > 1 else {}
    members = [member.model_copy(update={"hash_kv": hashes.get(member.pod)}) for member in members]
    for note in notes:
        log.warning("cluster %s: %s", cluster.name, note)
    return Discovery(
        identity=Identity(
            kube_system_uid=kube_system["metadata"]["uid"],
            namespace_uid=namespace["metadata"]["uid"],
            etcd_cluster_id=cluster_id,
        ),
        versions={"kubernetes": api.version(), "etcd": min(fit, key=_preference).etcd_version},
        members=tuple(sorted(members, key=_preference)),
        notes=tuple(notes),
    )


def pod_runner(api: KubeApi, cluster: Cluster, pod: str) -> PodRunner:
    """Return the exec of a member's etcd container."""
    return api.exec(PodRef(cluster.namespace, pod, cluster.control_plane.container))


def compare_hashes(api: KubeApi, cluster: Cluster, members: Sequence[Member]) -> dict[str, int]:
    """
    Compare HashKV of healthy members at the lowest of their revisions.

    :return: Pod → hash; empty when compactions kept coming in between.
    :raises PermanentError: when they differ over the same range of revisions.
    :raises MembersUnfit: when one no longer answers.
    """
    for _ in range(HASH_TRIES):
        try:
            revision = min(_status(api, cluster, member.pod).revision for member in members)
            answers = {member.pod: _hash_kv(api, cluster, member.pod, revision) for member in members}
        except CommandFailed as err:
            if "compacted" in err.stderr_tail:
                continue
            raise MembersUnfit(
                f"cluster {cluster.name!r}: a member stopped answering while their data was compared: {err}"
            ) from err
        if len({answer.compact_revision for answer in answers.values()}) > 1:
            continue
        if len({answer.hash for answer in answers.values()}) > 1:
            shown = ", ".join(f"{pod}={answer.hash}" for pod, answer in answers.items())
            raise PermanentError(
                f"cluster {cluster.name!r}: HashKV at revision {revision} differs between members ({shown}); any snapshot "
                "could hold the wrong data, so none was taken. Find the diverged member (etcdctl endpoint hashkv --cluster) and replace it."
            )
        return {pod: answer.hash for pod, answer in answers.items()}
    log.warning("cluster %s: HashKV not comparable in %s tries (compactions in between)", cluster.name, HASH_TRIES)
    return {}


def etcd_nodes(api: KubeApi, cluster: Cluster) -> list[str]:
    """Return the names of the nodes that run the cluster's etcd pods; a pod that has ended, or is about to, runs on none."""
    pods = [see_pod(pod, cluster.control_plane.container) for pod in _etcd_pods(api, cluster)[0]]
    running = [pod for pod in pods if pod.problem is None] or pods
    return sorted({pod.node for pod in running if pod.node})


def _etcd_pods(api: KubeApi, cluster: Cluster) -> tuple[list[dict[str, Any]], list[str]]:
    """
    Return the pods that may run members, and a sentence on each that looks like one and has no etcd container.

    :raises NotFound: when there is none.
    """
    control_plane = cluster.control_plane
    found = api.list(f"/api/v1/namespaces/{cluster.namespace}/pods", label_selector=control_plane.pod_selector)
    named = [pod for pod in found if re.fullmatch(control_plane.pod_name, pod["metadata"]["name"])]
    if not named:
        raise NotFound(
            f"cluster {cluster.name!r}: no etcd pod in namespace {cluster.namespace!r} with labels "
            f"{control_plane.pod_selector or '(any)'!r} and a name like {control_plane.pod_name!r}. "
            "Compare control_plane.namespace, pod_selector and pod_name with `kubectl get pods --show-labels`."
        )
    pods = [pod for pod in named if control_plane.container in _container_names(pod)]
    others = [
        f"pod {cluster.namespace}/{pod['metadata']['name']} has no container {control_plane.container!r}, only "
        f"{', '.join(_container_names(pod))}"
        for pod in named
        if pod not in pods
    ]
    if not pods:
        raise NotFound(f"{others[0]}. Set control_plane.container.")
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"])), [f"{other}: it is left out" for other in others]


def _container_names(pod: dict[str, Any]) -> list[str]:
    return [container["name"] for container in pod["spec"]["containers"]]


def _ask_all(api: KubeApi, cluster: Cluster, pods: Sequence[dict[str, Any]]) -> list[PodSeen]:
    """
    Ask each pod that runs for its member's state.

    :raises AccessDenied: when that, or a missing etcdctl, keeps every pod from being asked.
    :raises MembersUnfit: when none answers.
    """
    seen: list[PodSeen] = []
    refused: list[AccessDenied | CommandMissing] = []
    for pod in (see_pod(each, cluster.control_plane.container) for each in pods):
        if pod.problem is not None:
            seen.append(pod)
            continue
        try:
            status = _status(api, cluster, pod.name)
        except EtcdkeepError as err:
            refused += [err] if isinstance(err, (AccessDenied, CommandMissing)) else []
            seen.append(replace(pod, problem=str(err)))
            continue
        if answers_for_itself(pod, cluster.control_plane.endpoint):
            seen.append(replace(pod, status=status))
        else:
            problem = f"it belongs to another etcd, which listens at {pod.flag('listen-client-urls')}"
            seen.append(replace(pod, problem=problem))
    if not any(pod.status for pod in seen):
        if refused:
            raise refused[0]
        raise _unfit(cluster, [(pod.name, pod.problem) for pod in seen])
    return seen


def _main_etcd(api: KubeApi, cluster: Cluster, seen: Sequence[PodSeen]) -> str:
    """
    Return the id of the etcd that holds the cluster's objects; a second one, for events, may have the same labels.

    :raises PermanentError: when it cannot be told.
    """
    first = {pod.status.cluster_id: pod for pod in reversed(seen) if pod.status}
    if len(first) == 1:
        return next(iter(first))
    holding = [each for each, pod in first.items() if _holds_objects(api, cluster, pod)]
    if len(holding) == 1:
        return holding[0]
    servers = _etcd_servers(api, cluster)
    served = [each for each, pod in first.items() if serves(_member_list(api, cluster, [pod]), servers)]
    if len(served) == 1:
        return served[0]
    raise PermanentError(
        f"cluster {cluster.name!r}: the etcd pods belong to {len(first)} different etcd clusters "
        f"({', '.join(sorted(first))}); no backup was taken. Find out which one the API server uses, and set control_plane.pod_name or pod_selector so that they match only its pods."
    )


def _holds_objects(api: KubeApi, cluster: Cluster, pod: PodSeen) -> bool:
    try:
        return bool(_run(api, cluster, pod.name, partial(etcdctl.get_key_argv, key=KUBE_SYSTEM_KEY)).strip())
    except EtcdkeepError as err:
        log.debug("pod %s: %s", pod.name, err)
        return False


def _etcd_servers(api: KubeApi, cluster: Cluster) -> tuple[str, ...]:
    """Return the etcd URLs of the cluster's API servers, as far as their pods tell."""
    pods = api.list(f"/api/v1/namespaces/{cluster.namespace}/pods", label_selector="component=kube-apiserver")
    found = (apiserver_container(containers(pod, downward_of(pod))) for pod in pods)
    return tuple(url for container in found if container for url in etcd_servers(container))


def _is_of(pod: PodSeen, cluster_id: str) -> bool:
    return pod.status is not None and pod.status.cluster_id == cluster_id


def _checked(api: KubeApi, cluster: Cluster, pod: PodSeen) -> PodSeen:
    """Let a member show that it can give a snapshot."""
    status = pod.status
    if status is None or pod.problem:
        return pod
    if status.learner:
        return replace(pod, problem="it is a learner")
    try:
        _check_health(api, cluster, pod.name)
    except (AccessDenied, CommandMissing):
        raise
    except EtcdkeepError as err:
        return replace(pod, problem=str(err))
    if status.errors:
        log.warning("pod %s: etcd reports %s", pod.name, one_line("; ".join(status.errors)))
    return replace(pod, problem=_corruption(status), healthy=True)


def _member_list(api: KubeApi, cluster: Cluster, pods: Sequence[PodSeen]) -> tuple[etcdctl.ListedMember, ...]:
    """
    Return the members as etcd itself has them; one that can commit is asked first, since it knows of every change.

    :raises MembersUnfit: when none of these pods says.
    """
    problems: list[tuple[str, str | None]] = []
    for pod in sorted(pods, key=lambda each: each.problem is not None):
        try:
            return etcdctl.parse_member_list(_run(api, cluster, pod.name, etcdctl.member_list_argv))
        except EtcdkeepError as err:
            problems.append((pod.name, pod.problem or str(err)))
    raise _unfit(cluster, problems)


def _member(api: KubeApi, cluster: Cluster, listed: etcdctl.ListedMember, pod: PodSeen | None) -> Member:
    """Describe one member of etcd's list, and where it runs."""
    name = listed.name or (pod.name if pod else listed.member_id)
    member = Member(
        name=name, pod="", node="", member_id=listed.member_id, learner=listed.learner, peer_urls=listed.peer_urls
    )
    if pod is None:
        return member.model_copy(update=_without_pod(api, cluster, listed))
    where = {
        "pod": pod.name,
        "node": pod.node,
        "address": _known_address(api, cluster, pod.node),
        "host_ips": pod.downward.host_ips,
        "pod_ips": pod.downward.pod_ips,
        "problem": pod.problem,
        "healthy": pod.healthy,
    }
    member = member.model_copy(update=where)
    return _described(member, pod.status) if pod.status else member


def _without_pod(api: KubeApi, cluster: Cluster, listed: etcdctl.ListedMember) -> dict[str, Any]:
    """Return what stands in a member's entry when no pod of it was found; its node is looked for by its name."""
    problem = "no pod of it was found" if listed.name else "it was added and never started"
    address = _known_address(api, cluster, listed.name) if listed.name else None
    return {"node": listed.name if address else "", "address": address, "problem": problem}


def _notes(cluster: Cluster, members: Sequence[Member], assignment: Assignment) -> list[str]:
    """Return a sentence on everything that is not one running pod for one voting member."""
    notes = [
        f"pod {cluster.namespace}/{pod.name}{f' on node {pod.node}' if pod.node else ''} is not counted as a member: {why}"
        for pod, why in assignment.strangers
    ]
    for member in members:
        if not member.pod:
            notes.append(
                f"etcd member {member.name} ({', '.join(member.peer_urls) or 'no peer URL'}): {member.problem}. "
                f"If it is gone for good: etcdctl member remove {member.member_id}"
            )
        elif member.learner:
            notes.append(f"etcd member {member.name} is a learner: it does not vote, and gives no snapshot")
    return notes


def _unfit(cluster: Cluster, reasons: Sequence[tuple[str, str | None]]) -> MembersUnfit:
    told = "; ".join(f"{name}: {problem}" for name, problem in reasons)
    return MembersUnfit(f"cluster {cluster.name!r}: none of {len(reasons)} etcd member(s) can give a snapshot: {told}.")


def _known_address(api: KubeApi, cluster: Cluster, node: str) -> str | None:
    if not node or not (cluster.control_plane.has_nodes or node in cluster.ssh.addresses):
        return None
    try:
        return node_address(api, cluster, node)
    except NotFound as err:
        log.warning("%s", err)
        return None


def _check_health(api: KubeApi, cluster: Cluster, pod: str) -> None:
    """
    Let the member commit a proposal.

    Alarms are no reason to go without a backup: with NOSPACE a snapshot can be taken and is wanted, and CORRUPT is
    judged by the member it names.
    """
    try:
        _run(api, cluster, pod, etcdctl.endpoint_health_argv)
    except CommandFailed as err:
        if "Active Alarm" not in err.stderr_tail:
            raise


def _corruption(status: etcdctl.EndpointStatus) -> str | None:
    """Return the alarm that makes this member's data doubtful; etcd names none when it does not know which it is."""
    suspects = (f"memberID:{int(status.member_id, 16)} ", "alarm:")
    alarms = (error for error in status.errors if "CORRUPT" in error)
    found = next((error for error in alarms if error.startswith(suspects)), None)
    return f"it has an alarm: {found.strip()}" if found else None


def _described(member: Member, status: etcdctl.EndpointStatus) -> Member:
    return member.model_copy(
        update={
            "member_id": status.member_id,
            "leader": status.leader,
            "learner": status.learner,
            "etcd_version": status.version,
            "db_size_bytes": status.db_size_bytes,
            "revision": status.revision,
            "raft_index": status.raft_index,
        }
    )


def node_address(api: KubeApi, cluster: Cluster, node: str) -> str:
    """
    Return where a node's SSH is, as ``host`` or ``host:port``.

    :raises NotFound: when neither the configuration nor the API names an address.
    """
    if node in cluster.ssh.addresses:
        return cluster.ssh.addresses[node]
    addresses = api.get(f"/api/v1/nodes/{node}")["status"].get("addresses") or []
    for kind in ("ExternalIP", "InternalIP"):
        for address in addresses:
            if address["type"] == kind:
                return str(address["address"])
    raise NotFound(
        f"node {node!r} of cluster {cluster.name!r} has no ExternalIP or InternalIP; set ssh.addresses.{node}."
    )


def member_address(member: Member) -> str:
    """
    Return the address of the node that a member runs on.

    :raises NotFound: when `discover` found none.
    """
    if member.address is None:
        raise NotFound(
            f"pod {member.pod}: the address of its node {member.node!r} is unknown; set ssh.addresses for that node."
        )
    return member.address


def _status(api: KubeApi, cluster: Cluster, pod: str) -> etcdctl.EndpointStatus:
    return etcdctl.parse_endpoint_status(_run(api, cluster, pod, etcdctl.endpoint_status_argv))


def _hash_kv(api: KubeApi, cluster: Cluster, pod: str, revision: int) -> etcdctl.HashKV:
    return etcdctl.parse_hash_kv(_run(api, cluster, pod, partial(etcdctl.hash_kv_argv, revision=revision)))


def _run(api: KubeApi, cluster: Cluster, pod: str, argv: Callable[..., tuple[str, ...]]) -> bytes:
    """Run one small etcdctl command in a member's pod and return what it printed."""
    timeout_s = cluster.limits.command_s
    command = argv(cluster.control_plane, timeout_s=timeout_s)
    return pod_runner(api, cluster, pod).run(command, StreamLimits(timeout_s + ETCDCTL_GRACE_S)).stdout


def _preference(member: Member) -> tuple[bool, bool, str]:
    return member.problem is not None, member.leader, member.pod
