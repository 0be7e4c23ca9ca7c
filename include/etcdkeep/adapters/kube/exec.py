"""
Commands inside a pod's container, over a WebSocket of our own.

The Kubernetes client's exec loses bytes, blocks without limit and cannot tell a cut stream from a finished one; here
every command ends with an exit status or an error. websocket-client sets the connection up and this module reads it.
"""

from __future__ import annotations

import logging
import select
import ssl
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlencode

import websocket

from etcdkeep.adapters.commands import CHUNK_BYTES, Tail, Watchdog, command_text, gather
from etcdkeep.adapters.kube import exec_protocol as protocol
from etcdkeep.adapters.kube.dial import cut_after
from etcdkeep.adapters.kube.errors import Request, not_connected, refused
from etcdkeep.errors import CommandFailed, CommandMissing, EtcdkeepError, PermanentError, StreamCut, Unreachable
from etcdkeep.ports import CommandResult, PodRef, StreamLimits

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from socket import socket

    from etcdkeep.adapters.kube.connection import KubeConnection

log = logging.getLogger(__name__)

RECEIVE_BYTES = 64 * 1024
STDIN_FRAME_BYTES = 32 * 1024
MAX_STATUS_BYTES = 64 * 1024
END_OF_STDIN = bytes((protocol.CLOSE, protocol.STDIN))
NORMAL_CLOSURE = (1000).to_bytes(2, "big")
TOO_EARLY = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
SHELL_CANNOT_RUN, SHELL_NOT_FOUND = 126, 127


@dataclass(frozen=True)
class ExecTiming:
    """
    How a connection is watched.

    :param connect_s: For TCP, TLS and the handshake together with each answer.
    :param ping_s: A silent connection is pinged this often; it also keeps proxies from closing it.
    :param silence_s: No byte for this long, not even an answer to a ping: the connection is dead.
    :param settle_s: How long the server may take to close, after the exit status or when we hang up.
    """

    connect_s: float = 15.0
    ping_s: float = 15.0
    silence_s: float = 60.0
    settle_s: float = 3.0


