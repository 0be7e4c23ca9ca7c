"""
The database of a member as it lies on its node: what was there when nobody serves it any more.

Only what etcd had committed to it counts; its last moments may stand in the write-ahead log alone. While etcd runs, a
copy of the file may be torn: the reader finds that, and then nothing is known.
"""

from __future__ import annotations

import posixpath
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from etcdkeep.control_plane.node_archive import SUDO, read_file_argv
from etcdkeep.errors import EtcdkeepError, StreamCut
from etcdkeep.ports import StreamLimits
from etcdkeep.sealing.private_file import private_file
from etcdkeep.snapshot import open_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from etcdkeep.ports import CommandRunner
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.snapshot import Snapshot

LOOK_S = 30.0
COPY = StreamLimits(300.0, stall_s=30.0)


@dataclass(frozen=True)
class LiveDatabase:
    """
    Where one lies.

    :param address: Of the node.
    :param written_at: When it was written last.
    """

    node: str
    address: str
    path: str
    size_bytes: int
    written_at: datetime


def find_databases(
    nodes: Sequence[NodeFacts], open_node: Callable[[str], AbstractContextManager[CommandRunner]]
) -> list[LiveDatabase]:
    """Return the databases that can be read, the one that was written last first."""
    found: list[LiveDatabase] = []
    for facts in nodes:
        path = posixpath.join(facts.member.path, "snap/db")
        try:
            with open_node(facts.address) as runner:
                said = runner.run((*SUDO, "stat", "-c", "%s %Y", path), StreamLimits(LOOK_S)).stdout
            size_bytes, written_s = map(int, said.split())
        except (EtcdkeepError, ValueError):
            continue
        written_at = datetime.fromtimestamp(written_s, UTC)
        found.append(LiveDatabase(facts.node, facts.address, path, size_bytes, written_at))
    return sorted(found, key=lambda each: each.written_at, reverse=True)


@contextmanager
def open_database(runner: CommandRunner, database: LiveDatabase) -> Iterator[Snapshot]:
    """
    Open a copy that only this process can reach.

    :raises NoSpace: when it does not fit here.
    :raises SnapshotDamaged: when it is damaged, or was written to meanwhile; also while it is read.
    :raises SnapshotUnreadable: when it is no database.
    :raises TransientError: when the node stops answering.
    """
    with private_file(database.size_bytes) as copy:
        for piece in runner.stream(read_file_argv(database.path), COPY):
            copy.write(piece)
        copy.flush()
        if copy.tell() < database.size_bytes:
            raise StreamCut(
                f"{database.path} of node {database.node}: {copy.tell()} of {database.size_bytes} bytes arrived"
            )
        with open_snapshot(copy.fileno()) as snapshot:
            yield snapshot
