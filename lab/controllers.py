"""
The control loops of a cluster, as far as the lab needs them: they run while a controller-manager does.

Namespaces get their default ServiceAccount and root CA; StatefulSets get their pods and claims; Deployments get their
ReplicaSets and those their pods; claims get a volume; pods get a node; what an owner left when it went goes too.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

from lab.deployments import is_ready, keep_deployment, keep_replica_set, make_pod, owned, owner_uid, report
from lab.kube import Informer, Kube, KubeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lab.layout import Node

SETTLE_S = 0.1
HASH_LABEL = "controller-revision-hash"


class Controllers:
    """
    The loops of one cluster.

    :param alive: Whether a controller-manager runs now.
    """

    def __init__(self, kube: Kube, node: Node, root_ca: str, alive: Callable[[], bool]) -> None:
        self._kube = kube
        self._node = node
        self._root_ca = root_ca
        self._alive = alive
        self._changed = asyncio.Event()
        paths = {
            "namespaces": "/api/v1/namespaces",
            "pods": "/api/v1/pods",
            "claims": "/api/v1/persistentvolumeclaims",
            "sets": "/apis/apps/v1/statefulsets",
            "deployments": "/apis/apps/v1/deployments",
            "replicas": "/apis/apps/v1/replicasets",
        }
        self._informers = {name: Informer(kube, path, self._changed) for name, path in paths.items()}
        self._done: set[str] = set()

    async def run(self) -> None:
        watches = [asyncio.create_task(informer.run()) for informer in self._informers.values()]
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if self._alive() and all(informer.synced for informer in self._informers.values()):
                    try:
                        await self._step()
                    except KubeError:
                        self._changed.set()
                elif not self._alive():
                    self._changed.set()
                await asyncio.sleep(SETTLE_S)
        finally:
            for watch in watches:
                watch.cancel()

    async def _step(self) -> None:
        for namespace in self._all("namespaces"):
            if namespace["status"]["phase"] == "Active":
                await self._furnish(namespace)
        for claim in self._all("claims"):
            if not claim["spec"].get("volumeName"):
                await self._bind_claim(claim)
        for stateful_set in self._all("sets"):
            await self._scale(stateful_set)
        for deployment in self._all("deployments"):
            await keep_deployment(self._kube, deployment, self._informers["replicas"])
        for replica_set in self._all("replicas"):
            if not await self._collect(replica_set, "replicasets"):
                await keep_replica_set(self._kube, replica_set, self._informers["pods"])
        for pod in self._all("pods"):
            await self._place(pod)

    def _all(self, kind: str) -> list[dict[str, Any]]:
        return list(self._informers[kind].items.values())

    async def _furnish(self, namespace: dict[str, Any]) -> None:
        """Give a namespace, once per incarnation, what every namespace has."""
        name, uid = namespace["metadata"]["name"], namespace["metadata"]["uid"]
        if uid in self._done:
            return
        root = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": self._root_ca}}
        await self._kube.ensure(f"/api/v1/namespaces/{name}/configmaps", root)
        await self._kube.ensure(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        self._done.add(uid)

    async def _bind_claim(self, claim: dict[str, Any]) -> None:
        """Make a volume, a folder of the node, for a claim."""
        meta = claim["metadata"]
        name = f"pvc-{meta['uid']}"
        folder = self._node.view / "var/lib/volumes" / f"{meta['namespace']}-{meta['name']}"
        size = claim["spec"]["resources"]["requests"]["storage"]
        reference = {
            "kind": "PersistentVolumeClaim",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        }
        volume = {
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": size}, "accessModes": claim["spec"].get("accessModes", ["ReadWriteOnce"]),
                "persistentVolumeReclaimPolicy": "Retain", "claimRef": reference,
                "hostPath": {"path": str(folder), "type": "DirectoryOrCreate"},
                "storageClassName": claim["spec"].get("storageClassName", "standard"),
            },
            "status": {"phase": "Bound"},
        }  # fmt: skip
        await self._kube.ensure("/api/v1/persistentvolumes", volume)
        path = f"/api/v1/namespaces/{meta['namespace']}/persistentvolumeclaims/{meta['name']}"
        await self._kube.merge(path, {"spec": {"volumeName": name}})
        await self._kube.merge(f"{path}/status", {"status": {"phase": "Bound", "capacity": {"storage": size}}})

    async def _scale(self, stateful_set: dict[str, Any]) -> None:
        """Bring a StatefulSet's pods to its number and its template, one at a time, and report."""
        meta, spec = stateful_set["metadata"], stateful_set["spec"]
        pods = self._informers["pods"].items
        namespace = meta["namespace"]
        wanted = [f"{meta['name']}-{ordinal}" for ordinal in range(spec.get("replicas", 1))]
        own = {pod["metadata"]["name"]: pod for pod in owned(meta["uid"], self._informers["pods"])}
        path = f"/api/v1/namespaces/{namespace}/pods"
        revision = f"{meta['name']}-{hashlib.sha256(json.dumps(spec['template']).encode()).hexdigest()[:10]}"
        ready = [name for name, pod in own.items() if is_ready(pod)]
        for name in wanted:
            pod = pods.get((namespace, name))
            if pod is None:
                await self._make_claims(stateful_set, name)
                await self._kube.ensure(path, _pod(stateful_set, name, revision))
                break
            if "deletionTimestamp" in pod["metadata"] or not is_ready(pod):
                break
            if pod["metadata"].get("labels", {}).get(HASH_LABEL) != revision:
                await self._kube.delete(f"{path}/{name}")
                break
        for name in own:
            if name not in wanted and "deletionTimestamp" not in own[name]["metadata"]:
                await self._kube.delete(f"{path}/{name}")
        status = {
            "replicas": len(own), "readyReplicas": len(ready), "availableReplicas": len(ready), "currentReplicas": len(own),
            "updatedReplicas": len(own), "observedGeneration": meta.get("generation", 1), "currentRevision": revision,
            "updateRevision": revision,
        }  # fmt: skip
        where = f"/apis/apps/v1/namespaces/{namespace}/statefulsets/{meta['name']}"
        await report(self._kube, where, stateful_set, status)

    async def _make_claims(self, stateful_set: dict[str, Any], pod: str) -> None:
        for template in stateful_set["spec"].get("volumeClaimTemplates", ()):
            claim = copy.deepcopy(template)
            claim["metadata"] = {**template["metadata"], "name": f"{template['metadata']['name']}-{pod}"}
            claim.pop("status", None)
            namespace = stateful_set["metadata"]["namespace"]
            await self._kube.ensure(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", claim)

    async def _place(self, pod: dict[str, Any]) -> None:
        """Bind an unscheduled pod to the node, and drop one whose owner is gone."""
        if not await self._collect(pod, "pods") and not pod["spec"].get("nodeName"):
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            wanted = pod["spec"].get("nodeSelector", {}).get("kubernetes.io/hostname", self._node.name)
            with contextlib.suppress(KubeError):
                await self._kube.merge(path, {"spec": {"nodeName": wanted}})

    async def _collect(self, obj: dict[str, Any], plural: str) -> bool:
        """Delete an object whose owner is gone; tell whether it is."""
        meta = obj["metadata"]
        kinds = {reference["kind"] for reference in meta.get("ownerReferences", ())}
        owners = {each["metadata"]["uid"] for kind in ("sets", "deployments", "replicas") for each in self._all(kind)}
        if not kinds & {"StatefulSet", "Deployment", "ReplicaSet"} or owner_uid(obj) in owners:
            return False
        if "deletionTimestamp" not in meta:
            group = "/api/v1" if plural == "pods" else "/apis/apps/v1"
            await self._kube.delete(f"{group}/namespaces/{meta['namespace']}/{plural}/{meta['name']}")
        return True


def _pod(stateful_set: dict[str, Any], name: str, revision: str) -> dict[str, Any]:
    pod = make_pod(stateful_set, name, {HASH_LABEL: revision, "statefulset.kubernetes.io/pod-name": name})
    claims = [item["metadata"]["name"] for item in stateful_set["spec"].get("volumeClaimTemplates", ())]
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": f"{claim}-{name}"}} for claim in claims]
    pod["spec"]["volumes"] = [*volumes, *pod["spec"].get("volumes", ())]
    pod["spec"]["hostname"] = name
    return pod
