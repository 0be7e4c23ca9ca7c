"""What can be done to one etcd member to make it sick."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from typing import TYPE_CHECKING

from lab.runtime import find_container
from lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.layout import Node


class Member:
    """
    One etcd member.

    :param where: Namespace, pod and container, when it is no static pod of its node.
    :param data: Its data folder, when it is not the node's.
    """

    def __init__(self, node: Node, where: tuple[str, str, str] | None = None, data: Path | None = None) -> None:
        self._node = node
        self._where = where or ("kube-system", f"etcd-{node.name}", "etcd")
        self._data = data or node.data_dir
        self._parked = node.root / "tmp/etcd.yaml"

    @property
    def data_dir(self) -> str:
        """Its data folder, as a real path."""
        return str(self._data)

    @property
    def pid(self) -> int:
        """Its process; 0 while it does not run."""
        state = find_container(self._node, *self._where)
        return state.pid if state is not None and state.running else 0

    def database(self) -> bytes:
        """Return the bytes of its database file."""
        return (self._data / "member/snap/db").read_bytes()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep a static pod's member down: its manifest is parked outside the folder meanwhile."""
        manifest = self._node.manifests / "etcd.yaml"
        manifest.rename(self._parked)
        try:
            wait_for(lambda: not self.pid, f"etcd on {self._node.name} to stop")
            yield
        finally:
            self._parked.rename(manifest)
            wait_for(lambda: self.pid, f"etcd on {self._node.name} to start")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the member stop answering without ending: SIGSTOP."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def ruin(self) -> None:
        """Make the database unreadable and kill etcd: it ends again at every start, and the API with it."""
        with open(self._data / "member/snap/db", "r+b") as file:
            file.write(b"\xff" * 4 * mmap.PAGESIZE)
        self.kill()

    def kill(self) -> None:
        """Kill etcd, should it run."""
        pid = self.pid
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def tamper(self, old: bytes, new: bytes) -> int:
        """
        Replace bytes in the stopped member's database file, so that it holds other values than its peers.

        bbolt keeps no checksums of its pages: the member starts and serves what it finds.

        :param new: As long as `old`.
        :return: How many places were changed.
        """
        if len(old) != len(new):
            raise ValueError(f"expected {len(old)} bytes, found {len(new)}")
        path = self._data / "member/snap/db"
        places = 0
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as data:
            place = data.find(old)
            while place >= 0:
                data[place : place + len(old)] = new
                places += 1
                place = data.find(old, place + 1)
        return places