class PodExec:
    """Runs commands in one container; implements :class:`~etcdkeep.ports.CommandRunner`."""

    def __init__(self, connection: KubeConnection, pod: PodRef, timing: ExecTiming) -> None:
        self._connection = connection
        self._pod = pod
        self._timing = timing
        self.where = f"pod {pod.namespace}/{pod.pod} container {pod.container}"

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        """
        Run to the end and return its output.

        :raises PermanentError: when there is `stdin` and the API server cannot signal its end (before Kubernetes 1.30).
        """
        session = self._start(argv, limits, stdin)
        output = gather(session.chunks(), session.what)
        return CommandResult(output, session.stderr.text())

    def stream(self, argv: Sequence[str], limits: StreamLimits, *, hold_bytes: int = 0) -> Iterator[bytes]:
        """
        Yield standard output as it comes; closing the iterator early closes the connection.

        :param hold_bytes: Keep standard input open until this much output (or any standard error) came, so that a
            command which ends by reading it, such as ``cat FILE -``, outlives the delivery of its output: when a
            command exits, Kubernetes may throw away what is still under way and report success (kubectl #1361).
            Without effect where the API server cannot signal the input's end.
        """
        yield from self._start(argv, limits, hold_bytes=hold_bytes).chunks()

    def _start(self, argv: Sequence[str], limits: StreamLimits, stdin: bytes = b"", hold_bytes: int = 0) -> _Session:
        what = f"{command_text(argv)!r} in {self.where}"
        log.debug("exec %s", what)
        timeout_s = min(self._timing.connect_s, limits.deadline_s)
        connection, subprotocol = self._connect(argv, what, timeout_s, with_stdin=bool(stdin or hold_bytes))
        if (stdin or hold_bytes) and subprotocol != protocol.V5:
            connection.close()
            if stdin:
                raise PermanentError(
                    f"{what}: it needs standard input, but the API server offers only {subprotocol}, which cannot "
                    f"signal its end; expected {protocol.V5} (Kubernetes 1.30)."
                )
            connection, _ = self._connect(argv, what, timeout_s, with_stdin=False)
            hold_bytes = 0
        return _Session(connection, what, limits, self._timing, stdin, hold_bytes)

    def _connect(self, argv: Sequence[str], what: str, timeout_s: float, *, with_stdin: bool) -> tuple[socket, str]:
        request = Request(self._connection, f"exec {what}", "the verbs create and get on pods/exec in its namespace")
        try:
            return self._handshake(argv, timeout_s, with_stdin=with_stdin)
        except websocket.WebSocketBadStatusException as err:
            if err.status_code != 401 or not self._connection.renew():
                raise refused(request, err.status_code, err.resp_body) from None  # its text repeats the whole answer
        except OSError as err:
            raise not_connected(request, err) from err
        return self._connect_again(request, argv, timeout_s, with_stdin=with_stdin)

    def _connect_again(
        self, request: Request, argv: Sequence[str], timeout_s: float, *, with_stdin: bool
    ) -> tuple[socket, str]:
        """Connect with new credentials, after the old ones were not accepted."""
        try:
            return self._handshake(argv, timeout_s, with_stdin=with_stdin)
        except websocket.WebSocketBadStatusException as err:
            raise refused(request, err.status_code, err.resp_body) from None
        except OSError as err:
            raise not_connected(request, err) from err

    def _handshake(self, argv: Sequence[str], timeout_s: float, *, with_stdin: bool) -> tuple[socket, str]:
        headers = [f"{name}: {value}" for name, value in self._connection.headers()]
        wire = self._connection.open_socket(timeout_s)
        wire.settimeout(timeout_s)
        timer = cut_after(wire, timeout_s)
        connection = websocket.WebSocket()
        try:
            connection.connect(  # type: ignore[no-untyped-call]
                self._url(argv, with_stdin=with_stdin),
                timeout=timeout_s,
                header=headers,
                subprotocols=[protocol.V5, protocol.V4],
                suppress_origin=True,
                redirect_limit=0,
                socket=wire,
            )
        except websocket.WebSocketBadStatusException:
            raise
        except websocket.WebSocketTimeoutException:
            raise TimeoutError("timed out") from None
        except (websocket.WebSocketException, ValueError) as err:
            # what these were raised from quotes the answer; a server may repeat what it was sent
            raise ConnectionError(f"the answer is not a WebSocket: {self._connection.hide(str(err))}") from None
        finally:
            timer.cancel()
            if connection.sock is None or not connection.connected:
                wire.close()
        return cast("socket", connection.sock), str(connection.subprotocol)

    def _url(self, argv: Sequence[str], *, with_stdin: bool) -> str:
        query = [("container", self._pod.container), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
        query += [("stdin", "true" if with_stdin else "false"), *(("command", word) for word in argv)]
        base = self._connection.host.replace("http", "ws", 1)
        path = f"/api/v1/namespaces/{quote(self._pod.namespace, safe='')}/pods/{quote(self._pod.pod, safe='')}/exec"
        return f"{base}{path}?{urlencode(query)}"


class _Session:
    """One running command: non-blocking, so that reading, standard input and pings never wait for each other."""

    def __init__(
        self,
        connection: socket,
        what: str,
        limits: StreamLimits,
        timing: ExecTiming,
        stdin: bytes,
        hold_bytes: int,
    ) -> None:
        self.what = what
        self.stderr = Tail()
        self._socket = connection
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._watchdog = Watchdog(limits, what)
        self._timing = timing
        self._decoder = protocol.FrameDecoder()
        self._outgoing = bytearray()
        self._stdin = _stdin_messages(stdin)
        self._hold_bytes = hold_bytes
        self._status = bytearray()
        self._first_output = b""
        self._heard = self._pinged = monotonic()
        self._close_reason: str | None = None

    def chunks(self) -> Generator[bytes]:
        """
        Yield standard output; end only after exit code 0.

        What is there already is yielded in pieces of up to 256 KiB; nothing waits for a piece to fill.
        """
        pending: list[bytes] = []
        size = 0
        try:
            while self._close_reason is None:
                self._watchdog.left_s()
                self._send()
                data = self._receive()
                if data is None and not pending:
                    self._wait()
                    continue
                for piece in self._decode(data or b""):
                    pending.append(piece)
                    size += len(piece)
                if pending and (data is None or size >= CHUNK_BYTES):
                    yield b"".join(pending)
                    pending, size = [], 0
                    self._looking_again()
            if pending:
                yield b"".join(pending)
        finally:
            self._hang_up()
        self._raise_for_status()

    def _receive(self) -> bytes | None:
        """Return what has arrived; None when nothing has yet, and empty when the server is gone."""
        try:
            data: bytes = self._socket.recv(RECEIVE_BYTES)
        except TOO_EARLY:
            return None
        except OSError as err:
            self._close_reason = f"the connection broke: {err}"
            return b""
        if data:
            self._heard = monotonic()
        else:
            self._close_reason = "the connection was cut"
        return data

    def _decode(self, data: bytes) -> Iterator[bytes]:
        try:
            for opcode, channel, payload in self._decoder.feed(data):
                if opcode == protocol.BINARY:
                    if channel == protocol.STDOUT:
                        yield self._take_output(bytes(payload))
                    else:
                        self._take_aside(channel, payload)
                elif opcode == protocol.PING:
                    self._queue(bytes(payload), websocket.ABNF.OPCODE_PONG)
                elif opcode == protocol.CLOSING:
                    self._close_reason = f"the server closed it: {_close_text(bytes(payload))}"
                    return
        except protocol.ProtocolError as err:
            self._close_reason = f"protocol error: {err}"

    def _take_output(self, payload: bytes) -> bytes:
        self._watchdog.progress(len(payload))
        self._release(len(payload))
        if len(self._first_output) < MAX_STATUS_BYTES:
            self._first_output = (self._first_output + payload)[:MAX_STATUS_BYTES]
        return payload

    def _release(self, size: int) -> None:
        """Let the command end once all of its output is here."""
        if self._hold_bytes:
            self._hold_bytes = max(0, self._hold_bytes - size)
            if not self._hold_bytes:
                self._queue(END_OF_STDIN, websocket.ABNF.OPCODE_BINARY)

    def _take_aside(self, channel: int, payload: memoryview) -> None:
        if channel == protocol.STDERR:
            self.stderr.write(payload)
            self._release(self._hold_bytes)
        elif channel == protocol.ERROR and len(self._status) < MAX_STATUS_BYTES:
            self._status += payload

    def _send(self) -> None:
        """Send as much as the connection takes now."""
        while True:
            if not self._outgoing:
                message = next(self._stdin, None)
                if message is None:
                    return
                self._queue(message, websocket.ABNF.OPCODE_BINARY)
            try:
                sent = self._socket.send(self._outgoing)
            except TOO_EARLY:
                return
            except OSError:
                self._outgoing.clear()  # what the server still has to say comes first; reading will find the end
                self._stdin = iter(())
                return
            del self._outgoing[:sent]

    def _queue(self, payload: bytes, opcode: int) -> None:
        self._outgoing += websocket.ABNF.create_frame(payload, opcode).format()

    def _wait(self) -> None:
        """Wait until something can be read (or sent), a ping is due or a limit is reached."""
        now = monotonic()
        silent_s = now - self._heard
        if self._status and silent_s >= self._timing.settle_s:
            self._close_reason = "the server did not close it"
            return
        if silent_s >= self._timing.silence_s:
            self._close_reason = f"no data for {self._timing.silence_s:g} s, not even an answer to a ping"
            return
        idle_since = max(self._heard, self._pinged)
        if now - idle_since >= self._timing.ping_s and not self._outgoing:
            self._queue(b"", websocket.ABNF.OPCODE_PING)
            self._pinged = idle_since = now
            self._send()
        patience_s = self._timing.settle_s if self._status else self._timing.silence_s
        wait_s = min(self._watchdog.left_s(), patience_s - silent_s, max(idle_since + self._timing.ping_s - now, 0.01))
        self._poll_for(max(wait_s, 0))

    def _poll_for(self, wait_s: float) -> None:
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        self._poll.poll(wait_s * 1000 + 1)

    def _hang_up(self) -> None:
        """Close in order: a server that only sees the connection drop may leave the command running for ever."""
        if self._close_reason is None:
            self._stdin = iter(())
            self._queue(NORMAL_CLOSURE, websocket.ABNF.OPCODE_CLOSE)
            ends = monotonic() + self._timing.settle_s
            while self._close_reason is None and (left_s := ends - monotonic()) > 0:
                self._send()
                data = self._receive()
                if data is None:
                    self._poll_for(left_s)
                else:
                    deque(self._decode(data), maxlen=0)
        self._socket.close()

    def _looking_again(self) -> None:
        """Start the silence and stall clocks anew: the consumer was busy, not the server silent."""
        self._heard = monotonic()
        self._watchdog.progress()

    def _raise_for_status(self) -> None:
        if not self._status:
            raise StreamCut(
                f"{self.what}: no exit status received: {self._close_reason}; its output is incomplete.{self._said()}"
            )
        try:
            status = protocol.parse_exit_status(bytes(self._status))
        except ValueError as err:
            raise StreamCut(
                f"{self.what}: its exit status cannot be read ({err}); its output may be incomplete."
            ) from err
        if status.code != 0:
            raise self._failure(status)

    def _failure(self, status: protocol.ExitStatus) -> EtcdkeepError:
        output = self._first_output.decode(errors="replace")
        said = " ".join((status.message, self.stderr.text(), output if status.code == SHELL_CANNOT_RUN else ""))
        if status.code == SHELL_NOT_FOUND or protocol.says_program_missing(said):
            return CommandMissing(
                f"{self.what}: the image has no such program: {status.message or f'exit code {status.code}'}{self._said()}"
            )
        if status.code is None:
            return Unreachable(
                f"{self.what} could not be run: {status.message}. Is the container running?{self._said()}"
            )
        return CommandFailed(
            f"{self.what} ended with exit code {status.code}.{self._said()}",
            exit_code=status.code,
            stderr_tail=self.stderr.text(),
        )

    def _said(self) -> str:
        tail = self.stderr.text()
        return f" Last output: {tail}" if tail else ""


def _stdin_messages(stdin: bytes) -> Iterator[bytes]:
    if stdin:
        for start in range(0, len(stdin), STDIN_FRAME_BYTES):
            yield bytes((protocol.STDIN,)) + stdin[start : start + STDIN_FRAME_BYTES]
        yield END_OF_STDIN


def _close_text(payload: bytes) -> str:
    code = int.from_bytes(payload[:2], "big")
    return f"{code} {payload[2:].decode(errors='replace')}".strip() if payload else "without a reason"
