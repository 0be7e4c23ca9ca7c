"""Commands on a node, over SSH."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import TYPE_CHECKING

import paramiko

from etcdkeep.adapters.commands import CHUNK_BYTES, Tail, Watchdog, command_text, gather
from etcdkeep.adapters.ssh.connect import Jump, NodeTarget, connected, offered_key, reach
from etcdkeep.adapters.ssh.failures import Ended, cut, explain, login_refuses
from etcdkeep.adapters.ssh.frame import (
    Frame,
    Greeting,
    GreetingTaken,
    Layer,
    framed_inside_sudo,
    framed_line,
    greeting_argv,
    new_mark,
    read_greeting,
)
from etcdkeep.config.host_keys import ALGORITHMS
from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.control_plane.sudo import SudoAnswer, sudo_words
from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, OutputUnexpected, Unreachable
from etcdkeep.ports import CommandResult, StreamLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

__all__ = ["NodeShell", "NodeTarget", "ScannedKey", "open_node", "scan_host_keys"]

log = logging.getLogger(__name__)

CONNECT_S = 15.0
LOOK_S = 0.25
SENDING_LOOK_S = 0.002
"""While the node takes standard input, in portions of its window (OpenSSH's: 2 MiB): one is sent at most so often."""
STDIN_BYTES = 32 * 1024
ASK_S = 30.0
"""For the questions that are asked of sudo itself."""


@contextmanager
def open_node(
    target: NodeTarget, private_key: bytes, *, jump: Jump | None = None, connect_s: float = CONNECT_S
) -> Iterator[NodeShell]:
    """
    Log in to a node for the length of the block.

    :param private_key: In PEM or OpenSSH format, without passphrase; empty for a login by password alone.
    :param jump: The jump host and the key for it.
    :raises HostKeyUnknown, ServerUntrusted, AccessDenied, Unreachable: see :func:`~etcdkeep.adapters.ssh.connect.connected`.
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
        self._greeting: Greeting | None = None
        self._shell_by_sudo = False
        self._answer: SudoAnswer | None = None
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
        if tuple(argv[: len(SUDO)]) == SUDO:
            greeting = self._greet(Ended(what, self._target.user, tuple(argv)), limits)
            if not greeting.quiet:
                return self._start_under_greeting(argv, what, limits, stdin, greeting)
        return self._open(argv, what, limits, stdin)

    def _start_under_greeting(
        self, argv: Sequence[str], what: str, limits: StreamLimits, stdin: bytes, greeting: Greeting
    ) -> _Session:
        """Start a command of a sudo that prints something itself: the marks are printed by what it starts."""
        if self._shell_by_sudo:
            mark = new_mark()
            return self._open(framed_inside_sudo(argv, mark), what, limits, stdin, Frame(mark))
        return self._open(argv, what, limits, stdin, GreetingTaken(greeting))

    def _open(
        self,
        argv: Sequence[str],
        what: str,
        limits: StreamLimits,
        stdin: bytes,
        inside: Layer | None = None,
        *,
        for_command: Ended | None = None,
    ) -> _Session:
        timeout_s = min(self._connect_s, limits.deadline_s)
        mark = new_mark()
        try:
            channel = self._transport.open_session(timeout=timeout_s)
            _request_exec(channel, framed_line(argv, mark), timeout_s)
        except (paramiko.SSHException, EOFError, OSError) as err:
            raise Unreachable(f"{what} could not be started: {str(err) or 'the connection is gone'}.") from err
        ended = for_command or Ended(what, self._target.user, tuple(argv))
        return _Session(channel, ended, limits, stdin, Frame(mark), inside, self._ask)

    def _greet(self, command: Ended, limits: StreamLimits) -> Greeting:
        """
        Find out, once, what sudo prints by itself on standard output.

        :param command: For which it is asked: a sudo that refuses the question refuses the command.
        :raises OutputUnexpected: when that differs each time, and the login may not have marks printed either.
        """
        if self._greeting is None:
            mark = new_mark()
            greeting = read_greeting(self._small(greeting_argv(mark), command, limits), mark)
            words = greeting.words if greeting else ""
            if greeting is None or not greeting.quiet:
                self._shell_by_sudo = self._may_start_shell(command, limits)
                log.info("%s: sudo prints %r around each command; this text is removed", self.where, words)
                if not self._shell_by_sudo and (greeting is None or not greeting.constant):
                    raise _greets(command.what, words)
            self._greeting = greeting or Greeting(constant=False)
        return self._greeting

    def _may_start_shell(self, command: Ended, limits: StreamLimits) -> bool:
        frame = Frame(new_mark())
        try:
            frame.feed(self._small(framed_inside_sudo((*SUDO, "true"), frame.mark), command, limits))
        except (CommandFailed, CommandMissing, AccessDenied):
            return False
        return frame.status == 0

    def _small(self, argv: Sequence[str], command: Ended, limits: StreamLimits) -> bytes:
        """Return the output of a question about sudo; it fails as the command would for which it is asked."""
        short = StreamLimits(min(ASK_S, limits.deadline_s), limits.stall_s)
        return gather(self._open(argv, command.what, short, b"", for_command=command).chunks(), command.what)

    def _ask(self) -> SudoAnswer:
        """Return what ``sudo -n true`` ends with, asked once."""
        if self._answer is None:
            session = self._open((*SUDO, "true"), f"'sudo -n true' on {self.where}", StreamLimits(ASK_S), b"")
            self._answer = session.answer()
        return self._answer


def _greets(where: str, words: str) -> OutputUnexpected:
    return OutputUnexpected(
        f"{where}: sudo prints a different text on standard output at each command ({words!r}), which cannot be separated from the command's own output.\nMake what prints it (a wrapper of sudo, a PAM script) print to standard error, or to terminals only."
    )


def _request_exec(channel: paramiko.Channel, line: str, timeout_s: float) -> None:
    """Start the command; paramiko itself would wait for ever for the server's answer."""
    timer = Timer(timeout_s, channel.close)
    timer.start()
    try:
        channel.exec_command(line)
    finally:
        timer.cancel()


class _Session:
    """
    One running command.

    :param inside: What takes a greeting of sudo off, within the frame.
    :param ask: Asks sudo ``true``.
    """

    def __init__(
        self,
        channel: paramiko.Channel,
        ended: Ended,
        limits: StreamLimits,
        stdin: bytes,
        frame: Frame,
        inside: Layer | None,
        ask: Callable[[], SudoAnswer],
    ) -> None:
        self.what = ended.what
        self.stderr = Tail()
        self._channel = channel
        self._ended = ended
        self._watchdog = Watchdog(limits, self.what)
        self._stdin: memoryview | None = memoryview(stdin)
        self._frame = frame
        self._inside = inside
        self._ask = ask

    def chunks(self) -> Generator[bytes]:
        """Yield standard output; end only after exit code 0."""
        yield from self._output()
        if last := self._inside.end() if self._inside else b"":
            yield last
        self._raise_for_status()

    def answer(self) -> SudoAnswer:
        """Run to the end; a failure is an answer too."""
        for _ in self._output():
            pass
        code = self._frame.status if self._frame.status is not None else self._channel.exit_status
        return SudoAnswer(code, self.stderr.text())

    def _output(self) -> Generator[bytes]:
        try:
            while True:
                self._watchdog.left_s()
                self._send()
                self._drain_stderr()
                chunk = self._receive()
                if chunk:
                    output = self._unframed(chunk)
                    self._watchdog.progress(len(output))
                    if output:
                        yield output
                    self._watchdog.progress()
                elif chunk == b"":
                    break
            self._await_exit()
        finally:
            self._channel.close()
        self._frame.end()

    def _unframed(self, chunk: bytes) -> bytes:
        output = self._frame.feed(chunk)
        return self._inside.feed(output) if self._inside else output

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
        code, said = self._channel.exit_status, self.stderr.text()
        if code < 0:
            raise cut(
                self._ended, "no exit status received: the connection was cut or a signal ended the command", said
            )
        if not self._frame.began and not sudo_words(said):
            raise login_refuses(self._ended, code, self._frame.noise.text(), said)
        if self._frame.status is None and not (code and sudo_words(said)):
            raise cut(self._ended, f"the end of its output is missing, and the login ended with exit code {code}", said)
        started = self._inside.began if isinstance(self._inside, Frame) else None
        status = code if self._frame.status is None else self._frame.status
        if status:
            raise explain(self._ended, status, said, self._ask, started=started)
        if started is False:
            raise cut(self._ended, "sudo ended with success, but did not start it", said)
        if isinstance(self._inside, GreetingTaken) and self._inside.differs:
            raise _greets(self._ended.what, self._inside.words)
