"""Which cluster is this, which members does it have, and which of them gives the snapshot."""

from __future__ import annotations

import logging
import re
from functools import partial
from typing import TYPE_CHECKING, Any

from etcdkeep import etcdctl
from etcdkeep.errors import (
    AccessDenied,
    CommandFailed,
    CommandMissing,
    EtcdkeepError,
    MembersDisagree,
    MembersUnfit,
    NotFound,
)
from etcdkeep.manifest import Identity, Member, Record
from etcdkeep.plain_text import one_line
from etcdkeep.ports import KubeApi, PodRef, PodRunner, StreamLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from etcdkeep.config import Cluster

log = logging.getLogger(__name__)

ETCDCTL_GRACE_S = 5
"""etcdctl ends by its own time-out first, and then says what it was waiting for."""

HASH_TRIES = 3
"""A compaction between two members' answers makes one comparison void; Kubernetes compacts every five minutes."""


class Discovery(Record):
    """
    What `discover` hands to the other tasks.

    :param members: The member that gives the snapshot first, then those to fall back on, then the unfit ones.
    """

    identity: Identity
    versions: dict[str, str]
    members: tuple[Member, ...]

    @property
    def candidates(self) -> tuple[Member, ...]:
        """The members fit to give a snapshot, the preferred one first."""
        return tuple(member for member in self.members if member.problem is None)


def discover(api: KubeApi, cluster: Cluster) -> Discovery:
    """
    Look a cluster over.

    :raises NotFound: when there is no etcd pod where the configuration says.
    :raises MembersUnfit: when no member is healthy.
    :raises MembersDisagree: when healthy members hold different data at one revision.
    """
    namespace = api.get(f"/api/v1/namespaces/{cluster.namespace}")
    kube_system = api.get("/api/v1/namespaces/kube-system")
    pods = _etcd_pods(api, cluster)
    asked = [_ask(api, cluster, pod) for pod in pods]
    members = [member for member, _ in asked]
    cluster_ids = {status.cluster_id for _, status in asked if status}
    if len(cluster_ids) > 1:
        raise MembersDisagree(
            f"cluster {cluster.name!r}: the etcd pods belong to {len(cluster_ids)} different etcd clusters "
            f"({', '.join(sorted(cluster_ids))}); no backup was taken. Find out which one the API server uses first."
        )
    fit = [member for member in members if member.problem is None]
    if not fit:
        reasons = "; ".join(f"{member.pod}: {member.problem}" for member in members)
        raise MembersUnfit(
            f"cluster {cluster.name!r}: none of {len(members)} etcd member(s) can give a snapshot: {reasons}."
        )
    hashes = compare_hashes(api, cluster, fit) if len(fit) > 1 else {}
    members = [member.model_copy(update={"hash_kv": hashes.get(member.pod)}) for member in members]
    return Discovery(
        identity=Identity(
            kube_system_uid=kube_system["metadata"]["uid"],
            namespace_uid=namespace["metadata"]["uid"],
            etcd_cluster_id=cluster_ids.pop(),
        ),
        versions={"kubernetes": api.version(), "etcd": min(fit, key=_preference).etcd_version},
        members=tuple(sorted(members, key=_preference)),
    )


def pod_runner(api: KubeApi, cluster: Cluster, pod: str) -> PodRunner:
    """Return the exec of a member's etcd container."""
    return api.exec(PodRef(cluster.namespace, pod, cluster.control_plane.container))


def compare_hashes(api: KubeApi, cluster: Cluster, members: Sequence[Member]) -> dict[str, int]:
    """
    Compare HashKV of healthy members at the lowest of their revisions.

    :return: Pod → hash; empty when compactions kept coming in between.
    :raises MembersDisagree: when they differ over the same range of revisions.
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
            raise MembersDisagree(
                f"cluster {cluster.name!r}: HashKV at revision {revision} differs between members ({shown}); any snapshot "
                "could hold the wrong data, so none was taken. Find the diverged member (etcdctl endpoint hashkv --cluster) and replace it."
            )
        return {pod: answer.hash for pod, answer in answers.items()}
    log.warning("cluster %s: HashKV not comparable in %s tries (compactions in between)", cluster.name, HASH_TRIES)
    return {}


def etcd_nodes(api: KubeApi, cluster: Cluster) -> list[str]:
    """Return the names of the nodes that run the cluster's etcd pods."""
    return sorted({pod["spec"]["nodeName"] for pod in _etcd_pods(api, cluster) if pod["spec"].get("nodeName")})


