"""Commands on a node, over SSH."""

from __future__ import annotations

import logging
import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import TYPE_CHECKING

import paramiko

from etcdkeep.adapters.commands import CHUNK_BYTES, Tail, Watchdog, command_text, gather
from etcdkeep.adapters.ssh_connect import Jump, NodeTarget, connected, offered_key, reach
from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, EtcdkeepError, StreamCut, Unreachable
from etcdkeep.host_keys import ALGORITHMS
from etcdkeep.ports import CommandResult, StreamLimits

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

__all__ = ["NodeShell", "NodeTarget", "ScannedKey", "open_node", "scan_host_keys"]

log = logging.getLogger(__name__)

CONNECT_S = 15.0
LOOK_S = 0.25
SENDING_LOOK_S = 0.002
"""While the node takes standard input, in portions of its window (OpenSSH's: 2 MiB): one is sent at most so often."""
STDIN_BYTES = 32 * 1024
SHELL_NOT_FOUND = 127
SUDO_REFUSES = re.compile(
    r"^sudo: .*(password is required|must have a tty)|^Sorry, user .* not|is not in the sudoers file", re.MULTILINE
)
SUDO_FINDS_NONE = re.compile(r"^sudo: .*: command not found", re.MULTILINE)


@contextmanager
def open_node(
    target: NodeTarget, private_key: bytes, *, jump: Jump | None = None, connect_s: float = CONNECT_S
) -> Iterator[NodeShell]:
    """
    Log in to a node for the length of the block.

    :param private_key: In PEM or OpenSSH format, without passphrase.
    :param jump: The jump host and the key for it.
    :raises HostKeyUnknown, HostKeyChanged, AccessDenied, Unreachable: see :func:`~etcdkeep.adapters.ssh_connect.connected`.
    """
    with connected(target, private_key, jump, connect_s) as transport:
        yield NodeShell(transport, target, connect_s)


@dataclass(frozen=True)
class ScannedKey:
    """A host key as a server showed it: to be compared by a person before it is trusted."""

    line: str
    fingerprint: str


def scan_host_keys(
    target: NodeTarget, *, jump: Jump | None = None, connect_s: float = CONNECT_S
) -> tuple[ScannedKey, ...]:
    """
    Return every host key of a server, each asked for in a connection of its own; no login takes place.

    :raises Unreachable: when it does not answer; the jump host's own keys are checked as ever.
    """
    with reach(target, jump, connect_s) as dial:
        keys = [offered_key(target, dial, connect_s, algorithm) for algorithm in ALGORITHMS]
    return tuple(ScannedKey(key.line(target.host, target.port), key.fingerprint) for key in keys if key)


class NodeShell:
    """Runs commands on one node; implements :class:`~etcdkeep.ports.CommandRunner`."""

    def __init__(self, transport: paramiko.Transport, target: NodeTarget, connect_s: float) -> None:
        self._transport = transport
        self._target = target
        self._connect_s = connect_s
        self.where = f"node {target.name}"

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        """Run to the end and return its output."""
        session = self._start(argv, limits, stdin)
        output = gather(session.chunks(), session.what)
        return CommandResult(output, session.stderr.text())

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        """Yield standard output as it comes; closing the iterator early closes the command's channel."""
        yield from self._start(argv, limits, b"").chunks()

    def _start(self, argv: Sequence[str], limits: StreamLimits, stdin: bytes) -> _Session:
        what = f"{command_text(argv)!r} on {self.where}"
        log.debug("ssh %s", what)
        timeout_s = min(self._connect_s, limits.deadline_s)
        try:
            channel = self._transport.open_session(timeout=timeout_s)
            _request_exec(channel, argv, timeout_s)
        except (paramiko.SSHException, EOFError, OSError) as err:
            raise Unreachable(f"{what} could not be started: {str(err) or 'the connection is gone'}.") from err
        return _Session(channel, what, self._target, limits, stdin)


def _request_exec(channel: paramiko.Channel, argv: Sequence[str], timeout_s: float) -> None:
    """Start the command; paramiko itself would wait for ever for the server's answer."""
    timer = Timer(timeout_s, channel.close)
    timer.start()
    try:
        channel.exec_command(shlex.join(argv))
    finally:
        timer.cancel()


class _Session:
    """One running command."""

    def __init__(
        self, channel: paramiko.Channel, what: str, target: NodeTarget, limits: StreamLimits, stdin: bytes
    ) -> None:
        self.what = what
        self.stderr = Tail()
        self._channel = channel
        self._target = target
        self._watchdog = Watchdog(limits, what)
        self._stdin: memoryview | None = memoryview(stdin)

    def chunks(self) -> Generator[bytes]:
        """Yield standard output; end only after exit code 0."""
        try:
            while True:
                self._watchdog.left_s()
                self._send()
                self._drain_stderr()
                chunk = self._receive()
                if chunk:
                    self._watchdog.progress(len(chunk))
                    yield chunk
                    self._watchdog.progress()
                elif chunk == b"":
                    break
            self._await_exit()
        finally:
            self._channel.close()
        self._raise_for_status()

    def _receive(self) -> bytes | None:
        """Return what has arrived; None when nothing has yet, empty at the end."""
        look_s = LOOK_S if self._stdin is None else SENDING_LOOK_S
        self._channel.settimeout(min(look_s, self._watchdog.left_s()))
        try:
            return self._channel.recv(CHUNK_BYTES)
        except TimeoutError:
            return None

    def _send(self) -> None:
        """Send as much standard input as the node takes now, and its end after it."""
        while self._stdin is not None and (not self._stdin or self._channel.send_ready()):
            try:
                if self._stdin:
                    self._stdin = self._stdin[self._channel.send(bytes(self._stdin[:STDIN_BYTES])) :]
                else:
                    self._stdin = None
                    self._channel.shutdown_write()
            except (OSError, EOFError):
                self._stdin = None  # the command no longer reads; its exit status says whether that is a failure

    def _drain_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            self.stderr.write(self._channel.recv_stderr(CHUNK_BYTES))

    def _await_exit(self) -> None:
        """Wait for the exit status after the output's end; a command may close its output and go on."""
        while not self._channel.exit_status_ready() and not self._channel.closed:
            self._drain_stderr()
            self._channel.status_event.wait(min(LOOK_S, self._watchdog.left_s()))
        self._drain_stderr()

    def _raise_for_status(self) -> None:
        code = self._channel.exit_status
        said = self.stderr.text()
        if code < 0:
            raise StreamCut(
                f"{self.what}: no exit status came: the connection was cut or a signal ended the command; what it printed is not complete."
                + (f" Its last words: {said}" if said else "")
            )
        if code:
            raise self._failure(code, said)

    def _failure(self, code: int, said: str) -> EtcdkeepError:
        last = f" Its last words: {said}" if said else ""
        if SUDO_REFUSES.search(said):
            return AccessDenied(
                f"{self.what}: sudo does not allow it without a password.{last} Allow it, in a file below /etc/sudoers.d:\n"
                f"{self._target.user} ALL=(root) NOPASSWD: ALL"
            )
        if code == SHELL_NOT_FOUND or SUDO_FINDS_NONE.search(said):
            return CommandMissing(f"{self.what}: the node has no such program (exit code {code}).{last}")
        return CommandFailed(f"{self.what} ended with exit code {code}.{last}", exit_code=code, stderr_tail=said)
