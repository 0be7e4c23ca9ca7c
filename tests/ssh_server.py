"""SSH servers in threads of this process that do what a test wants, and the keys they know."""

from __future__ import annotations

import asyncio
import logging
import shlex
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any

import asyncssh
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from etcdkeep.adapters.ssh.frame import SHELL, framed_line
from etcdkeep.adapters.ssh.node import NodeTarget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


PEM, NO_PASSWORD = serialization.Encoding.PEM, serialization.NoEncryption()
OPENSSH, PKCS8, TRADITIONAL = (
    serialization.PrivateFormat.OpenSSH,
    serialization.PrivateFormat.PKCS8,
    serialization.PrivateFormat.TraditionalOpenSSL,
)
USER_KEYS = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ecdsa": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
KEY = USER_KEYS["ed25519"].private_bytes(PEM, OPENSSH, NO_PASSWORD)
ED25519, ECDSA, RSA = "ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"
HOST_KEYS = {name: asyncssh.generate_private_key(name) for name in (ED25519, ECDSA, RSA)}
OTHER_HOST_KEY = asyncssh.generate_private_key(ED25519)


def line(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


class Framed:
    """
    What the shell of a node makes of a command: marks around its output. Everything else is the process's own.

    :param begins: Whether the first mark is printed now.
    """

    def __init__(self, process: asyncssh.SSHServerProcess[bytes], *, begins: bool) -> None:
        self._process = process
        words = shlex.split(process.command or "")
        assert words[: len(SHELL) + 1] == ["exec", *SHELL], words
        self.mark, *argv = words[len(SHELL) + 1 :]
        assert process.command == framed_line(argv, self.mark)
        self.command = shlex.join(argv)
        if begins:
            self.stdout.write(f"<{self.mark}>".encode())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    def exit(self, code: int) -> None:
        self.stdout.write(f"<{self.mark} {code}>".encode())
        self._process.exit(code)

    def exit_with_signal(self, name: str) -> None:
        self.exit(128 + {"KILL": 9, "TERM": 15}[name])


@dataclass
class Node:
    """
    An SSH server in a thread of its own.

    :param behave: What a command does; gets the process, whose stdin, stdout and stderr are bytes.
    :param password: Of user `ubuntu`; empty where none is taken.
    :param framed: Whether there is a shell that prints marks around the output; `begins`: also before it.
    """

    behave: Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]] | None = None
    host_keys: tuple[str, ...] = (ED25519, ECDSA, RSA)
    forwarding: bool = True
    framed: bool = True
    begins: bool = True
    password: str = ""
    port: int = 0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)

    def target(self, *lines: str, user: str = "ubuntu") -> NodeTarget:
        return NodeTarget("127.0.0.1", self.port, user, lines or (line(HOST_KEYS[ED25519]),))

    async def start(self) -> None:
        node = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                node.connections.append(conn)

            def begin_auth(self, username: str) -> bool:
                node.logins.append(username)
                return True

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                known = {
                    user.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
                    for user in USER_KEYS.values()
                }
                return username == "ubuntu" and key.export_public_key().strip() in known

            def password_auth_supported(self) -> bool:
                return bool(node.password)

            def validate_password(self, username: str, password: str) -> bool:
                node.passwords.append(password)
                return (username, password) == ("ubuntu", node.password)

            def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
                if not node.forwarding:
                    raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "no")
                return True

        async def process(command: asyncssh.SSHServerProcess[bytes]) -> None:
            assert self.behave is not None
            shown: Any = command
            if self.framed:
                shown = Framed(command, begins=self.begins)
                if shown.command.startswith("sh -c 'for i in 1 2"):  # asked of a sudo that prints nothing by itself
                    command.stdout.write(2 * shlex.split(shown.command)[-1].encode())
                    shown.exit(0)
                    return
            try:
                await self.behave(shown)
            except (asyncssh.Error, OSError, ConnectionError):
                command.close()

        listener = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[HOST_KEYS[name] for name in self.host_keys],
            process_factory=process,
            encoding=None,
        )
        self.port = listener.get_port()

    def cut(self) -> None:
        """Drop every connection."""
        for connection in self.connections:
            self.loop.call_soon_threadsafe(connection.abort)


@contextmanager
def running(node: Node) -> Iterator[Node]:
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    thread = Thread(target=node.loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(node.start(), node.loop).result(10)
    yield node
    node.cut()
    node.loop.call_soon_threadsafe(node.loop.stop)
    thread.join(10)


def says(
    stdout: bytes = b"", stderr: bytes = b"", code: int | None = 0
) -> Callable[[asyncssh.SSHServerProcess[bytes]], Awaitable[None]]:
    async def behave(command: asyncssh.SSHServerProcess[bytes]) -> None:
        command.stdout.write(stdout)
        command.stderr.write(stderr)
        if code is None:
            command.channel.close()
        else:
            command.exit(code)

    return behave


async def hangs(command: asyncssh.SSHServerProcess[bytes]) -> None:
    command.stdout.write(b"begin")
    await asyncio.sleep(60)
