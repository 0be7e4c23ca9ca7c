"""The places of a restore plan, opened when first needed and anew after a cut."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from etcdkeep.errors import NotFound, StreamCut, StreamStalled, Unreachable
from etcdkeep.ports import PodRef
from etcdkeep.sets.opening import stream_plaintext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from etcdkeep.ports import CommandResult, CommandRunner, KubeApi, StreamLimits
    from etcdkeep.restore.steps import Place, Plan
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.site.site import Site

log = logging.getLogger(__name__)


def open_world(site: Site, plan: Plan, found: BackupSet | None) -> RestoreWorld:
    """
    Return the places of a plan for a site, with the plaintext of a set.

    :param found: None for a way back, which brings no files.
    """

    def open_artifact(name: str) -> Iterator[bytes]:
        if found is None:
            raise NotFound(f"backup {plan.cluster}/{plan.backup_id} is no longer in {site.repository.store.url}.")
        return stream_plaintext(site.repository.store, found, site.identities(), name)

    return RestoreWorld(plan, open_node=site.open_node, open_api=lambda: site.api, open_artifact=open_artifact)


class RestoreWorld:
    """
    Implements :class:`~etcdkeep.restore.actions.World` for one plan; a context manager that closes what it opened.

    :param open_node: Opens a shell on a node, given its address (:meth:`Site.open_node`).
    :param open_api: Returns the API; first called by a plan that needs one.
    :param open_artifact: Yields the plaintext of an artifact, by the name that ``unseal`` gives it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        open_node: Callable[[str], AbstractContextManager[CommandRunner]],
        open_api: Callable[[], KubeApi],
        open_artifact: Callable[[str], Iterator[bytes]],
    ) -> None:
        self._plan = plan
        self._open_node = open_node
        self._open_api = open_api
        self._open_artifact = open_artifact
        self._nodes: dict[str, _Reopening] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes.values():
            node.close()

    def runner(self, place: str) -> CommandRunner:
        """Return a runner for a node or pod of the plan."""
        found = self._plan.place(place)
        if found.kind == "pod":
            return self.api().exec(PodRef(*found.address.split("/")))
        return self._nodes.setdefault(place, _Reopening(found, self._open_node))

    def api(self) -> KubeApi:
        """Return the Kubernetes API."""
        return self._open_api()

    def artifact(self, name: str) -> Iterator[bytes]:
        """Yield the plaintext of an artifact."""
        return self._open_artifact(name)


class _Reopening:
    """A node's shell that logs in again after a cut, so that the next command has a chance."""

    def __init__(self, place: Place, open_node: Callable[[str], AbstractContextManager[CommandRunner]]) -> None:
        self._place = place
        self._open_node = open_node
        self._opened = ExitStack()
        self._shell: CommandRunner | None = None
        self.where = f"node {place.name}"

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        """Run to the end and return its output."""
        try:
            return self._open().run(argv, limits, stdin=stdin)
        except (StreamCut, StreamStalled, Unreachable):
            self.close()
            raise

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        """Yield standard output as it comes."""
        try:
            yield from self._open().stream(argv, limits)
        except (StreamCut, StreamStalled, Unreachable):
            self.close()
            raise

    def close(self) -> None:
        """Log out; the next command logs in again."""
        self._shell = None
        self._opened.close()

    def _open(self) -> CommandRunner:
        if self._shell is None:
            log.info("node %s: logging in at %s", self._place.name, self._place.address)
            self._shell = self._opened.enter_context(self._open_node(self._place.address))
        return self._shell
