"""Deployments and ReplicaSets: each has the pods it should have, and says how they are."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.kube import Informer, Kube

HASH_LABEL = "pod-template-hash"
LETTERS = "bcdfghjklmnpqrstvwxz2456789"


async def keep_deployment(kube: Kube, deployment: dict[str, Any], sets: Informer) -> None:
    """Give a Deployment one ReplicaSet for its template, scale those of older templates to zero, and report."""
    meta, spec = deployment["metadata"], deployment["spec"]
    path = f"/apis/apps/v1/namespaces/{meta['namespace']}"
    replicas = spec.get("replicas", 1)
    revision = _letters(json.dumps(spec["template"], sort_keys=True), 10)
    wanted = f"{meta['name']}-{revision}"
    own = {each["metadata"]["name"]: each for each in owned(meta["uid"], sets)}
    if wanted not in own:
        await kube.ensure(f"{path}/replicasets", _replica_set(deployment, wanted, revision))
    for name, each in own.items():
        count = replicas if name == wanted else 0
        if each["spec"].get("replicas", 1) != count:
            await kube.merge(f"{path}/replicasets/{name}", {"spec": {"replicas": count}})
    counts = [each.get("status", {}) for each in own.values()]
    status = {
        "replicas": sum(each.get("replicas", 0) for each in counts),
        "readyReplicas": sum(each.get("readyReplicas", 0) for each in counts),
        "availableReplicas": sum(each.get("readyReplicas", 0) for each in counts),
        "updatedReplicas": own.get(wanted, {}).get("status", {}).get("replicas", 0),
        "observedGeneration": meta.get("generation", 1),
    }
    await report(kube, f"{path}/deployments/{meta['name']}", deployment, status)


async def keep_replica_set(kube: Kube, replica_set: dict[str, Any], pods: Informer) -> None:
    """Bring a ReplicaSet's pods to its number, and report."""
    meta = replica_set["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods"
    # Real names end by chance; these by the place they fill, so that a loop that sees late makes none twice.
    wanted = [
        f"{meta['name']}-{_letters(meta['uid'] + str(place), 5)}"
        for place in range(replica_set["spec"].get("replicas", 1))
    ]
    own = {pod["metadata"]["name"]: pod for pod in owned(meta["uid"], pods)}
    for name in wanted:
        if name not in own:
            await kube.ensure(path, make_pod(replica_set, name, {}))
    for name, pod in own.items():
        if name not in wanted and "deletionTimestamp" not in pod["metadata"]:
            await kube.delete(f"{path}/{name}")
    ready = sum(is_ready(pod) for pod in own.values())
    status = {
        "replicas": len(own),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": meta.get("generation", 1),
    }
    where = f"/apis/apps/v1/namespaces/{meta['namespace']}/replicasets/{meta['name']}"
    await report(kube, where, replica_set, status)


async def report(kube: Kube, path: str, obj: dict[str, Any], status: dict[str, Any]) -> None:
    """Write an object's status unless it says that already."""
    if obj.get("status") != status:
        await kube.replace(f"{path}/status", {**obj, "metadata": {"name": obj["metadata"]["name"]}, "status": status})


def owned(uid: str, informer: Informer) -> list[dict[str, Any]]:
    """Return the objects that the one with this uid owns."""
    return [item for item in informer.items.values() if owner_uid(item) == uid]


def owner_uid(obj: dict[str, Any]) -> str:
    return next((reference["uid"] for reference in obj["metadata"].get("ownerReferences", ())), "")


def owner_reference(owner: dict[str, Any], kind: str) -> dict[str, Any]:
    meta = owner["metadata"]
    return {"apiVersion": "apps/v1", "kind": kind, "name": meta["name"], "uid": meta["uid"], "controller": True}


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def make_pod(owner: dict[str, Any], name: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return the pod of an owner's template."""
    template = copy.deepcopy(owner["spec"]["template"])
    metadata = {
        **template["metadata"],
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner, owner["kind"])],
        "labels": template["metadata"].get("labels", {}) | labels,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _replica_set(deployment: dict[str, Any], name: str, revision: str) -> dict[str, Any]:
    template = copy.deepcopy(deployment["spec"]["template"])
    labels = template["metadata"].get("labels", {}) | {HASH_LABEL: revision}
    template["metadata"]["labels"] = labels
    references = [owner_reference(deployment, "Deployment")]
    return {
        "metadata": {"name": name, "labels": labels, "ownerReferences": references},
        "spec": {
            "replicas": deployment["spec"].get("replicas", 1),
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }


def _letters(text: str, count: int) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(LETTERS[byte % len(LETTERS)] for byte in digest[:count])
