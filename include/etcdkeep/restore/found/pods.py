"""What is found of a kubeception control plane, whose etcd runs as pods of an admin cluster: data classes alone."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping  # noqa: TC003 - proposals keep facts, and pydantic reads this
from dataclasses import dataclass, field
from typing import Any

from etcdkeep.restore.found.nodes import ACTIVE, EarlierRun, PathFacts
from etcdkeep.restore.found.tools import Tool  # noqa: TC001 - likewise

RUN_ANNOTATION = "etcdkeep-restore"
"""On the StatefulSet while its members' data are being swapped; the value is the restore's name."""
DONE_ANNOTATION = "etcdkeep-restored"
CLOSED_ANNOTATION = "etcdkeep-closed"
"""On the StatefulSet when the restored cluster was found good; the value is the restore's name."""
HOLD_ANNOTATION = "etcdkeep-hold"
"""``etcdkeep-hold-<ordinal>/<restore>`` on the StatefulSet while that restore holds the claim of that member."""


@dataclass(frozen=True)
class MemberPod:
    """
    One member, as the StatefulSet makes it.

    :param name: Its etcd name.
    :param claim: Its PersistentVolumeClaim.
    :param node: Where it runs, or ran last; empty when not known.
    """

    pod: str
    name: str
    peer_urls: str
    claim: str
    node: str = ""
    healthy: bool = False


@dataclass(frozen=True)
class PodFacts:
    """
    The whole control plane.

    :param replicas: Of the etcd StatefulSet, when it is up.
    :param scaled_to: Its replicas now.
    :param mount: Where the claim is mounted; `data_dir` is below it or the same.
    :param template: The pod's template: what of it a utility pod needs is copied.
    :param clients: Path of each workload that is scaled down → its replicas.
    :param budget: The PodDisruptionBudget as it was, where there is one.
    :param image: For the utility pods.
    :param tool: Its etcd tool.
    :param unfinished: Name of a restore that is swapping data, or broke off there.
    :param earlier: Member's pod and what a restore left on its claim: of claims that could be asked.
    :param holds: Restore and member's pod, as the annotations say who holds its claim.
    :param restricted: Whether the namespace admits no pod that runs as root.
    """

    namespace: str
    statefulset: str
    replicas: int
    mount: str
    data_dir: str
    sub_path: str
    members: tuple[MemberPod, ...]
    image: str
    tool: Tool
    live: PathFacts
    template: Mapping[str, Any] = field(hash=False)
    clients: Mapping[str, int] = field(hash=False)
    budget: Mapping[str, Any] | None = field(default=None, hash=False)
    budget_path: str = ""
    kube_system_uid: str = ""
    namespace_uid: str = ""
    revision: int | None = None
    unfinished: str = ""
    scaled_to: int = 1
    earlier: tuple[tuple[str, EarlierRun], ...] = ()
    holds: tuple[tuple[str, str], ...] = ()
    restricted: bool = False

    @property
    def holders(self) -> dict[str, tuple[str, ...]]:
        """Restore → the members' pods whose claims it holds, by the link on the claim or the annotation."""
        linked = [(each.run, pod) for pod, each in self.earlier if each.state == ACTIVE]
        held = sorted({*linked, *self.holds})
        return {
            run: tuple(pod for holder, pod in held if holder == run) for run in dict.fromkeys(run for run, _ in held)
        }

    @property
    def stopped(self) -> tuple[str, ...]:
        """What is scaled to zero now."""
        sizes = {self.path: self.scaled_to, **self.clients}
        return tuple(posixpath.basename(path) for path, replicas in sizes.items() if not replicas)

    @property
    def path(self) -> str:
        """The StatefulSet in the API."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{self.statefulset}"


def hold_annotation(pod: str, run: str) -> str:
    """Return the annotation of the StatefulSet that says: this restore holds the claim of this member."""
    return f"{HOLD_ANNOTATION}-{pod.rpartition('-')[2]}/{run}"
