"""
Which pod runs which etcd member: ``etcdctl member list`` says who is a member, pods only say where each runs.

Pure: what the API and the members said goes in. A pod that is being deleted, has ended, is of a removed node or of a
second etcd under the same labels is told apart; a member without a pod is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from etcdkeep.control_plane.pod_spec import UNKNOWN, Container, Downward, containers, downward_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from etcdkeep.etcd.etcdctl import EndpointStatus, ListedMember

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class PodSeen:
    """
    An etcd pod and what its member answered.

    :param container: Its etcd container as the kubelet starts it.
    :param status: None when it was not asked or did not answer.
    :param problem: Why it gives no snapshot.
    :param healthy: Whether its member could commit.
    """

    name: str
    node: str
    container: Container | None
    downward: Downward
    status: EndpointStatus | None = None
    problem: str | None = None
    healthy: bool = False

    def flag(self, name: str) -> str:
        """Return a setting of its etcd; empty where it is not given or cannot be known."""
        if self.container is None:
            return ""
        variable = "ETCD_" + name.upper().replace("-", "_")
        value = self.container.last(name) or self.container.env.get(variable, "")
        return "" if UNKNOWN in value else value

    def urls(self, name: str) -> tuple[str, ...]:
        """Return a setting of its etcd that is a list of URLs."""
        return tuple(url for url in self.flag(name).replace(" ", "").split(",") if url)


@dataclass(frozen=True)
class Assignment:
    """
    Where the members run.

    :param pods: Member id → its pod.
    :param strangers: The other pods, each with why it is none.
    """

    pods: Mapping[str, PodSeen]
    strangers: tuple[tuple[PodSeen, str], ...]


def see_pod(pod: Mapping[str, Any], container: str) -> PodSeen:
    """Return what the API says of an etcd pod."""
    known = downward_of(pod)
    found = next((each for each in containers(pod, known) if each.name == container), None)
    only = found.only("etcd") if found else None
    return PodSeen(known.pod, known.node, only, known, problem=pod_problem(pod))


def pod_problem(pod: Mapping[str, Any]) -> str | None:
    """Return why a pod cannot be asked."""
    status = pod.get("status") or {}
    phase = status.get("phase")
    if "deletionTimestamp" in pod["metadata"]:
        return "the pod is being deleted"
    if phase == "Running":
        return None
    return f"the pod is {phase}, not Running" + (f" ({status['reason']})" if status.get("reason") else "")


def answers_for_itself(pod: PodSeen, endpoint: str) -> bool:
    """
    Say whether what answers at `endpoint` in a pod is the pod's own etcd.

    Pods of the host's network share its loopback: asked in the pod of a second etcd, the first one answers.
    """
    listening = pod.urls("listen-client-urls")
    return not listening or _port(endpoint) in {_port(url) for url in listening}


def assign(listed: Sequence[ListedMember], pods: Sequence[PodSeen], cluster_id: str) -> Assignment:
    """
    Say which pod runs which member.

    :param listed: The members, as etcd says.
    :param cluster_id: Of that etcd; a pod that answers with another one is of another etcd.
    """
    ours = [pod for pod in pods if pod.status is None or pod.status.cluster_id == cluster_id]
    scores = [
        (score, -place, member.member_id, pod)
        for member in listed
        for place, pod in enumerate(ours)
        if (score := _score(member, pod))
    ]
    assigned: dict[str, PodSeen] = {}
    for _, _, member_id, pod in sorted(scores, key=lambda each: each[:3], reverse=True):
        if member_id not in assigned and pod not in assigned.values():
            assigned[member_id] = pod
    strangers = [pod for pod in pods if pod not in assigned.values()]
    return Assignment(assigned, tuple((pod, _why(pod, cluster_id, assigned)) for pod in strangers))


def serves(listed: Iterable[ListedMember], servers: Iterable[str]) -> bool:
    """Say whether one of the API server's ``--etcd-servers`` is one of these members; a loopback is told by its port."""
    clients = [(urlsplit(url).hostname, _port(url)) for member in listed for url in member.client_urls]
    wanted = [(urlsplit(url).hostname, _port(url)) for url in servers]
    return any(
        port == known_port and (host == known or host in LOOPBACK)
        for host, port in wanted
        for known, known_port in clients
    )


def _score(member: ListedMember, pod: PodSeen) -> int:
    """Weigh what speaks for a pod being this member's: its answer, its own flags, its address, its names."""
    own_peers, own_name = pod.urls("initial-advertise-peer-urls"), pod.flag("name")
    same_peers = bool(set(own_peers) & set(member.peer_urls))
    if pod.status is not None:
        if pod.status.member_id != member.member_id:
            return 0
        return 16 + 8 * same_peers + 4 * (own_name == member.name)
    if own_peers and member.peer_urls and not same_peers:
        return 0
    named = member.name != "" and member.name in (own_name, pod.node, pod.name, pod.name.removeprefix("etcd-"))
    hosts = {urlsplit(url).hostname for url in (*member.peer_urls, *member.client_urls)}
    addressed = bool(hosts & {*pod.downward.pod_ips, *pod.downward.host_ips})
    if own_name and own_name != member.name and not same_peers:
        return 0
    return 4 * same_peers + 2 * named + addressed


def _why(pod: PodSeen, cluster_id: str, assigned: Mapping[str, PodSeen]) -> str:
    if pod.status is not None and pod.status.cluster_id != cluster_id:
        return f"it belongs to another etcd, with cluster id {pod.status.cluster_id}"
    if pod.status is not None and pod.status.member_id in assigned:
        return f"member {pod.status.member_id}, which answered in it, runs in pod {assigned[pod.status.member_id].name}"
    return pod.problem or "etcd's member list has no such member"


def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
