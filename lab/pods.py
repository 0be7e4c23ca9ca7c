"""One pod on a node: keeps its containers running, and says how they are."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from lab.runtime import Container
from lab.tools import known_image
from lab.variables import environment, expand
from lab.volumes import MountError, forget_volumes, mount_volumes

if TYPE_CHECKING:
    from lab.kube import Kube
    from lab.layout import Node

FIRST_BACK_OFF_S = 0.2
LAST_BACK_OFF_S = 5.0
STEADY_S = 10.0
PROBE_EVERY_S = 0.25
PROBE_READY_EVERY_S = 1.0
PULL_EVERY_S = 1.0


class NodeRuntime(Protocol):
    """What a pod needs of its node's kubelet."""

    node: Node
    active: asyncio.Event
    changed: asyncio.Event
    environment: dict[str, str]
    kube: Kube
    probes: aiohttp.ClientSession


class PodWorker:
    """
    A pod that this node should run, until :meth:`stop`.

    :param pod: The object; a static pod's own uid is the hash of its manifest.
    :param key: Name of its folder on the node.
    """

    def __init__(self, kubelet: NodeRuntime, pod: dict[str, Any], key: str) -> None:
        self.kubelet = kubelet
        self.pod = pod
        self.key = key
        self.uid: str = pod["metadata"]["uid"]
        self.gone = False
        self.stopping = False
        self._problems: dict[str, tuple[str, str]] = {}
        self._ready: dict[str, bool] = {}
        self._since: dict[str, float] = {}
        self.started = time.time()
        self.containers = {spec["name"]: self._container(spec) for spec in pod["spec"]["containers"]}
        self._tasks = [asyncio.create_task(self._keep(spec)) for spec in pod["spec"]["containers"]]

    def _container(self, spec: dict[str, Any]) -> Container:
        node = self.kubelet.node
        env = environment(spec, self.pod, node)
        command = [expand(word, env) for word in (*spec.get("command", ()), *spec.get("args", ()))]
        return Container(node, self.key, spec["name"], spec["image"], command, self.kubelet.environment | env)

    def begin_stop(self, grace_s: float | None = None) -> None:
        """Start ending the pod; `gone` is True once it has ended."""
        if not self.stopping:
            self.stopping = True
            spec_grace = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
            self._tasks.append(asyncio.create_task(self.stop(spec_grace if grace_s is None else grace_s)))

    async def stop(self, grace_s: float) -> None:
        self.stopping = True
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        await asyncio.gather(*(container.stop(grace_s) for container in self.containers.values()))
        for container in self.containers.values():
            container.remove()
        forget_volumes(self.kubelet.node, self.uid)
        self.gone = True
        self.kubelet.changed.set()

    async def _keep(self, spec: dict[str, Any]) -> None:
        """Run one container again and again, as restartPolicy Always wants it."""
        name, meta = spec["name"], self.pod["metadata"]
        source = meta.get("annotations", {}).get("kubernetes.io/config.source", "api")
        container = self.containers[name]
        back_off_s = FIRST_BACK_OFF_S
        while True:
            await self.kubelet.active.wait()
            if not known_image(spec["image"]):
                self._problems[name] = "ErrImagePull", f"the lab has no image {spec['image']!r}"
                self.kubelet.changed.set()
                await asyncio.sleep(PULL_EVERY_S)
                continue
            try:
                await mount_volumes(self.kubelet.node, self.kubelet.kube, self.pod)
                await container.start(meta["name"], meta["namespace"], self.uid, source)
            except (MountError, OSError) as err:
                self._problems[name] = "CreateContainerError", str(err)
                self.kubelet.changed.set()
                await asyncio.sleep(PULL_EVERY_S)
                continue
            self._problems.pop(name, None)
            self.kubelet.changed.set()
            probing = asyncio.create_task(self._probe(spec, container))
            try:
                await container.ended()
            finally:
                probing.cancel()
                self._set_ready(name, False)
            if self.pod["spec"].get("restartPolicy", "Always") == "Never":
                return
            ran_s = container.last_exit["finished"] - container.last_exit["started"] if container.last_exit else 0.0
            back_off_s = FIRST_BACK_OFF_S if ran_s > STEADY_S else back_off_s
            self._problems[name] = "CrashLoopBackOff", f"back-off {back_off_s:g}s restarting failed container={name}"
            await asyncio.sleep(back_off_s)
            back_off_s = min(back_off_s * 2, LAST_BACK_OFF_S)

    async def _probe(self, spec: dict[str, Any], container: Container) -> None:
        get = spec.get("readinessProbe", {}).get("httpGet")
        while container.running:
            if self.kubelet.active.is_set():
                self._set_ready(spec["name"], get is None or await self._answers(get))
            await asyncio.sleep(PROBE_READY_EVERY_S if self._ready.get(spec["name"]) else PROBE_EVERY_S)

    async def _answers(self, get: dict[str, Any]) -> bool:
        url = f"{get.get('scheme', 'HTTP').lower()}://{get['host']}:{get['port']}{get['path']}"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self.kubelet.probes.get(url, ssl=False) as response:
                return response.status == 200
        return False

    def _set_ready(self, name: str, ready: bool) -> None:
        if self._ready.get(name, False) != ready:
            self._ready[name] = ready
            self._since[name] = time.time()
            self.kubelet.changed.set()

    @property
    def ready(self) -> bool:
        return all(self._ready.get(name, False) for name in self.containers)

    def status(self) -> dict[str, Any]:
        """Return the pod's status as a kubelet reports it."""
        address = self.kubelet.node.address
        statuses = [self._container_status(name, container) for name, container in self.containers.items()]
        since = timestamp(max(self._since.values(), default=self.started))
        ready = "True" if self.ready else "False"
        conditions = [
            {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": moment}
            for kind, value, moment in (
                ("Initialized", "True", timestamp(self.started)),
                ("Ready", ready, since),
                ("ContainersReady", ready, since),
                ("PodScheduled", "True", timestamp(self.started)),
            )
        ]
        return {
            "phase": self._phase(),
            "conditions": conditions,
            "hostIP": address,
            "hostIPs": [{"ip": address}],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": timestamp(self.started),
            "containerStatuses": statuses,
            "qosClass": "Burstable",
        }

    def _phase(self) -> str:
        states = [container.state for container in self.containers.values()]
        if self.pod["spec"].get("restartPolicy") == "Never" and all(state and state.finished_at for state in states):
            return "Succeeded" if all(state and state.exit_code == 0 for state in states) else "Failed"
        return "Running" if all(states) else "Pending"

    def _container_status(self, name: str, container: Container) -> dict[str, Any]:
        state = container.state
        status: dict[str, Any] = {
            "name": name,
            "ready": self._ready.get(name, False),
            "started": container.running,
            "restartCount": max(container.restarts, 0),
            "image": container.image,
            "imageID": container.image,
            "lastState": {"terminated": _terminated(container.last_exit)} if container.last_exit else {},
        }
        if state is not None:
            status["containerID"] = f"containerd://{state.id}"
        if state is not None and state.running:
            return status | {"state": {"running": {"startedAt": timestamp(state.started_at)}}}
        if self.pod["spec"].get("restartPolicy") == "Never" and container.last_exit:
            return status | {"state": {"terminated": _terminated(container.last_exit)}}
        reason, message = self._problems.get(name, ("ContainerCreating", ""))
        return status | {"state": {"waiting": {"reason": reason} | ({"message": message} if message else {})}}


def _terminated(last: dict[str, Any]) -> dict[str, Any]:
    return {
        "exitCode": last["exitCode"],
        "reason": "Completed" if last["exitCode"] == 0 else "Error",
        "startedAt": timestamp(last["started"]),
        "finishedAt": timestamp(last["finished"]),
        "containerID": f"containerd://{last['id']}",
    }


def timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