def _etcd_pods(api: KubeApi, cluster: Cluster) -> list[dict[str, Any]]:
    control_plane = cluster.control_plane
    found = api.list(f"/api/v1/namespaces/{cluster.namespace}/pods", label_selector=control_plane.pod_selector)
    pods = [pod for pod in found if re.fullmatch(control_plane.pod_name, pod["metadata"]["name"])]
    if not pods:
        raise NotFound(
            f"cluster {cluster.name!r}: no etcd pod in namespace {cluster.namespace!r} with labels "
            f"{control_plane.pod_selector or '(any)'!r} and a name like {control_plane.pod_name!r}. "
            "Compare control_plane.namespace, pod_selector and pod_name with `kubectl get pods --show-labels`."
        )
    for pod in pods:
        containers = [container["name"] for container in pod["spec"]["containers"]]
        if control_plane.container not in containers:
            raise NotFound(
                f"pod {cluster.namespace}/{pod['metadata']['name']} has no container {control_plane.container!r}, only "
                f"{', '.join(containers)}. Set control_plane.container."
            )
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))


def _ask(api: KubeApi, cluster: Cluster, pod: dict[str, Any]) -> tuple[Member, etcdctl.EndpointStatus | None]:
    """Return what a member says of itself; without a status where it could not be asked."""
    name = pod["metadata"]["name"]
    node = pod["spec"].get("nodeName", "")
    member = Member(name=name, pod=name, node=node, address=_known_address(api, cluster, node))
    if problem := _pod_problem(pod):
        return member.model_copy(update={"problem": problem}), None
    try:
        status = _status(api, cluster, name)
        member = _described(member, status)
        if status.learner:
            return member.model_copy(update={"problem": "it is a learner"}), status
        member = member.model_copy(update={"name": _member_name(api, cluster, member)})
        _check_health(api, cluster, name)
    except (AccessDenied, CommandMissing):
        raise
    except EtcdkeepError as err:
        return member.model_copy(update={"problem": str(err)}), None
    if status.errors:
        log.warning("pod %s: etcd reports %s", name, one_line("; ".join(status.errors)))
    return member.model_copy(update={"healthy": True, "problem": _corruption(status)}), status


def _pod_problem(pod: dict[str, Any]) -> str | None:
    phase = pod["status"].get("phase")
    if "deletionTimestamp" in pod["metadata"]:
        return "the pod is being deleted"
    return None if phase == "Running" else f"the pod is {phase}, not Running"


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
            f"pod {member.pod}: the address of its node {member.node!r} is not known; set ssh.addresses for that node."
        )
    return member.address


def _status(api: KubeApi, cluster: Cluster, pod: str) -> etcdctl.EndpointStatus:
    return etcdctl.parse_endpoint_status(_run(api, cluster, pod, etcdctl.endpoint_status_argv))


def _member_name(api: KubeApi, cluster: Cluster, member: Member) -> str:
    names = etcdctl.parse_member_list(_run(api, cluster, member.pod, etcdctl.member_list_argv))
    return names.get(member.member_id) or member.pod


def _hash_kv(api: KubeApi, cluster: Cluster, pod: str, revision: int) -> etcdctl.HashKV:
    return etcdctl.parse_hash_kv(_run(api, cluster, pod, partial(etcdctl.hash_kv_argv, revision=revision)))


def _run(api: KubeApi, cluster: Cluster, pod: str, argv: Callable[..., tuple[str, ...]]) -> bytes:
    """Run one small etcdctl command in a member's pod and return what it printed."""
    timeout_s = cluster.limits.command_s
    command = argv(cluster.control_plane, timeout_s=timeout_s)
    return pod_runner(api, cluster, pod).run(command, StreamLimits(timeout_s + ETCDCTL_GRACE_S)).stdout


def _preference(member: Member) -> tuple[bool, bool, str]:
    return member.problem is not None, member.leader, member.pod
