"""
``pods/exec`` over WebSocket, as a kubelet speaks it: v4.channel.k8s.io and v5.channel.k8s.io.

Binary messages whose first byte is the channel: 0 stdin, 1 stdout, 2 stderr, 3 the status as JSON when the command has
ended, 4 terminal size, and in v5 255 followed by the number of a channel that the client closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from lab.api.status import ApiError, bad_request, internal
from lab.faults import Fault, FaultFile, Tap
from lab.runtime import ContainerState, container_env, exit_code, resolve_program, spawn

if TYPE_CHECKING:
    from lab.layout import Node

STDIN, STDOUT, STDERR, STATUS, CLOSE = 0, 1, 2, 3, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
FRAME_BYTES = int(os.environ.get("LAB_FRAME_BYTES", 32 * 1024))
BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class ExecRequest:
    """What a client asks for."""

    node: Node
    state: ContainerState
    argv: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool

    @property
    def target(self) -> str:
        return f"{self.node.cluster}/{self.state.namespace}/{self.state.pod}/{self.state.name}"


class Cut(Exception):
    """The stream ends here, without a status."""


class _Output(asyncio.Protocol):
    """One of the command's output pipes; hands its bytes to the process."""

    def __init__(self, process: _Process, channel: int) -> None:
        self._process = process
        self._channel = channel

    def data_received(self, data: bytes) -> None:
        self._process.received(self._channel, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.open.discard(self._channel)
        self._process.news.set()


class _Input(asyncio.BaseProtocol):
    """The command's input pipe; tells when it takes more."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()


class _Process:
    """A running command: its output queues up to ``BUFFER_BYTES``, then its pipes wait."""

    def __init__(self) -> None:
        self.pieces: deque[tuple[int, bytes]] = deque()
        self.queued = 0
        self.open = {STDOUT, STDERR}
        self.news = asyncio.Event()
        self.input = _Input()
        self.code: int | None = None
        self.stdin: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.ReadTransport] = []
        self._ending: asyncio.Task[None] | None = None

    async def start(self, wanted: ExecRequest, program: str) -> None:
        loop = asyncio.get_running_loop()
        pipe = subprocess.PIPE
        child = spawn(
            wanted.node, [program, *wanted.argv[1:]], container_env(wanted.state),
            stdin=pipe if wanted.stdin else subprocess.DEVNULL, stdout=pipe, stderr=pipe, pipesize=BUFFER_BYTES,
        )  # fmt: skip
        for channel, file in ((STDOUT, child.stdout), (STDERR, child.stderr)):
            transport, _ = await loop.connect_read_pipe(partial(_Output, self, channel), file)
            self._outputs.append(transport)
        if child.stdin is not None:
            self.stdin, _ = await loop.connect_write_pipe(lambda: self.input, child.stdin)
        marker = wanted.node.real(wanted.state.folder) / "exec" / str(child.pid)
        marker.touch()
        self._ending = asyncio.create_task(self._end(child, marker))

    async def _end(self, child: subprocess.Popen[bytes], marker: Path) -> None:
        """Note the exit code; until then the marker lets the container's end be the command's end too."""
        self.code = await exit_code(child)
        marker.unlink(missing_ok=True)
        self.news.set()

    def received(self, channel: int, data: bytes) -> None:
        self.pieces.append((channel, data))
        self.queued += len(data)
        self.news.set()
        if self.queued > BUFFER_BYTES:
            self._reading(False)

    async def next_piece(self) -> tuple[int, bytes] | None:
        """Return channel and bytes; None when the command has ended and all is read."""
        while not self.pieces:
            if self.code is not None and not self.open:
                return None
            self.news.clear()
            await self.news.wait()
        piece = self.pieces.popleft()
        self.queued -= len(piece[1])
        if self.queued < BUFFER_BYTES // 2:
            self._reading(True)
        return piece

    def hang_up(self) -> None:
        """Close our ends of the pipes, as a runtime does when the client goes; the command itself is left alone."""
        for transport in (*self._outputs, self.stdin):
            if transport is not None:
                transport.close()

    def _reading(self, wanted: bool) -> None:
        for transport in self._outputs:
            if not transport.is_closing() and transport.is_reading() != wanted:
                transport.resume_reading() if wanted else transport.pause_reading()


async def serve_exec(request: web.Request, wanted: ExecRequest, faults: FaultFile) -> web.StreamResponse:
    """Upgrade the request, run the command and send its status."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("unable to upgrade: the lab speaks WebSocket only")
    if not any(name.strip() in PROTOCOLS for name in offered.split(",")):
        raise ApiError(403, "Forbidden", f"unable to upgrade: unsupported protocols {offered!r}")
    socket = web.WebSocketResponse(protocols=PROTOCOLS, compress=False, max_msg_size=0, timeout=1.0)
    await socket.prepare(request)
    channel = STDOUT if wanted.stdout else STDERR if wanted.stderr else STATUS
    await socket.send_bytes(bytes([channel]))
    fault = faults.take("exec", wanted.target, " ".join(wanted.argv))
    try:
        status = await _answered(socket, fault) or await _run(socket, wanted, fault)
        if fault is None or fault.action != "no-status":
            await socket.send_bytes(bytes([STATUS]) + json.dumps(status).encode())
        await socket.close()
    except Cut:
        if fault is not None and fault.action == "close":
            await socket.close()
        elif request.transport is not None:
            request.transport.abort()
    except (ConnectionError, asyncio.CancelledError):
        pass
    return socket


async def _run(socket: web.WebSocketResponse, wanted: ExecRequest, fault: Fault | None) -> dict[str, Any]:
    program = resolve_program(wanted.node, wanted.state, wanted.argv[0])
    if program is None:
        return _cannot_start(wanted)
    if fault is not None and fault.action == "no-space":
        with contextlib.suppress(FileExistsError):
            wanted.node.real(f"{wanted.argv[-1]}.part").symlink_to("/dev/full")
    process = _Process()
    await process.start(wanted, program)
    reader = asyncio.create_task(_receive(socket, process))
    try:
        await _send(socket, process, wanted, Tap(fault))
        return _exit_status(wanted.argv, process.code)
    finally:
        reader.cancel()
        process.hang_up()


async def _send(socket: web.WebSocketResponse, process: _Process, wanted: ExecRequest, tap: Tap) -> None:
    """Forward output until the command has ended, as far as the fault lets it."""
    while (piece := await process.next_piece()) is not None:
        channel, data = piece
        if not (wanted.stdout if channel == STDOUT else wanted.stderr):
            continue
        action = ""
        if channel == STDOUT:
            data, action = tap.feed(data)
        for start in range(0, len(data), FRAME_BYTES):
            await socket.send_bytes(bytes([channel]) + data[start : start + FRAME_BYTES])
        await _strike(action, socket, wanted)
        if tap.action == "slow" and tap.fault is not None:
            await asyncio.sleep(len(data) / tap.fault.value)
    await _strike(tap.end(), socket, wanted)


async def _strike(action: str, socket: web.WebSocketResponse, wanted: ExecRequest) -> None:
    if action == "restart":
        os.kill(wanted.state.pid, 9)
    if action == "stall":
        while not socket.closed:
            await asyncio.sleep(0.1)
    if action in ("cut", "close", "stall"):
        raise Cut


async def _receive(socket: web.WebSocketResponse, process: _Process) -> None:
    """Feed the command's standard input; when the client goes, let go of the command's pipes."""
    stdin = process.stdin
    async for message in socket:
        if message.type != WSMsgType.BINARY or not message.data:
            continue
        if message.data[0] == STDIN and stdin is not None:
            await process.input.writable.wait()
            stdin.write(message.data[1:])
        elif message.data[0] == CLOSE and stdin is not None and message.data[1:] == bytes([STDIN]):
            stdin.write_eof()
    process.hang_up()


async def _answered(socket: web.WebSocketResponse, fault: Fault | None) -> dict[str, Any] | None:
    if fault is None or fault.action != "answer":
        return None
    for channel, text in ((STDOUT, fault.value["stdout"]), (STDERR, fault.value["stderr"])):
        if text:
            await socket.send_bytes(bytes([channel]) + text.encode())
    return _exit_status(("answer",), fault.value["code"])


def _exit_status(argv: tuple[str, ...], code: int | None) -> dict[str, Any]:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    text = f"error executing command [{' '.join(argv)}], exit code {code}"
    return {
        "metadata": {}, "status": "Failure", "message": f"command terminated with non-zero exit code: {text}",
        "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }  # fmt: skip


def _cannot_start(wanted: ExecRequest) -> dict[str, Any]:
    name = wanted.argv[0]
    why = "executable file not found in $PATH" if "/" not in name else "no such file or directory"
    stat = "" if "/" not in name else f"stat {name}: "
    text = (
        f'error executing command in container: failed to exec in container: failed to start exec "{wanted.state.id}": '
        f'OCI runtime exec failed: exec failed: unable to start container process: exec: "{name}": {stat}{why}'
    )
    status = internal(text).status()
    return {key: value for key, value in status.items() if key not in ("kind", "apiVersion")}


def exec_request(node: Node, query: Any, state: ContainerState | None, container: str) -> ExecRequest:
    """Check a request as the API server and the kubelet do, before anything is upgraded."""
    argv = tuple(query.getall("command", ()))
    if not argv:
        raise bad_request("you must specify at least 1 command for the container")
    flags = {name: query.get(name, "").lower() in ("true", "1") for name in ("stdin", "stdout", "stderr")}
    if not any(flags.values()):
        raise bad_request("you must specify at least one of stdin, stdout, stderr")
    if state is None or not state.running or not Path(f"/proc/{state.pid}").exists():
        raise internal(f'unable to upgrade connection: container not found ("{container}")')
    return ExecRequest(node, state, argv, **flags)


def choose_container(pod: dict[str, Any], wanted: str) -> str:
    """Return the container that an exec goes to; :raises ApiError: when the pod has none of that name."""
    names = [container["name"] for container in pod["spec"]["containers"]]
    name = pod["metadata"]["name"]
    if wanted:
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(names) > 1:
        raise bad_request(f"a container name must be specified for pod {name}, choose one of: {names}")
    return str(names[0])
