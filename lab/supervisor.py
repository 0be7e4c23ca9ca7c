"""The process behind ``python -m lab up``: starts every part of the site, in parallel, and ends them all with itself."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from lab.balancer import Address, Relay, node_of_caller
from lab.clusters_yaml import write_configuration
from lab.controllers import Controllers
from lab.faults import Faults
from lab.kube import Kube
from lab.kubelet import Kubelet
from lab.layout import LOOPBACK, SKIFF, SKIFF_ADDRESS, ClusterLayout, Layout, write_atomic
from lab.processes import end_leftovers, process_stamp
from lab.provision import provision
from lab.runtime import reserve_view
from lab.samples import Item, admin_cluster, kubeadm_objects, root_ca_object, seed, workloads

READY_S = 120
SERVERS = ("lab.ssh", "lab.gcs")


class Supervisor:
    """The whole site, running."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.kubelets: dict[str, Kubelet] = {}
        self._servers: list[asyncio.subprocess.Process] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._relays: list[Relay] = []
        self._clients: list[Kube] = []

    async def run(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._asked_to_stop, number, stop)
        try:
            starting = asyncio.create_task(self._start())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._say("ready")
                await stopping
            starting.cancel()
        finally:
            self._say("stopping")
            await self._close()
            self._say("down")

    def _asked_to_stop(self, number: signal.Signals, stop: asyncio.Event) -> None:
        print(f"{number.name}: the site stops", flush=True)
        stop.set()

    async def _start(self) -> None:
        for cluster in self.layout.clusters.values():
            for node in cluster.nodes:
                kubelet = Kubelet(node, cluster, str(self.layout.root))
                self.kubelets[node.name] = kubelet
                kubelet.start()
        for module in SERVERS:
            self._servers.append(await self._serve(module))
        await asyncio.gather(*(self._start_cluster(cluster) for cluster in self.layout.clusters.values()))

    async def _start_cluster(self, cluster: ClusterLayout) -> None:
        """Wait for a cluster's API, fill it the first time, start its control loops; then the same inside it."""
        for relay in self._cluster_relays(cluster):
            await relay.start()
            self._relays.append(relay)
        kube = Kube(cluster.server, cluster.nodes[0].pki / "ca.crt", cluster.root / "admin", "kube-controller-manager")
        self._clients.append(kube)
        await _until_ready(kube)
        first = cluster.nodes[0]
        root_ca = (first.pki / "ca.crt").read_text()
        controllers = Controllers(kube, first, root_ca, lambda: self._any_ready(cluster, "kube-controller-manager"))
        self._tasks.append(asyncio.create_task(controllers.run()))
        items = [*kubeadm_objects(cluster.name, cluster.server), *workloads(cluster.name)]
        if cluster.name == "harbor":
            items = [*admin_cluster(self.layout), *items]
        await _seed_once(kube, cluster.root / "seeded", items)
        if cluster.name == "harbor":
            await self._start_skiff()

    async def _start_skiff(self) -> None:
        server = f"https://{SKIFF_ADDRESS}:{self.layout.ports['skiff_api']}"
        kube = Kube(server, self.layout.skiff / "api/ca.crt", self.layout.skiff / "admin", "kubectl-create")
        self._clients.append(kube)
        await _until_ready(kube)
        root_ca = (self.layout.skiff / "api/ca.crt").read_text()
        await _seed_once(kube, self.layout.skiff / "seeded", [root_ca_object(root_ca), *workloads(SKIFF)])

    def _cluster_relays(self, cluster: ClusterLayout) -> list[Relay]:
        """Return the load balancer and the loopback routers of a cluster with several nodes."""
        if not cluster.balanced:
            return []

        async def to_ready(_: Address) -> list[Address]:
            nodes = sorted(cluster.nodes, key=lambda node: not self.kubelets[node.name].is_ready("kube-apiserver"))
            return [(node.address, cluster.api_port) for node in nodes]

        async def to_own(caller: Address, port: int) -> list[Address]:
            tree = node_of_caller(caller, (LOOPBACK, port), tuple(node.root for node in cluster.nodes))
            return [(node.address, port) for node in cluster.nodes if node.root == tree]

        own = [Relay(LOOPBACK, port, partial(to_own, port=port)) for port in (cluster.etcd_port, cluster.api_port)]
        return [Relay(cluster.endpoint, cluster.api_port, to_ready), *own]

    def _any_ready(self, cluster: ClusterLayout, pod: str) -> bool:
        return any(self.kubelets[node.name].is_ready(pod) for node in cluster.nodes)

    async def _serve(self, module: str) -> asyncio.subprocess.Process:
        with open(self.layout.root / "run" / f"{module}.log", "ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, str(self.layout.root), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        write_atomic(self.layout.root / "run" / f"{module}.pid", json.dumps(process_stamp(process.pid)))
        return process

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for relay in self._relays:
            relay.close()
        for client in self._clients:
            await client.close()
        for process in self._servers:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*(kubelet.close() for kubelet in self.kubelets.values()))
        for process in self._servers:
            await process.wait()

    def _say(self, state: str) -> None:
        write_atomic(self.layout.root / "run/state", state)


async def _until_ready(kube: Kube) -> None:
    async with asyncio.timeout(READY_S):
        while not await kube.ready():
            await asyncio.sleep(0.1)


async def _seed_once(kube: Kube, marker: Path, items: list[Item]) -> None:
    if not marker.exists():
        await seed(kube, items)
        marker.touch()


def main(root: Path) -> None:
    """Run the site in `root` until SIGTERM or SIGINT."""
    faulthandler.enable()
    reserve_view()
    layout = Layout.load_or_create(root)
    (layout.root / "run").mkdir(exist_ok=True)
    with open(layout.root / "run/lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another supervisor runs {layout.root}")
        _run_locked(layout)


def _run_locked(layout: Layout) -> None:
    write_atomic(layout.root / "run/state", "starting")
    end_leftovers(layout)
    Faults(layout.root).clear()
    taken = layout.taken_ports()
    if taken:
        sys.exit(f"ports {taken} of {layout.root}/lab.json are in use by others; stop them, or remove the folder")
    write_atomic(layout.root / "run/supervisor.pid", json.dumps(process_stamp(os.getpid())))
    provision(layout)
    write_configuration(layout)
    asyncio.run(Supervisor(layout).run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
