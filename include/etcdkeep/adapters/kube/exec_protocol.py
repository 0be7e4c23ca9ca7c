"""
What travels on a pod's exec connection, as data: WebSocket frames in, Kubernetes channels out, the exit status.

Frames: RFC 6455 §5.2. Channels (``v4.channel.k8s.io``, ``v5.channel.k8s.io``): the first byte of every message names
one; v5 adds 255, which closes the channel named by the second byte.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

STDIN, STDOUT, STDERR, ERROR, CLOSE = 0, 1, 2, 3, 255
V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"

CONTINUATION, TEXT, BINARY, CLOSING, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MAX_CONTROL_BYTES = 125


class ProtocolError(ValueError):
    """The bytes are no WebSocket frames of a server."""


class Received(NamedTuple):
    """
    A piece of what arrived.

    :param opcode: BINARY for data, else CLOSING, PING or PONG.
    :param channel: The data's channel; -1 for the control frames.
    :param payload: A view into the bytes fed in: take it before the next call.
    """

    opcode: int
    channel: int
    payload: memoryview


class FrameDecoder:
    """
    Decodes a server's frames from bytes cut anywhere.

    Data is handed on as it comes, never gathered: memory does not depend on how large the frames are.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._header_size = 2
        self._opcode = -1
        self._left = 0
        self._control = bytearray()
        self._message_open = False
        self._channel = -1

    def feed(self, data: bytes) -> Iterator[Received]:
        """
        Yield what `data` completes or continues.

        :raises ProtocolError: when the frames break the protocol; nothing after that can be trusted.
        """
        view = memoryview(data)
        at = 0
        while at < len(view):
            if self._header_size:
                taken = view[at : at + self._header_size - len(self._header)]
                self._header += taken
                at += len(taken)
                if len(self._header) < self._header_size or not self._read_header():
                    continue
            taken = view[at : at + self._left]
            at += len(taken)
            self._left -= len(taken)
            yield from self._take(taken)
            if not self._left:
                self._end_frame()

    def _read_header(self) -> bool:
        """Interpret the header gathered so far; False when its length field is still to come."""
        first, second = self._header[0], self._header[1]
        length = second & 0x7F
        if self._header_size == 2:
            if first & 0x70 or second & 0x80:
                raise ProtocolError(
                    f"a frame header begins with {first:#04x} {second:#04x}: reserved bits or a masked server frame"
                )
            if length > MAX_CONTROL_BYTES:
                self._header_size = 4 if length == 126 else 10
                if first & 0x8:
                    raise ProtocolError("a control frame is longer than 125 bytes")
                return False
        else:
            length = int.from_bytes(self._header[2:], "big")
        self._left = length
        self._header_size = 0
        self._begin_frame(first & 0x0F)
        return True

    def _begin_frame(self, opcode: int) -> None:
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSING, PING, PONG):
            raise ProtocolError(f"unknown opcode {opcode}")
        if opcode < CLOSING:
            if (opcode == CONTINUATION) != self._message_open:
                raise ProtocolError("a message's fragments are out of order")
            if opcode != CONTINUATION:
                self._message_open, self._channel = True, -1
        self._opcode = opcode

    def _take(self, piece: memoryview) -> Iterator[Received]:
        if self._opcode >= CLOSING:
            self._control += piece
            if not self._left:
                yield Received(self._opcode, -1, memoryview(bytes(self._control)))
            return
        if self._channel < 0 and piece:
            self._channel, piece = piece[0], piece[1:]
        if piece:
            yield Received(BINARY, self._channel, piece)

    def _end_frame(self) -> None:
        if self._opcode < CLOSING and self._header[0] & 0x80:
            self._message_open = False
        self._header.clear()
        self._header_size = 2
        self._control.clear()


@dataclass(frozen=True)
class ExitStatus:
    """
    How the command ended, from the error channel.

    :param code: Its exit code; None when it was never started or its runtime gave up, then `message` says why.
    """

    code: int | None
    message: str = ""


def parse_exit_status(raw: bytes) -> ExitStatus:
    """
    Read the Status object of the error channel.

    :raises ValueError: when it is none.
    """
    status = json.loads(raw)
    if not isinstance(status, dict) or status.get("status") not in ("Success", "Failure"):
        raise ValueError(f"not a Status: {raw[:200]!r}")
    if status["status"] == "Success":
        return ExitStatus(0)
    message = str(status.get("message", ""))
    causes = (status.get("details") or {}).get("causes") or ()
    codes = [cause.get("message", "") for cause in causes if cause.get("reason") == "ExitCode"]
    if status.get("reason") == "NonZeroExitCode" and codes:
        return ExitStatus(int(codes[0]), message)
    return ExitStatus(None, message or str(status.get("reason", "")))


PROGRAM_MISSING = re.compile(
    r"executable file .{0,200}not found"  # runc, crun; containerd, CRI-O and docker hand their words on
    r"|exec: \S{1,200} (stat \S{1,200} )?no such file or directory"  # runc: exec: "/bin/x": stat /bin/x: no such …
    r"|the file \S{1,200} was not found",  # kata
    re.IGNORECASE | re.DOTALL,
)


def says_program_missing(text: str) -> bool:
    """Tell whether a container runtime says that the program is not in the image."""
    return PROGRAM_MISSING.search(text) is not None
