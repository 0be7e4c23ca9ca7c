"""
Marks around a command's output, so that what a login, its start-up files or sudo print is told apart from it.

The node's shell prints a mark, runs the command, and prints the mark again with the exit code. The command writes to the
same pipe as ever: nothing is copied on the way. Marks are random, so that no output can hold them by chance.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Protocol

from etcdkeep.adapters.commands import Tail
from etcdkeep.control_plane.node_archive import SUDO

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = 'export LC_ALL=C; m=$1; shift; printf "<%s>" "$m"; "$@"; s=$?; printf "<%s %s>" "$m" "$s"; exit "$s"'
"""No quote, backslash, exclamation mark or line break in it that csh or fish would take for something else."""
SHELL = ("/bin/sh", "-c", SCRIPT, "sh")
ASK_FOR_GREETING = 'for i in 1 2; do printf %s "$1" | sudo -n cat || exit; done'
"""``cat`` is what every login of ours may run; twice, to see whether sudo prints the same each time."""


def new_mark() -> str:
    """Return a mark that was never used."""
    return f"etcdkeep-{token_hex(16)}"


def framed_line(argv: Sequence[str], mark: str) -> str:
    """Return the command line for the login shell, whichever that is; the shell is replaced, so that it prints no more."""
    return f"exec {shlex.join((*SHELL, mark, *argv))}"


def framed_inside_sudo(argv: Sequence[str], mark: str) -> tuple[str, ...]:
    """Return a sudo command with the marks printed by what sudo starts."""
    return (*SUDO, *SHELL, mark, *argv[len(SUDO) :])


def greeting_argv(mark: str) -> tuple[str, ...]:
    """Return the call that shows what sudo prints by itself, for :func:`read_greeting`."""
    return ("sh", "-c", ASK_FOR_GREETING, "sh", mark)


class Layer(Protocol):
    """Takes what is around a command's output off it."""

    def feed(self, data: bytes) -> bytes:
        """Return what of the next bytes is the command's output."""

    def end(self) -> bytes:
        """Return what is left when the stream has ended."""


class Frame:
    """
    Takes off everything outside the marks.

    :param mark: From :func:`new_mark`.
    :param began: Whether the first mark came: the command was started.
    :param status: The exit code, once the last mark came.
    """

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.began = False
        self.status: int | None = None
        self.noise = Tail()
        self._begin = b"<%b>" % mark.encode()
        self._end = b"<%b " % mark.encode()
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        if self.status is not None:
            return b""
        data, self._held = self._held + data, b""
        if not self.began:
            data = self._find_begin(data)
        return self._until_end(data) if self.began else b""

    def end(self) -> bytes:
        if not self.began:
            self.noise.write(self._held)
        return b""

    def _find_begin(self, data: bytes) -> bytes:
        before, found, rest = data.partition(self._begin)
        if found:
            self.noise.write(before)
            self.began = True
            return rest
        kept = len(data) - _overlap(data, self._begin)
        self.noise.write(data[:kept])
        self._held = data[kept:]
        return b""

    def _until_end(self, data: bytes) -> bytes:
        at = data.find(self._end)
        if at < 0:
            held = _overlap(data, self._end)
            if not held:
                return data
            self._held = data[-held:]
            return data[:-held]
        code = re.match(rb"(\d{1,3})>", data[at + len(self._end) :])
        if code is None:
            self._held = data[at:]
        else:
            self.status = int(code[1])
        return data[:at]


@dataclass(frozen=True)
class Greeting:
    """What sudo prints on standard output by itself, before and after each command."""

    before: bytes = b""
    after: bytes = b""
    constant: bool = True

    @property
    def quiet(self) -> bool:
        """Whether it prints nothing, as it should."""
        return self.constant and not self.before and not self.after

    @property
    def words(self) -> str:
        """For messages."""
        return " ".join((self.before or self.after).decode(errors="replace").split())[:200]


def read_greeting(output: bytes, mark: str) -> Greeting | None:
    """Read what :func:`greeting_argv` printed; None when that is something else."""
    parts = output.split(mark.encode())
    if len(parts) != 3:
        return None
    before, between, after = parts
    return Greeting(before, after, constant=between == after + before)


class GreetingTaken:
    """
    Takes a constant greeting off, where the login may start no shell that would print marks.

    :param differs: Set when something else came in its place.
    """

    def __init__(self, greeting: Greeting) -> None:
        self.differs = False
        self.words = greeting.words
        self._greeting = greeting
        self._seen = b""
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        data, self._seen = self._seen + data, b""
        before, after = self._greeting.before, self._greeting.after
        if not self._begun:
            if len(data) < len(before):
                self._seen = data
                return b""
            self.differs = not data.startswith(before)
            self._begun, data = True, data.removeprefix(before)
        kept = max(0, len(data) - len(after))
        self._seen = data[kept:]
        return data[:kept]

    def end(self) -> bytes:
        wanted = self._greeting.after if self._begun else self._greeting.before
        self.differs |= self._seen != wanted
        return b"" if self._seen == wanted else self._seen


def _overlap(data: bytes, mark: bytes) -> int:
    """Return how many of the last bytes of `data` may be the beginning of `mark`."""
    for length in range(min(len(mark) - 1, len(data)), 0, -1):
        if mark.startswith(data[-length:]):
            return length
    return 0
