"""Real servers on loopback that are told: HTTP for webhooks and pings, SMTP for mail; sound, failing, slow or hanging."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import socketserver
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from email.message import EmailMessage

Answer = int | str
"""A status code; or ``hang`` (never answers), ``drip`` (a byte of the headers now and then), ``cut`` (closes at once)."""


@dataclass
class HookServer:
    """
    An HTTP server that keeps what it is sent.

    :param answers: Beginning of the path → how it answers; 200 elsewhere.
    """

    answers: dict[str, Answer] = field(default_factory=dict)
    seen: list[tuple[str, bytes]] = field(default_factory=list)
    url: str = ""

    def paths(self, beginning: str = "/") -> list[str]:
        """Return the paths that were asked for, in order."""
        return [path for path, _ in self.seen if path.startswith(beginning)]

    def events(self, beginning: str = "/") -> list[dict[str, Any]]:
        """Return the JSON documents that were sent there."""
        return [json.loads(body) for path, body in self.seen if path.startswith(beginning)]

    def answer(self, path: str) -> Answer:
        """Return how a path answers."""
        return next((answer for beginning, answer in self.answers.items() if path.startswith(beginning)), 200)


@contextlib.contextmanager
def hook_server() -> Iterator[HookServer]:
    """Run one."""
    known = HookServer()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known.seen.append((self.path, body))
            answer = known.answer(self.path)
            if answer == "hang":
                ended.wait(60)
            elif answer == "drip":
                with contextlib.suppress(OSError):
                    for letter in "HTTP/1.1 200 OK\r\nX-Slow: " + "x" * 600:
                        self.wfile.write(letter.encode())
                        if ended.wait(0.1):
                            break
            elif isinstance(answer, int):
                self.send_response(answer)
                if answer in (301, 302):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    known.url = f"http://127.0.0.1:{server.server_port}"
    with _serving(server):
        yield known
        ended.set()


@contextlib.contextmanager
def mail_server() -> Iterator[tuple[int, list[EmailMessage]]]:
    """Run an SMTP server; yields its port and the mails that it has got."""
    mails: list[EmailMessage] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 loopback")
            while line := self.rfile.readline():
                verb = line.decode().strip().upper()
                if verb.startswith("DATA"):
                    self._say("354 go on")
                    data = b""
                    while (text := self.rfile.readline()) not in (b".\r\n", b""):
                        data += text.removeprefix(b".") if text.startswith(b"..") else text
                    mails.append(email.message_from_bytes(data, policy=email.policy.default))
                    self._say("250 kept")
                elif verb.startswith("QUIT"):
                    self._say("221 bye")
                    return
                else:
                    self._say("250 ok")

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with _serving(server):
        yield server.server_address[1], mails


@contextlib.contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def eventually(look: Callable[[], Any], within_s: float, what: str) -> Any:
    """Return what is true in the end."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {within_s:.0f} s"
        time.sleep(0.2)
    return found
