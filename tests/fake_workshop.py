"""A workshop for drills without etcd: what it serves is a snapshot, by default the one that was to be restored."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from etcdkeep.drill.contents import Contents, LiveKey, read_contents
from etcdkeep.drill.tools import Program, Programs
from etcdkeep.snapshot import open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def make_programs(etcd: str = "3.5.1", restore: str = "3.5.1", name: str = "etcdutl") -> Programs:
    """Return programs of those versions."""
    return Programs(Program(Path("/opt/etcd"), etcd), Program(Path(f"/opt/{name}"), restore))


@dataclass
class FakeWorkshop:
    """
    :param folder: As the real one's.
    :param served: The snapshot that its etcd serves; None for the one restored.
    :param faults: By what is done (``restore``, ``serve``, ``serve empty``, ``keys``): the exception that ends it.
    """

    folder: Path
    programs: Programs = field(default_factory=make_programs)
    served: bytes | None = None
    faults: dict[str, Exception] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def open(self, snapshot_bytes: int) -> Iterator[FakeWorkshop]:
        self.folder.mkdir(mode=0o700)
        try:
            yield self
        finally:
            shutil.rmtree(self.folder)

    def restore(self, snapshot: Path) -> None:
        self.do("restore")
        (self.folder / "data").write_bytes(snapshot.read_bytes() if self.served is None else self.served)

    @contextmanager
    def serve(self, *, empty: bool = False) -> Iterator[FakeServer]:
        self.do("serve empty" if empty else "serve")
        with open_snapshot(self.folder / "data") as snapshot:
            contents = replace(read_contents(snapshot), **self.changes)
            keys = [
                LiveKey(found.key, found.create_revision, found.revision, found.version, found.lease, value)
                for found, value in snapshot.live_values()
            ]
            yield FakeServer(self, contents, keys)

    def do(self, what: str) -> None:
        self.done.append(what)
        if what in self.faults:
            raise self.faults[what]


@dataclass
class FakeServer:
    workshop: FakeWorkshop
    contents: Contents
    live: Sequence[LiveKey]

    def revision(self) -> int:
        return self.contents.revision

    def keys(self, revision: int) -> Iterator[Sequence[LiveKey]]:
        self.workshop.do("keys")
        ordered = sorted(self.live)
        yield ordered[:2]
        yield ordered[2:]

    def hash_kv(self) -> int:
        return self.contents.hash_kv
