"""An HTTP and SOCKS 5 proxy on loopback, with or without a password; it remembers what it was asked for."""

from __future__ import annotations

import socket
from base64 import b64encode
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class ProxyServer:
    """
    A proxy; the first byte of a connection tells which protocol the client speaks.

    :param login: User and password that it asks for.
    :param code: What an HTTP client gets instead of a tunnel.
    :param reply: What a SOCKS client gets instead of one.
    :param silent: Whether it takes connections and never answers.
    """

    login: tuple[str, str] | None = None
    code: int | None = None
    reply: int = 0
    silent: bool = False
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            Thread(target=self._handle, args=(client,), daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError, IndexError):
            first = client.recv(1)
            if self.silent:
                client.recv(65536)
                client.recv(65536)
            elif first == b"\x05":
                self._socks(client)
            else:
                self._http(client, first)
            return
        client.close()

    def _http(self, client: socket.socket, head: bytes) -> None:
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        target = head.decode().split()[1]
        code = self.code
        if self.login and b64encode(":".join(self.login).encode()) not in head:
            code = 407
        if code:
            client.sendall(b"HTTP/1.1 %d No: " % code + head.replace(b"\r\n", b" ") + b"\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        self.asked.append(target)
        host, _, port = target.rpartition(":")
        self._join(client, host.strip("[]"), int(port), b"HTTP/1.1 200 Connection established\r\n\r\n")

    def _socks(self, client: socket.socket) -> None:
        methods = client.recv(client.recv(1)[0])
        method = 2 if self.login else 0
        client.sendall(bytes((5, method if method in methods else 0xFF)))
        if self.login:
            user = client.recv(client.recv(2)[1])
            password = client.recv(client.recv(1)[0])
            accepted = (user.decode(), password.decode()) == self.login
            client.sendall(bytes((1, 0 if accepted else 1)))
            if not accepted:
                client.close()
                return
        kind = client.recv(4)[3]
        address = client.recv(4) if kind == 1 else client.recv(client.recv(1)[0])
        host = socket.inet_ntop(socket.AF_INET, address) if kind == 1 else address.decode()
        port = int.from_bytes(client.recv(2), "big")
        answer = bytes((5, self.reply, 0, 1)) + bytes(6)
        if self.reply:
            client.sendall(answer)
            return
        self.asked.append(f"{host}:{port}")
        self._join(client, host, port, answer)

    def _join(self, client: socket.socket, host: str, port: int, answer: bytes) -> None:
        upstream = socket.create_connection(("127.0.0.1" if host == "api.invalid" else host, port))
        client.sendall(answer)
        for ends in ((client, upstream), (upstream, client)):
            Thread(target=_pump, args=ends, daemon=True).start()


@contextmanager
def running_proxy(server: ProxyServer) -> Iterator[ProxyServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]
        Thread(target=server.serve, args=(listener,), daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
