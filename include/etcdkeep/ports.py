"""
What the domain asks of the outside world: an object store, a Kubernetes API, a pod's exec, a node's shell.

The adapters implement these; tests bring their own. Nothing here imports a client library.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime


@dataclass(frozen=True)
class StoredObject:
    """
    One object in a store.

    :param name: Path below the store's root, ``/``-separated, never starting with ``/``.
    :param crc32c: CRC-32C (Castagnoli) of the bytes, when the store keeps one.
    :param locked_until: Until when the store refuses to delete it, as far as it tells; None where it does not refuse.
    :param version: Changes when the bytes do, in the store's own words: a generation, an ETag, a file's times; empty where it has none.
    """

    name: str
    size_bytes: int
    updated_at: datetime
    crc32c: int | None = None
    locked_until: datetime | None = None
    version: str = field(default="", compare=False)


class ByteSink(Protocol):
    """Where a writer puts bytes, in order."""

    def write(self, data: bytes, /) -> int: ...


class ObjectStore(Protocol):
    """
    A flat, create-only store of immutable objects: a GCS bucket prefix or a directory.

    Every method raises :class:`~etcdkeep.errors.StoreUnavailable` for passing trouble,
    :class:`~etcdkeep.errors.AccessDenied` for refused credentials, and
    :class:`~etcdkeep.errors.UnsafeName` for a name that would leave the store.
    """

    url: str
    """As configured: ``gs://bucket/prefix`` or ``file:///path``."""

    def create(self, name: str, *, content_type: str = ...) -> AbstractContextManager[BinaryIO]:
        """
        Open a new object for writing; it appears whole when the block ends, and not at all when the block raises.

        :raises ObjectExists: when an object of that name is there, at the latest at the end of the block.
        :raises NoSpace: when there is no room.
        """

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """
        Open an object for sequential reading.

        :raises NotFound: when there is none.
        """

    def stat(self, name: str) -> StoredObject | None:
        """Return the object's facts, or None when there is none."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects whose name starts with `prefix`, in name order, without what is still being written."""

    def copy(self, source: str, target: str) -> None:
        """
        Copy inside the store, on the server's side, create-only.

        :raises ObjectExists: when `target` is there.
        :raises NotFound: when `source` is not.
        """

    def delete(self, name: str) -> None:
        """Delete one object; no error when it is gone already."""

    def purge(self, prefix: str) -> int:
        """
        Delete everything in the folder `prefix` (``a/b`` and ``a/b/`` mean the same), half-written remains included.

        :return: How many were deleted.
        """

    def protect(self, name: str, until: datetime) -> bool:
        """
        Forbid deletion before `until` where the store can.

        :return: False when this store has no such means.
        """

    def free_bytes(self) -> int | None:
        """Room left for new objects; None when the store has no such limit."""


@dataclass(frozen=True)
class StreamLimits:
    """
    When a running command is given up.

    :param deadline_s: Seconds from start to end, whatever happens.
    :param stall_s: Seconds without one byte of standard output; None where silence is normal.
    """

    deadline_s: float
    stall_s: float | None = None


@dataclass(frozen=True)
class CommandResult:
    """What a finished command left; a failed one raises instead."""

    stdout: bytes
    stderr: str = ""


class CommandRunner(Protocol):
    """
    Runs programs in one container or on one node.

    Both methods raise :class:`~etcdkeep.errors.CommandFailed` for an exit code other than 0,
    :class:`~etcdkeep.errors.CommandMissing` when the program is not there,
    :class:`~etcdkeep.errors.StreamCut` when no exit status arrived,
    :class:`~etcdkeep.errors.StreamStalled` past a limit, and
    :class:`~etcdkeep.errors.Unreachable` / :class:`~etcdkeep.errors.AccessDenied` when it could not be started.
    """

    where: str
    """For messages: ``pod kube-system/etcd-cp-0`` or ``node ubuntu@10.0.0.1``."""

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        """Run to the end and return its output; for small outputs (bounded at 64 MiB)."""

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        """
        Yield standard output as it comes; the iterator ends only after exit code 0 was seen.

        Closing the iterator early ends the remote command as far as the protocol allows.
        """


class PodRunner(CommandRunner, Protocol):
    """Runs programs in one container, through the API server."""

    def stream(self, argv: Sequence[str], limits: StreamLimits, *, hold_bytes: int = 0) -> Iterator[bytes]:
        """
        Yield standard output as it comes, as :meth:`CommandRunner.stream` does.

        :param hold_bytes: Keep standard input open until so many bytes came. Kubernetes may drop, and report success,
            what is still on its way when a command exits (kubectl #1361, kubernetes #124571); ``cat FILE -`` with its
            input held exits only when everything has arrived.
        """


@dataclass(frozen=True)
class PodRef:
    """A container of a pod."""

    namespace: str
    pod: str
    container: str


class KubeApi(Protocol):
    """
    The few calls of the Kubernetes API that a backup or restore needs; objects come as the API's own JSON.

    Raises :class:`~etcdkeep.errors.Unreachable`, :class:`~etcdkeep.errors.AccessDenied`,
    :class:`~etcdkeep.errors.NotFound`.
    """

    def get(self, path: str) -> dict[str, Any]:
        """GET one path such as ``/api/v1/namespaces/kube-system``."""

    def list(self, path: str, *, label_selector: str = "") -> list[dict[str, Any]]:
        """GET a collection, all pages, as its items."""

    def version(self) -> str:
        """The server's ``gitVersion``."""

    def create(self, path: str, body: Mapping[str, Any]) -> None:
        """POST an object to its collection; no error when one of that name is there already."""

    def patch(self, path: str, body: Mapping[str, Any]) -> None:
        """PATCH one object, or its `scale`, with a JSON merge patch."""

    def apply(
        self, path: str, manifest: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """
        Apply one object on the server's side, as field manager ``etcdkeep``, and return it as it is then.

        :param path: The object's own; it is made when it is not there.
        :param manifest: A uid and a resourceVersion in it are preconditions.
        :param force: Take over fields that others have set.
        :param dry_run: Have everything checked, and change nothing.
        :raises FieldsOwned: when others have set fields to other values, and `force` is not given.
        :raises LiveChanged: when a precondition does not hold.
        :raises ObjectRefused: when the server does not take it: invalid, or denied by admission.
        :raises NotServed: when the cluster has no such kind.
        :raises NotFound: when its namespace is not there.
        """

    def delete(self, path: str) -> None:
        """DELETE one object; no error when it is gone already."""

    def exec(self, pod: PodRef) -> PodRunner:
        """Return a runner for commands inside that container."""
