"""What the two command runners (pod exec and SSH) share: limits, the tail of standard error, small outputs."""

from __future__ import annotations

import shlex
from contextlib import closing
from time import monotonic
from typing import TYPE_CHECKING

from etcdkeep.errors import CommandFailed, StreamStalled

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from etcdkeep.ports import StreamLimits

CHUNK_BYTES = 256 * 1024
MAX_RUN_BYTES = 64 * 1024 * 1024
TAIL_BYTES = 4096
SHOWN_CHARACTERS = 200


def command_text(argv: Sequence[str]) -> str:
    """Return the command for a message, shortened."""
    text = shlex.join(argv)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


class Tail:
    """Keeps the last bytes of what is written to it."""

    def __init__(self) -> None:
        self._kept = b""

    def write(self, data: bytes | memoryview) -> None:
        """Append, and forget what is further back than the tail's length."""
        self._kept = (self._kept + bytes(data[-TAIL_BYTES:]))[-TAIL_BYTES:]

    def text(self) -> str:
        """The tail, undecodable bytes replaced."""
        return self._kept.decode(errors="replace").strip()


class Watchdog:
    """
    Tells when a running command is given up.

    Time during which the consumer is busy with a chunk counts for the deadline, never for the stall limit.
    """

    def __init__(self, limits: StreamLimits, what: str) -> None:
        self._limits = limits
        self._what = what
        self._received = 0
        now = monotonic()
        self._ends = now + limits.deadline_s
        self._progress = now

    def progress(self, size: int = 0) -> None:
        """Note that standard output came, or that the reader starts to look again."""
        self._received += size
        self._progress = monotonic()

    def left_s(self) -> float:
        """
        Seconds until a limit is reached.

        :raises StreamStalled: when one is.
        """
        now = monotonic()
        deadline_left = self._ends - now
        if deadline_left <= 0:
            raise StreamStalled(
                f"{self._what} did not end within {self._limits.deadline_s:g} s and was stopped ({self._received} bytes received)."
            )
        if self._limits.stall_s is None:
            return deadline_left
        stall_left = self._progress + self._limits.stall_s - now
        if stall_left <= 0:
            raise StreamStalled(
                f"{self._what} gave no output for {self._limits.stall_s:g} s (after {self._received} bytes) and was stopped."
            )
        return min(deadline_left, stall_left)


def gather(chunks: Generator[bytes], what: str) -> bytes:
    """
    Return a small output as a whole.

    :raises CommandFailed: when it is larger than 64 MiB; the command is ended.
    """
    output = bytearray()
    with closing(chunks):
        for chunk in chunks:
            output += chunk
            if len(output) > MAX_RUN_BYTES:
                raise CommandFailed(
                    f"{what} printed more than {MAX_RUN_BYTES} bytes, more than expected, and was stopped.",
                    exit_code=0,
                )
    return bytes(output)
