"""
Switches that make the site misbehave, at run time.

One JSON file holds the faults that are set; every server of the site reads it when a request comes in. Each hit adds
one byte to a file of its own, so that "the next two times" holds across processes and a test can ask whether its fault
was met at all.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lab.layout import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STREAM_ACTIONS = ("cut", "close", "stall", "corrupt", "truncate", "no-status", "restart", "slow")


@dataclass(frozen=True)
class Fault:
    """
    One switch.

    :param kind: Which server it is for: ``exec``, ``api``, ``ssh`` or ``gcs``.
    :param action: What happens; see the method of :class:`Faults` that sets it.
    :param where: Regular expression searched in the target: ``cluster/namespace/pod/container``, a node's name or a path.
    :param match: Regular expression searched in the command line, or in ``METHOD path?query``.
    :param after: Bytes that still pass.
    :param times: How often it strikes; None for always.
    """

    id: str
    kind: str
    action: str
    where: str = ""
    match: str = ""
    after: int = 0
    times: int | None = None
    value: Any = None


class FaultFile:
    """What a server holds: finds the fault that a request meets, and counts it."""

    def __init__(self, root: Path) -> None:
        self._path = root / "run/faults.json"
        self._hits = root / "run/faults"
        self._seen: tuple[int, ...] = ()
        self._faults: tuple[Fault, ...] = ()

    def all(self) -> tuple[Fault, ...]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return ()
        # two writes may fall into one tick of the file system's clock; a renamed file never has its predecessor's inode
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._seen:
            self._seen = stamp
            self._faults = tuple(Fault(**entry) for entry in json.loads(self._path.read_text()))
        return self._faults

    def take(self, kind: str, where: str, subject: str, *actions: str) -> Fault | None:
        """Return the first fault that this request meets and count the hit; `actions` narrows, empty for any."""
        for fault in self.all():
            if fault.kind != kind or (actions and fault.action not in actions):
                continue
            if not re.search(fault.where, where) or not re.search(fault.match, subject):
                continue
            if fault.times is not None and self.hits(fault.id) >= fault.times:
                continue
            with open(self._hits / fault.id, "ab") as counter:
                counter.write(b".")
            return fault
        return None

    def hits(self, fault_id: str) -> int:
        try:
            return (self._hits / fault_id).stat().st_size
        except FileNotFoundError:
            return 0


class Faults(FaultFile):
    """
    What a test holds: sets and clears faults. Every method that sets one is a context manager and yields the fault.

    >>> with site.faults.exec_stream("cut", after=100_000, match="^cat "):
    ...     run_backup()
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._hits.mkdir(parents=True, exist_ok=True)

    def exec_stream(
        self,
        action: str,
        *,
        where: str = "",
        match: str = "",
        after: int = 0,
        times: int | None = None,
        value: Any = None,
    ) -> contextlib.AbstractContextManager[Fault]:
        """
        Spoil the standard output of commands in containers.

        :param action: ``cut`` (the TCP connection is reset), ``close`` (clean CLOSE, no status), ``stall`` (not a byte
            more, and no status where `after` is 0), ``corrupt`` (one byte flipped), ``truncate`` (the rest is left out, status Success), ``no-status``
            (whole output, then CLOSE without a status), ``restart`` (the container is killed), ``slow`` (`value`
            bytes per second).
        """
        return self._set("exec", action, where=where, match=match, after=after, times=times, value=value)

    def exec_answer(
        self,
        *,
        match: str,
        where: str = "",
        stdout: str = "",
        stderr: str = "",
        code: int = 0,
        times: int | None = None,
    ) -> contextlib.AbstractContextManager[Fault]:
        """Answer commands in containers with a made-up result instead of running them."""
        value = {"stdout": stdout, "stderr": stderr, "code": code}
        return self._set("exec", "answer", where=where, match=match, times=times, value=value)

    def no_space(self, *, where: str = "", times: int | None = None) -> contextlib.AbstractContextManager[Fault]:
        """Let ``snapshot save`` in containers run into ENOSPC: its target becomes /dev/full."""
        return self._set("exec", "no-space", where=where, match="snapshot save", times=times)

    def api(
        self, code: int, *, match: str, where: str = "", times: int | None = None, retry_after_s: int | None = None
    ) -> contextlib.AbstractContextManager[Fault]:
        """Answer API requests whose ``METHOD path?query`` matches with a Status of that code; 0 drops the connection."""
        return self._set("api", "status", where=where, match=match, times=times, value=[code, retry_after_s])

    def api_slow(
        self, seconds: float, *, match: str, where: str = "", times: int | None = None
    ) -> contextlib.AbstractContextManager[Fault]:
        """Delay API answers."""
        return self._set("api", "slow", where=where, match=match, times=times, value=seconds)

    def ssh(
        self,
        action: str,
        *,
        where: str = "",
        match: str = "",
        after: int = 0,
        times: int | None = None,
        value: Any = None,
    ) -> contextlib.AbstractContextManager[Fault]:
        """
        Spoil SSH to a node, or to ``jump``.

        :param action: ``refuse`` (nobody listens), ``drop`` (hung up before the banner), ``hostkey`` (another host
            key), ``auth`` (no key is accepted), ``sudo`` (sudo asks for a password), ``forward`` (the jump host does
            not forward), or, for commands that match, one of the stream actions of :meth:`exec_stream`.
        """
        return self._set("ssh", action, where=where, match=match, after=after, times=times, value=value)

    def gcs(
        self, action: str, *, match: str, after: int = 0, times: int | None = None, value: Any = None
    ) -> contextlib.AbstractContextManager[Fault]:
        """
        Spoil the object store for requests whose ``METHOD path?query`` matches.

        :param action: ``status`` (answer with the code in `value`), ``cut`` (reset after `after` bytes of the answer),
            ``cut-upload`` (reset after `after` bytes of the request), ``truncate`` (the answer ends early as if whole),
            ``corrupt`` (one byte of the answer flipped), ``slow`` (`value` seconds).
        """
        return self._set("gcs", action, match=match, after=after, times=times, value=value)

    def clear(self) -> None:
        """Unset everything."""
        self._write(())

    @contextlib.contextmanager
    def _set(self, kind: str, action: str, **fields: Any) -> Iterator[Fault]:
        fault = Fault(uuid.uuid4().hex[:12], kind, action, **fields)
        self._write((*self.all(), fault))
        try:
            yield fault
        finally:
            self._write(tuple(other for other in self.all() if other.id != fault.id))

    def _write(self, faults: tuple[Fault, ...]) -> None:
        write_atomic(self._path, json.dumps([asdict(fault) for fault in faults]))
        self._seen: tuple[int, ...] = ()


class Tap:
    """
    What a stream fault does to one stream.

    Give it every piece of output; it returns what is to be sent and, once, the action that is due.
    """

    def __init__(self, fault: Fault | None) -> None:
        self.fault = fault
        self.passed = 0
        self.done = fault is None

    @property
    def action(self) -> str:
        return self.fault.action if self.fault else ""

    def feed(self, data: bytes) -> tuple[bytes, str]:
        if self.done or self.fault is None:
            return (b"", "") if self.action == "truncate" and self.fault else (data, "")
        room = self.fault.after - self.passed
        self.passed += len(data)
        if len(data) <= room:
            return data, ""
        if self.action == "corrupt":
            self.done = True
            return data[:room] + bytes([data[room] ^ 0x01]) + data[room + 1 :], ""
        if self.action in ("no-status", "slow"):
            return data, ""
        self.done = True
        return data[:room], self.action

    def end(self) -> str:
        """Return the action that is due at the end of the output: where no byte passes, no status does."""
        if self.done or self.fault is None or self.fault.after:
            return ""
        self.done = True
        return self.action
