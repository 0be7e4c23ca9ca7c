"""The process behind ``python -m lab up``: starts every part of the site, in parallel, and ends them all with itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import uvloop

from lab.faults import Faults
from lab.kube import Kube
from lab.kubelet import Kubelet
from lab.layout import ClusterLayout, Layout, write_atomic
from lab.processes import end_leftovers, process_stamp
from lab.provision import provision
from lab.runtime import reserve_view

READY_S = 120
SERVERS = ("lab.ssh", "lab.gcs")


class Supervisor:
    """The whole site, running."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.kubelets: dict[str, Kubelet] = {}
        self._servers: list[asyncio.subprocess.Process] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
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

    async def _start(self) -> None:
        for cluster in self.layout.clusters.values():
            for node in cluster.nodes:
                kubelet = Kubelet(node, cluster, str(self.layout.root))
                self.kubelets[node.name] = kubelet
                kubelet.start()
        for module in SERVERS:
            self._servers.append(await self._serve(module))
        await self._start_cluster(self.layout.clusters["harbor"])

    async def _start_cluster(self, cluster: ClusterLayout) -> None:
        kube = Kube(cluster.server, cluster.nodes[0].pki / "ca.crt", cluster.root / "admin")
        async with asyncio.timeout(READY_S):
            while not await kube.ready():
                await asyncio.sleep(0.1)
        await kube.close()

    async def _serve(self, module: str) -> asyncio.subprocess.Process:
        log = open(self.layout.root / "run" / f"{module}.log", "ab")
        with log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, str(self.layout.root), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        write_atomic(self.layout.root / "run" / f"{module}.pid", json.dumps(process_stamp(process.pid)))
        return process

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(kubelet.close() for kubelet in self.kubelets.values()))
        for process in self._servers:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in self._servers:
            await process.wait()

    def _say(self, state: str) -> None:
        write_atomic(self.layout.root / "run/state", state)


def main(root: Path) -> None:
    """Run the site in `root` until SIGTERM or SIGINT."""
    reserve_view()
    layout = Layout.load_or_create(root)
    (layout.root / "run").mkdir(exist_ok=True)
    write_atomic(layout.root / "run/state", "starting")
    end_leftovers(layout)
    Faults(layout.root).clear()
    write_atomic(layout.root / "run/supervisor.pid", json.dumps(process_stamp(os.getpid())))
    provision(layout)
    uvloop.run(Supervisor(layout).run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
