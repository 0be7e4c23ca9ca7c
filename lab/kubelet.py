"""
The kubelet stand-in of one node.

It runs what is in the manifests folder (every file, whatever its name, dot-files excepted, as the real one) and the
pods that the API binds to its node, restarts what crashes, shows static pods to the API as mirror pods, and reports.
Stopping it leaves the containers running; the API being down stops nothing either.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
import traceback
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml

from lab.kube import Informer, Kube, KubeError
from lab.layout import KUBERNETES_VERSION, ClusterLayout, Node, write_atomic
from lab.manifests import ETCD_IMAGE, ETCD_UTIL_IMAGE
from lab.pods import PodWorker, timestamp
from lab.tools import python_env

if TYPE_CHECKING:
    from collections.abc import Iterator

SYNC_EVERY_S = 0.1
LEASE_EVERY_S = 10.0
POWER_OFF_S = 2.0
PRESENT_IMAGES = (ETCD_IMAGE, ETCD_UTIL_IMAGE)
MIRROR = "kubernetes.io/config.mirror"


class Kubelet:
    """One node's kubelet; `changed` wakes the reporting."""

    def __init__(self, node: Node, cluster: ClusterLayout, lab_dir: str) -> None:
        self.node = node
        self.active = asyncio.Event()
        self.changed = asyncio.Event()
        self.environment = python_env() | {"LAB_DIR": lab_dir, "LAB_CLUSTER": cluster.name, "LAB_NODE": node.name}
        server = f"https://{node.address}:{cluster.api_port}"
        self.kube = Kube(server, node.pki / "ca.crt", node.root / "var/lib/kubelet/pki/kubelet-client", "kubelet")
        self.probes = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        self.informer = Informer(self.kube, "/api/v1/pods", self.changed, fieldSelector=f"spec.nodeName={node.name}")
        self.workers: dict[str, PodWorker] = {}
        self._manifests: dict[str, tuple[int, dict[str, Any] | None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._node_uid = ""
        self._state = ""

    def start(self) -> None:
        self.node.run.mkdir(parents=True, exist_ok=True)
        write_atomic(self.node.run / "kubelet.want", "active\n")
        self._tasks = [
            asyncio.create_task(step()) for step in (self._sync, self._report, self._lease, self.informer.run)
        ]

    async def close(self) -> None:
        """End everything that runs on the node."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(worker.stop(POWER_OFF_S) for worker in self.workers.values()))
        await self.probes.close()
        await self.kube.close()

    def is_ready(self, name: str) -> bool:
        """Tell whether a static pod runs and answers its probe."""
        worker = self.workers.get(name)
        return worker is not None and worker.ready

    # --- what should run ---------------------------------------------------------------------------------------

    async def _sync(self) -> None:
        while True:
            try:
                self._obey()
                if self.active.is_set():
                    self._reconcile()
            except OSError:  # a folder may be moved between two reads of it
                traceback.print_exc()
            await asyncio.sleep(SYNC_EVERY_S)

    def _obey(self) -> None:
        """Follow ``systemctl``, which writes run/kubelet.want and waits for run/kubelet.state."""
        wanted = (self.node.run / "kubelet.want").read_text().strip()
        if wanted == self._state or wanted not in ("active", "inactive"):
            return
        self._state = wanted
        self.active.set() if wanted == "active" else self.active.clear()
        write_atomic(self.node.run / "kubelet.state", f"{wanted}\n")
        self.changed.set()

    def _reconcile(self) -> None:
        wanted = dict((*self._static_pods(), *self._bound_pods()))
        for key, worker in list(self.workers.items()):
            if worker.gone:
                del self.workers[key]
            elif key not in wanted or wanted[key]["metadata"]["uid"] != worker.uid:
                worker.begin_stop()
            elif "deletionTimestamp" in wanted[key]["metadata"]:
                worker.begin_stop(wanted[key]["metadata"].get("deletionGracePeriodSeconds"))
        for key, pod in wanted.items():
            if key not in self.workers and "deletionTimestamp" not in pod["metadata"]:
                self.workers[key] = PodWorker(self, pod, key)

    def _static_pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        paths = sorted(self.node.manifests.iterdir()) if self.node.manifests.is_dir() else []
        for path in paths:
            if not path.name.startswith(".") and path.is_file():
                with contextlib.suppress(FileNotFoundError):
                    pod = self._read_manifest(str(path), path.stat().st_mtime_ns)
                    if pod is not None:
                        yield pod["metadata"]["annotations"]["lab/key"], pod

    def _read_manifest(self, path: str, stamp: int) -> dict[str, Any] | None:
        if self._manifests.get(path, (0, None))[0] != stamp:
            with open(path, "rb") as file:
                data = file.read()
            self._manifests[path] = stamp, self._static_pod(data)
        return self._manifests[path][1]

    def _static_pod(self, data: bytes) -> dict[str, Any] | None:
        """Return the pod of a manifest; its uid is the hash of what is written there."""
        try:
            pod = yaml.safe_load(data)
            digest = hashlib.md5(data + self.node.name.encode()).hexdigest()
            meta = pod["metadata"]
            annotations = meta.get("annotations", {}) | {
                "lab/key": meta["name"],
                "kubernetes.io/config.hash": digest,
                "kubernetes.io/config.source": "file",
            }
            meta |= {"uid": digest, "annotations": annotations, "name": f"{meta['name']}-{self.node.name}"}
            meta.setdefault("namespace", "default")
            pod["spec"]["nodeName"] = self.node.name
            pod["spec"]["containers"][0]["command"][0]
        except (yaml.YAMLError, KeyError, TypeError, IndexError):
            return None
        return pod

    def _bound_pods(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for (namespace, name), pod in self.informer.items.items():
            if MIRROR not in pod["metadata"].get("annotations", {}):
                yield f"{namespace}_{name}", pod

    # --- what is reported --------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            if self.active.is_set() and self.informer.synced:
                try:
                    await self._register()
                    for key, worker in list(self.workers.items()):
                        await self._report_pod(key, worker)
                    await self._drop_stale_mirrors()
                    await self._finish_deletions()
                except KubeError:
                    self.changed.set()
            await asyncio.sleep(SYNC_EVERY_S)

    async def _report_pod(self, key: str, worker: PodWorker) -> None:
        meta = worker.pod["metadata"]
        static = "lab/key" in meta.get("annotations", {})
        path = f"/api/v1/namespaces/{meta['namespace']}/pods"
        shown = self.informer.items.get((meta["namespace"], meta["name"]))
        if static and worker.stopping:
            return
        if static and shown is not None and shown["metadata"].get("annotations", {}).get(MIRROR) != worker.uid:
            await self.kube.delete(f"{path}/{meta['name']}", grace_s=0)
            shown = None
        if shown is None:
            if not static or worker.gone:
                return
            shown = await self.kube.create(path, self._mirror(worker))
        status = worker.status()
        if any(shown.get("status", {}).get(field) != value for field, value in status.items()):
            await self.kube.merge(f"{path}/{meta['name']}/status", {"status": status})

    async def _drop_stale_mirrors(self) -> None:
        """Delete mirror pods whose manifest is gone."""
        names = {worker.pod["metadata"]["name"] for worker in self.workers.values()}
        for (namespace, name), pod in list(self.informer.items.items()):
            if MIRROR in pod["metadata"].get("annotations", {}) and name not in names:
                await self.kube.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", grace_s=0)

    async def _finish_deletions(self) -> None:
        """Take pods out of the API that were marked for deletion and have ended."""
        for key, pod in list(self._bound_pods()):
            meta = pod["metadata"]
            if "deletionTimestamp" in meta and (key not in self.workers or self.workers[key].gone):
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
                await self.kube.delete(path, grace_s=0, uid=meta["uid"])

    def _mirror(self, worker: PodWorker) -> dict[str, Any]:
        meta = worker.pod["metadata"]
        annotations = {key: value for key, value in meta["annotations"].items() if key != "lab/key"}
        annotations |= {
            MIRROR: worker.uid,
            "kubernetes.io/config.seen": timestamp(worker.started),
        }
        owner = {"apiVersion": "v1", "kind": "Node", "name": self.node.name, "uid": self._node_uid, "controller": True}
        metadata = {
            "name": meta["name"], "namespace": meta["namespace"], "labels": meta.get("labels", {}),
            "annotations": annotations, "ownerReferences": [owner],
        }  # fmt: skip
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": worker.pod["spec"]}

    async def _register(self) -> None:
        path = f"/api/v1/nodes/{self.node.name}"
        try:
            node = await self.kube.get(path)
        except KubeError as err:
            if err.code != 404:
                raise
            node = await self.kube.create("/api/v1/nodes", self._node_object())
        self._node_uid = node["metadata"]["uid"]
        if not node.get("status", {}).get("nodeInfo"):
            await self.kube.merge(f"{path}/status", {"status": self._node_object()["status"]})

    def _node_object(self) -> dict[str, Any]:
        labels = {
            "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": self.node.name, "kubernetes.io/os": "linux",
            "node-role.kubernetes.io/control-plane": "", "node.kubernetes.io/exclude-from-external-load-balancers": "",
        }  # fmt: skip
        addresses = [("InternalIP", self.node.address), ("ExternalIP", self.node.address), ("Hostname", self.node.name)]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.node.name, "labels": labels},
            "spec": {},
            "status": {
                "addresses": [{"type": kind, "address": address} for kind, address in addresses],
                "capacity": {"cpu": "2", "memory": "24684092Ki", "pods": "110"},
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
                ],
                "images": [{"names": [image], "sizeBytes": 1 << 20} for image in PRESENT_IMAGES],
                "nodeInfo": {
                    "kubeletVersion": KUBERNETES_VERSION, "containerRuntimeVersion": "containerd://2.1.4",
                    "osImage": "etcdkeep lab", "kernelVersion": "", "architecture": "amd64", "operatingSystem": "linux",
                },
            },
        }  # fmt: skip

    async def _lease(self) -> None:
        """Renew the node's Lease: real control planes are never quiet."""
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while True:
            if self.active.is_set() and self.informer.synced:
                spec = {
                    "holderIdentity": self.node.name,
                    "leaseDurationSeconds": 40,
                    "renewTime": timestamp(time.time()),
                }
                with contextlib.suppress(KubeError):
                    await self.kube.ensure(path, {"metadata": {"name": self.node.name}, "spec": spec})
                    await self.kube.merge(f"{path}/{self.node.name}", {"spec": spec})
            await asyncio.sleep(LEASE_EVERY_S)
