"""
Containers as plain processes: what containerd is on a real node.

A container's folder on the node, ``containers/<pod>/<container>/``, holds ``bin`` (the programs of its image),
``tmp`` (emptied at every start), ``log``, ``exec`` (one file per command running in it) and ``state.json``, which
crictl and the API server read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.layout import VIEW_FD, Node, write_atomic
from lab.tools import fill_bin, image_tools

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class ContainerState:
    """
    What is known of a container.

    :param folder: Its folder as seen on the node.
    :param source: Where its pod is from: ``file`` (a manifest) or ``api``.
    """

    id: str
    name: str
    pod: str
    namespace: str
    pod_uid: str
    image: str
    folder: str
    attempt: int = 0
    pid: int = 0
    state: str = "CONTAINER_CREATED"
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    command: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    source: str = "api"

    @property
    def running(self) -> bool:
        return self.state == "CONTAINER_RUNNING"


def container_states(node: Node) -> Iterator[ContainerState]:
    """Yield what ``crictl ps -a`` shows on a node."""
    for path in sorted(node.containers.glob("*/*/state.json")):
        with contextlib.suppress(FileNotFoundError):
            yield ContainerState(**json.loads(path.read_text()))


def find_container(node: Node, namespace: str, pod: str, container: str) -> ContainerState | None:
    wanted = (namespace, pod, container)
    return next((one for one in container_states(node) if (one.namespace, one.pod, one.name) == wanted), None)


def resolve_program(node: Node, state: ContainerState, name: str) -> str | None:
    """Return the real path of a program inside a container, None when its image has none of that name."""
    own = node.real(state.folder) / "bin"
    if "/" not in name or name.lstrip("/").split("/")[0] in ("bin", "usr", "sbin"):
        path = own / Path(name).name
    else:
        path = Path(name)
    return str(path) if path.exists() and os.access(path, os.X_OK) else None


def reserve_view() -> None:
    """Take the descriptor's number before anything else does; for processes that start others on nodes."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, VIEW_FD)
    os.close(null)


def spawn(node: Node, argv: list[str], env: dict[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start a process of a node: in its own process group, with the node's tree as working folder and view."""
    view = node.open_view()

    def prepare() -> None:
        os.dup2(view, VIEW_FD, inheritable=True)

    try:
        return subprocess.Popen(
            argv, env=env, cwd=node.root, start_new_session=True, preexec_fn=prepare, pass_fds=(VIEW_FD,), **streams
        )
    finally:
        os.close(view)


def tree_of(pid: int) -> str | None:
    """Return the node's tree that a process belongs to, by the descriptor that all of a node's processes inherit."""
    try:
        return os.readlink(f"/proc/{pid}/fd/{VIEW_FD}")
    except OSError:
        return None


async def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process and return its exit code, 128 + n for signal n."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    code = process.wait()
    return code if code >= 0 else 128 - code


class Container:
    """One container that the kubelet runs; restarted under the same name with a new id."""

    def __init__(
        self, node: Node, pod_key: str, name: str, image: str, command: list[str], env: dict[str, str]
    ) -> None:
        self.node = node
        self.folder = node.containers / pod_key / name
        self.command = command
        self.image = image
        self.env = env
        self.state: ContainerState | None = None
        self.restarts = -1
        self.last_exit: dict[str, Any] | None = None
        self._view = str(node.view / "containers" / pod_key / name)
        self._name = name
        self._waiter: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self.state is not None and self.state.running

    async def start(self, pod: str, namespace: str, uid: str, source: str) -> None:
        """Start the process; :raises FileNotFoundError: when its image has no such program."""
        self.restarts += 1
        (self.folder / "exec").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp").mkdir()
        if not (self.folder / "bin.keep").exists():
            fill_bin(self.folder / "bin", image_tools(self.image))
        state = ContainerState(
            secrets.token_hex(32), self._name, pod, namespace, uid, self.image, self._view, self.restarts,
            created_at=time.time(), command=self.command, env=self.env,
            source=source,
        )  # fmt: skip
        program = resolve_program(self.node, state, self.command[0])
        if program is None:
            raise FileNotFoundError(f'exec: "{self.command[0]}": executable file not found in $PATH')
        with open(self.folder / "log", "wb") as log:
            argv = [program, *self.command[1:]]
            process = spawn(self.node, argv, container_env(state), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        state.pid, state.state, state.started_at = process.pid, "CONTAINER_RUNNING", time.time()
        self._save(state)
        self._waiter = asyncio.create_task(self._wait(process, state))

    async def ended(self) -> None:
        """Wait until the running process has ended."""
        if self._waiter is not None:
            await asyncio.shield(self._waiter)

    async def stop(self, grace_s: float) -> None:
        """End it: SIGTERM, SIGKILL after `grace_s`; returns when it is gone."""
        if self.state is None or self._waiter is None:
            return
        if self.state.running:
            _signal(self.state.pid, signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._waiter), max(grace_s, 0.1))
                return
            _signal(self.state.pid, signal.SIGKILL)
        await self._waiter

    def remove(self) -> None:
        """Forget it, as the kubelet does with a pod that is gone."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    async def _wait(self, process: subprocess.Popen[bytes], state: ContainerState) -> None:
        state.exit_code = await exit_code(process)
        state.state, state.finished_at = "CONTAINER_EXITED", time.time()
        self.last_exit = {
            "exitCode": state.exit_code,
            "id": state.id,
            "started": state.started_at,
            "finished": state.finished_at,
        }
        for entry in (self.folder / "exec").iterdir():
            if tree_of(int(entry.name)) == str(self.node.root):
                _signal_group(int(entry.name), signal.SIGKILL)
            entry.unlink(missing_ok=True)
        self._save(state)

    def _save(self, state: ContainerState) -> None:
        self.state = state
        if self.folder.exists():
            write_atomic(self.folder / "state.json", json.dumps(asdict(state)))


def container_env(state: ContainerState) -> dict[str, str]:
    """Return the environment of everything that runs in a container."""
    path = f"{state.folder}/bin"
    base = {"PATH": path, "TMPDIR": f"{state.folder}/tmp", "HOSTNAME": state.pod, "HOME": f"{state.folder}/tmp"}
    return base | state.env


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(pgid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)
