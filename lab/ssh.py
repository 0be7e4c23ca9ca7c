"""
The SSH servers of the nodes and of the jump host: real SSH, one process, one listener per host.

``python -m lab.ssh DIR``. A login is ``ubuntu`` with the site's key; commands run as a real sshd runs them (``sh -c``),
with the node's own programs on the PATH, and may be forwarded on to any loopback address.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

from lab.faults import STREAM_ACTIONS, FaultFile, Tap
from lab.hosts import HOST_KEY_KINDS
from lab.layout import JUMP_ADDRESS, SSH_USER, Layout, Node
from lab.runtime import exit_code, reserve_view, spawn
from lab.tools import python_env

if TYPE_CHECKING:
    from collections.abc import Coroutine

CHUNK_BYTES = 256 * 1024
WATCH_EVERY_S = 0.05
LAST_MARK = re.compile(rb"<[\w-]+ \d+>\Z")
"""With which the product's shell ends a command's output: it comes from the shell, not from a program that stops early."""


@dataclass(frozen=True)
class Host:
    """One machine with an SSH server; the jump host has no node behind it."""

    name: str
    address: str
    port: int
    root: Path
    node: Node | None


def hosts(layout: Layout) -> list[Host]:
    jump = Host("jump", JUMP_ADDRESS, layout.ports["jump"], layout.root / "jump", None)
    nodes = [Host(node.name, node.address, layout.ports["ssh"], node.root, node) for node in layout.nodes]
    return [jump, *nodes]


class SshHost(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, host: Host, faults: FaultFile, key_line: str) -> None:
        self._host = host
        self._faults = faults
        self._keys = asyncssh.import_authorized_keys(key_line)
        self._connection: Any = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def begin_auth(self, username: str) -> bool:
        if username == SSH_USER and not self._faults.take("ssh", self._host.name, "", "auth"):
            self._connection.set_authorized_keys(self._keys)
        return True

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """Forward (``ssh -W``), to this machine only."""
        if self._faults.take("ssh", self._host.name, f"{dest_host}:{dest_port}", "forward"):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "Connection timed out")
        return dest_host.startswith("127.")


class Listener:
    """A host's listening socket; faults close it, or choose what a new connection meets."""

    def __init__(self, host: Host, layout: Layout, faults: FaultFile) -> None:
        self.host = host
        self._layout = layout
        self._faults = faults
        self._key_line = (layout.keys / "vsphere_tmp.pub").read_text()
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow_faults(self) -> None:
        """Listen, except while a ``refuse`` fault is set."""
        accepting: asyncio.Task[None] | None = None
        while True:
            refused = any(
                (fault.kind, fault.action) == ("ssh", "refuse") and re.search(fault.where, self.host.name)
                for fault in self._faults.all()
            )
            if refused and accepting is not None:
                accepting.cancel()
                accepting = None
                for connection in list(self._connections):
                    connection.abort()
            elif not refused and accepting is None:
                accepting = asyncio.create_task(self._accept())
            await asyncio.sleep(WATCH_EVERY_S)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server((self.host.address, self.host.port), backlog=100) as listening:
            listening.setblocking(False)
            while True:
                connection, _ = await loop.sock_accept(listening)
                self._begin(self._serve(connection))

    async def _serve(self, connection: socket.socket) -> None:
        name = self.host.name
        if self._faults.take("ssh", name, "", "drop"):
            connection.close()
            return
        suffix = "_changed" if self._faults.take("ssh", name, "", "hostkey") else ""
        try:
            server = await asyncssh.run_server(
                connection,
                server_factory=lambda: SshHost(self.host, self._faults, self._key_line),
                server_host_keys=[
                    str(self._layout.keys / "host" / f"{name}_{kind}{suffix}") for kind in HOST_KEY_KINDS
                ],
                process_factory=self._run,
                encoding=None,
                line_editor=False,
                compression_algs=None,
                window=4 << 20,
                max_pktsize=CHUNK_BYTES,
            )
        except (asyncssh.Error, ConnectionError, OSError):
            return
        self._connections.add(server)
        await server.wait_closed()
        self._connections.discard(server)

    def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        if process.command is None or self.host.node is None:
            process.stderr.write(b"This account runs single commands only.\n")
            process.exit(1)
            return
        fault = self._faults.take("ssh", self.host.name, process.command, *STREAM_ACTIONS, "sudo")
        self._begin(Command(process, self.host.node, process.command, Tap(fault)).run())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task that outlives the connection it came from, as a command does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Command:
    """One command on a node, between its pipes and an SSH channel."""

    def __init__(self, process: asyncssh.SSHServerProcess[bytes], node: Node, line: str, tap: Tap) -> None:
        self._process = process
        self._node = node
        self._line = line
        self._tap = tap
        self._stream_tap = tap if tap.action in STREAM_ACTIONS else None

    async def run(self) -> None:
        pipe = subprocess.PIPE
        child = spawn(self._node, ["/bin/sh", "-c", self._line], self._env(), stdin=pipe, stdout=pipe, stderr=pipe)
        stdout, stderr = await _reader(child.stdout), await _reader(child.stderr)
        feeding = asyncio.create_task(self._feed(child))
        ending = asyncio.create_task(exit_code(child))
        try:
            await asyncio.gather(
                self._forward(stdout, self._process.stdout, self._stream_tap),
                self._forward(stderr, self._process.stderr),
            )
            code = await ending
            await self._strike(self._tap.end())
            if self._tap.action == "no-status":
                self._process.close()
            else:
                self._process.exit(code)
        except (asyncssh.Error, ConnectionError, OSError, Cut):
            self._process.close()
        finally:
            feeding.cancel()
            for transport in (stdout, stderr):
                transport._transport.close()  # type: ignore[attr-defined]

    async def _forward(self, source: asyncio.StreamReader, target: Any, tap: Tap | None = None) -> None:
        while data := await source.read(CHUNK_BYTES):
            action = ""
            if tap is not None:
                whole = data
                data, action = tap.feed(data)
                if tap.action == "truncate" and (mark := LAST_MARK.search(whole[len(data) :])):
                    data += mark[0]
            target.write(data)
            await target.drain()
            await self._strike(action)
            if tap is not None and tap.action == "slow" and tap.fault is not None:
                await asyncio.sleep(len(data) / tap.fault.value)

    async def _strike(self, action: str) -> None:
        connection = self._process.get_extra_info("connection")
        if action == "stall":
            await self._process.wait_closed()
        if action == "cut":
            connection.abort()
        if action in ("cut", "close", "stall"):
            raise Cut

    async def _feed(self, child: subprocess.Popen[bytes]) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, child.stdin)
        try:
            while data := await self._process.stdin.read(CHUNK_BYTES):
                transport.write(data)
                while transport.get_write_buffer_size() > CHUNK_BYTES:
                    await asyncio.sleep(0.001)
        except asyncssh.Error:
            pass
        finally:
            transport.close()

    def _env(self) -> dict[str, str]:
        view = self._node.view
        path = f"{view}/usr/local/bin:{view}/usr/bin"
        base = {
            "PATH": path,
            "HOME": f"{view}/home/{SSH_USER}",
            "USER": SSH_USER,
            "LOGNAME": SSH_USER,
            "SHELL": "/bin/sh",
        }
        return base | python_env() | ({"LAB_SUDO": "refuse"} if self._tap.action == "sudo" else {})


class Cut(Exception):
    """The stream ends here, without an exit status."""


async def _reader(file: Any) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader


async def main(root: Path) -> None:
    layout = Layout.load(root)
    faults = FaultFile(layout.root)
    listeners = [Listener(host, layout, faults) for host in hosts(layout)]
    tasks = [asyncio.create_task(listener.follow_faults()) for listener in listeners]
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await asyncio.wait((*tasks, asyncio.create_task(stop.wait())), return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    reserve_view()
    asyncio.run(main(Path(sys.argv[1])))
