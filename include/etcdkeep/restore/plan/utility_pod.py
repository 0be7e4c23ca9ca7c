"""The utility pod beside a member of a kubeception control plane: it has that member's claim, and etcd's own user where that suffices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.restore.found.owner import proper_owner, runs_as

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcdkeep.config.models import Cluster
    from etcdkeep.restore.found.pods import MemberPod, PodFacts

CONTAINER = "utility"
AS_ROOT = {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False}


def utility_name(member: MemberPod) -> str:
    """Return the pod's name."""
    return f"etcd-utility-{member.pod.rpartition('-')[2]}"


def utility_pod(cluster: Cluster, facts: PodFacts, member: MemberPod) -> dict[str, Any]:
    """Return the pod, as the API creates it: on the member's node, and with what etcd's own pod has to be admitted there."""
    mount = {"name": "data", "mountPath": facts.mount} | ({"subPath": facts.sub_path} if facts.sub_path else {})
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": facts.image,
        "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 5 & wait $!; done"],
        "volumeMounts": [mount],
    }
    context = dict(_etcd(cluster, facts).get("securityContext") or {}) | (
        AS_ROOT if _needs_root(cluster, facts) else {}
    )
    if context:
        container["securityContext"] = context
    spec: dict[str, Any] = {
        "restartPolicy": "Always",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 10,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": member.claim}}],
    }
    spec |= {key: facts.template[key] for key in ("securityContext", "imagePullSecrets") if facts.template.get(key)}
    if member.node:
        spec["nodeName"] = member.node
    labels = {"app": "etcdkeep-restore"}
    metadata = {"name": utility_name(member), "namespace": facts.namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def data_owner(cluster: Cluster, facts: PodFacts) -> str | None:
    """Return ``uid:gid`` that the members' data are to have; None: as the live data have it."""
    return proper_owner(
        runs_as(facts.template, _etcd(cluster, facts)), cluster.control_plane.data_owner, facts.live.owner
    )


def _needs_root(cluster: Cluster, facts: PodFacts) -> bool:
    """Say whether etcd's own user may be unable to rename the live data: they may be another's, as in trouble they are."""
    user = (runs_as(facts.template, _etcd(cluster, facts)) or "0").partition(":")[0]
    found = facts.live.owner
    return user != "0" and (found is None or found.partition(":")[0] != user) and not facts.restricted


def _etcd(cluster: Cluster, facts: PodFacts) -> Mapping[str, Any]:
    containers: list[Mapping[str, Any]] = facts.template["containers"]
    return next(each for each in containers if each["name"] == cluster.control_plane.container)
