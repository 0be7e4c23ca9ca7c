"""
Two small TCP relays that a real site has in its network.

The load balancer stands before the API servers of a cluster with several nodes. The loopback router makes
``127.0.0.1:PORT`` each node's own: it looks up which node the caller runs on and passes it to that node's server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from lab.layout import VIEW_FD

RELAY_BYTES = 256 * 1024
CONNECT_S = 2.0

Address = tuple[str, int]
Route = Callable[[Address], Awaitable[list[Address]]]


class Relay:
    """
    A listening port whose connections are passed on.

    :param route: From the caller's address to the servers to try, in order.
    """

    def __init__(self, address: str, port: int, route: Route) -> None:
        self._where = address, port
        self._route = route
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, *self._where, limit=RELAY_BYTES)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = writer.get_extra_info("peername")[:2]
        for address, port in await self._route(caller):
            with contextlib.suppress(OSError, TimeoutError):
                server = await asyncio.wait_for(asyncio.open_connection(address, port, limit=RELAY_BYTES), CONNECT_S)
                await asyncio.gather(_pump(reader, server[1]), _pump(server[0], writer))
                return
        writer.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(RELAY_BYTES):
            target.write(data)
            await target.drain()
    except (OSError, asyncio.CancelledError):
        target.transport.abort()
    else:
        target.close()


def node_of_caller(caller: Address, server: Address, roots: tuple[Path, ...]) -> Path | None:
    """
    Return the tree of the node that a local client runs on.

    The kernel names the inode of the client's socket; the process that holds it inherited the node's descriptor.
    """
    inode = _socket_inode(caller, server)
    if inode is None:
        return None
    names = {str(root): root for root in roots}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        files = f"/proc/{pid}/fd"
        try:
            tree = names.get(os.readlink(f"{files}/{VIEW_FD}"))
            if tree and any(os.readlink(fd.path) == f"socket:[{inode}]" for fd in os.scandir(files)):
                return tree
        except OSError:
            continue
    return None


def _socket_inode(local: Address, remote: Address) -> str | None:
    """Return the inode of a socket; by one search in the text, since busy machines have thousands of lines."""
    sockets = Path("/proc/net/tcp").read_text()
    at = sockets.find(f" {_hex(local)} {_hex(remote)} ")
    return None if at < 0 else sockets[at : sockets.index("\n", at)].split()[8]


def _hex(address: Address) -> str:
    """Return an address as /proc/net/tcp has it: the four bytes in the machine's (little-endian) order."""
    packed = bytes(int(part) for part in reversed(address[0].split(".")))
    return f"{packed.hex().upper()}:{address[1]:04X}"
