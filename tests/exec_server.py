"""An API server for one test: TLS, the WebSocket handshake, and then exactly the bytes the test wants sent."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import ssl
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STDOUT, STDERR, ERROR = b"\x01", b"\x02", b"\x03"
SUCCESS = {"metadata": {}, "status": "Success"}


def frame(payload: bytes, opcode: int = 2, *, final: bool = True) -> bytes:
    """Encode one unmasked frame, as servers send them."""
    head = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


def status(document: dict[str, Any]) -> bytes:
    return frame(ERROR + json.dumps(document).encode())


def failure(reason: str, message: str, code: int | None = None) -> bytes:
    causes = {"details": {"causes": [{"reason": "ExitCode", "message": str(code)}]}} if code is not None else {}
    return status({"status": "Failure", "reason": reason, "message": message, **causes})


def close(code: int = 1000, reason: str = "") -> bytes:
    return frame(struct.pack("!H", code) + reason.encode(), 8)


def finished(output: bytes = b"") -> bytes:
    """What a command with this output and exit code 0 leaves on the wire."""
    return frame(STDOUT) + (frame(STDOUT + output) if output else b"") + status(SUCCESS) + close()


@dataclass
class Peer:
    """The server's end of one connection."""

    wire: socket.socket
    path: str
    headers: dict[str, str]
    client_certificate: bool = False
    _buffer: bytes = b""

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.path).query)

    def send(self, *parts: bytes) -> None:
        self.wire.sendall(b"".join(parts))

    def receive(self) -> tuple[int, bytes]:
        """Return the client's next frame, unmasked."""
        first, second = self._exactly(2)
        length = second & 0x7F
        if length > 125:
            length = int.from_bytes(self._exactly(2 if length == 126 else 8), "big")
        mask = self._exactly(4)
        data = self._exactly(length)
        return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data)) if length < 4096 else _unmask(
            data, mask
        )

    def until_gone(self) -> list[tuple[int, bytes]]:
        """Read until the client closes; what it sent."""
        seen = []
        with suppress(OSError, EOFError):
            while True:
                seen.append(self.receive())
        return seen

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            more = self.wire.recv(65536)
            if not more:
                raise EOFError
            self._buffer += more
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


def _unmask(data: bytes, mask: bytes) -> bytes:
    whole = int.from_bytes(data, "big") ^ int.from_bytes((mask * (len(data) // 4 + 1))[: len(data)], "big")
    return whole.to_bytes(len(data), "big")


@dataclass
class Certificates:
    """A CA with a server's and a client's certificate, in files."""

    directory: Path
    server_ends: timedelta = timedelta(days=1)
    client_ends: timedelta = timedelta(days=1)
    names: tuple[str, ...] = ("127.0.0.1",)

    def __post_init__(self) -> None:
        authority = ec.generate_private_key(ec.SECP256R1())
        self._write("ca", authority, authority, timedelta(days=1), authority_name="ca")
        self._write("server", ec.generate_private_key(ec.SECP256R1()), authority, self.server_ends)
        self._write("client", ec.generate_private_key(ec.SECP256R1()), authority, self.client_ends)

    def kubeconfig(self, server: str, **user: str) -> dict[str, Any]:
        """Return a kubeconfig with everything embedded, as kubeadm writes it."""

        def data(name: str) -> str:
            return base64.b64encode((self.directory / name).read_bytes()).decode()

        credentials = user or {"client-certificate-data": data("client.crt"), "client-key-data": data("client.key")}
        return {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}}],
            "users": [{"name": "admin", "user": credentials}],
        }

    def _write(
        self,
        stem: str,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
        ends: timedelta,
        authority_name: str = "",
    ) -> None:
        now = datetime.now(tz=UTC)
        names = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in self.names]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stem)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=bool(authority_name), path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(signer, hashes.SHA256())
        )
        (self.directory / f"{stem}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.directory / f"{stem}.key").write_bytes(private)


@dataclass
class ExecServer:
    """
    Accepts connections on loopback and hands each to `behave`.

    :param subprotocol: What the handshake chooses; empty for the client's first offer.
    :param answer: A whole HTTP answer instead of the handshake.
    """

    certificates: Certificates
    behave: Callable[[Peer], None] = field(default=lambda peer: None)
    subprotocol: str = ""
    answer: Callable[[Peer], bytes] | None = None
    peers: list[Peer] = field(default_factory=list)
    url: str = ""

    def serve(self, listener: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.directory / "server.crt", self.certificates.directory / "server.key")
        context.load_verify_locations(self.certificates.directory / "ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL if self.certificates.client_ends > timedelta() else ssl.CERT_NONE
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            Thread(target=self._handle, args=(connection, context), daemon=True).start()

    def _handle(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        with suppress(OSError, EOFError), connection, context.wrap_socket(connection, server_side=True) as wire:
            head = b""
            while b"\r\n\r\n" not in head:
                more = wire.recv(65536)
                if not more:
                    return
                head += more
            head, _, body = head.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:]) if name}
            while len(body) < int(headers.get("content-length", 0)):
                more = wire.recv(65536)
                if not more:
                    return
                body += more
            peer = Peer(wire, lines[0].split()[1], headers, client_certificate=bool(wire.getpeercert()))
            self.peers.append(peer)
            if self.answer is not None:
                wire.sendall(self.answer(peer))
                return
            accept = base64.b64encode(
                hashlib.sha1(headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            )
            chosen = self.subprotocol or headers["sec-websocket-protocol"].split(",")[0]
            wire.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                + accept
                + f"\r\nSec-WebSocket-Protocol: {chosen}\r\n\r\n".encode()
            )
            self.behave(peer)


def http(code: int, body: bytes, content_type: str = "application/json") -> bytes:
    return f"HTTP/1.1 {code} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def running(server: ExecServer) -> Iterator[ExecServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        Thread(target=server.serve, args=(listener,), daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
