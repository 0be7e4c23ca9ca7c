"""A store that fails, or whose user is killed, at the n-th operation."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.ports import ObjectStore, StoredObject


class Killed(BaseException):
    """The process is gone: no handler of ours may run on."""


class Tripwire:
    """
    Another store, with a fault.

    :param at: Which operation fails, from 1; 0 for none.
    :param error: Makes what is raised.
    :param after: Raise when the operation is done, as when the answer is lost.
    :param only: Names of the operations that count; empty for all.
    """

    def __init__(
        self,
        store: ObjectStore,
        at: int = 0,
        error: Callable[[], BaseException] = Killed,
        *,
        after: bool = False,
        only: tuple[str, ...] = (),
    ) -> None:
        self.store, self.at, self.error, self.after, self.only = store, at, error, after, only
        self.seen: list[str] = []
        self.dead = False
        self.url = store.url

    @contextmanager
    def _counted(self, operation: str, name: str) -> Iterator[None]:
        if self.dead:
            raise Killed("nothing is done by a dead process")
        counts = not self.only or operation in self.only
        if counts:
            self.seen.append(f"{operation} {name}")
        trips = counts and len(self.seen) == self.at
        if trips and not self.after:
            self._trip()
        yield
        if trips and self.after:
            self._trip()

    def _trip(self) -> None:
        error = self.error()
        self.dead = isinstance(error, Killed)
        raise error

    @contextmanager
    def create(self, name: str, *, content_type: str = "") -> Iterator[BinaryIO]:
        with self._counted("create", name), self.store.create(name) as sink:
            yield sink

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with self._counted("open", name), self.store.open(name) as stream:
            yield stream

    def stat(self, name: str) -> StoredObject | None:
        with self._counted("stat", name):
            return self.store.stat(name)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        with self._counted("list", prefix):
            found = list(self.store.list(prefix))
        return iter(found)

    def delete(self, name: str) -> None:
        with self._counted("delete", name):
            self.store.delete(name)

    def purge(self, prefix: str) -> int:
        with self._counted("purge", prefix):
            return self.store.purge(prefix)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)
