"""Steps that turn the snapshot into checked member data beside the live data, while everything runs."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etcdkeep.restore.found.tools import (
    MemberFlags,
    Tool,
    remains_argv,
    remove_remains_argv,
    restore_args,
    status_args,
    tool_argv,
)
from etcdkeep.restore.options import SNAPSHOT_FILE
from etcdkeep.restore.steps import Check, Move, Phase, Put, Run, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.found.nodes import PathFacts
    from etcdkeep.restore.plan.staging import StagingSite
    from etcdkeep.sets.manifest import Artifact

_OWNER = 'live=$1; [ -e "$live" ] || live=${1%/*}; owner=$(stat -c %u:%g "$live") && '
OWN_ALIKE = _OWNER + 'chown -R "$owner" "$2"'
OWNED_ALIKE = _OWNER + '[ "$(stat -c %u:%g "$2/snap/db")" = "$owner" ]'
"""For a member that could not be asked in advance: its own owner, or its folder's where it is gone."""

SLOWEST_BYTES_PER_S = 2 * 2**20
TOOL_START_S = 120.0
REMAINS_S = 30.0


@dataclass(frozen=True)
class NewData:
    """
    What a member's new data is made from, and what it is to be like.

    :param revision: Of the restored database; `bump_revision` is by how much that is above the snapshot's.
    :param live: Owner, mode and label that the data gets. Mode and label stay as the tool makes them where they are None,
        the owner becomes that of the live data.
    """

    snapshot: Artifact
    tool: Tool
    member: MemberFlags
    revision: int
    bump_revision: int
    live: PathFacts


def stage_data(site: StagingSite, new: NewData) -> list[Step]:
    """Return the steps, in their order."""
    steps = _DataSteps(site, new)
    return [
        steps.snapshot(),
        steps.remains(),
        steps.partial_aside(),
        steps.unpack(),
        steps.check(),
        *steps.attributes(),
        steps.ready(),
    ]


@dataclass(frozen=True)
class _DataSteps:
    site: StagingSite
    new: NewData

    def snapshot(self) -> Step:
        plain = self.new.snapshot.plaintext
        return self._step(
            "snapshot",
            f"copy the snapshot ({plain.size_bytes} bytes) there and compare its SHA-256",
            Put(SNAPSHOT_FILE, self._file, plain.size_bytes, plain.sha256, self.site.prefix),
            Check(self.site.argv("sha256sum", self._file), "match", f"^{plain.sha256} ", self._limit_s),
        )

    def remains(self) -> Step:
        tool, folder = self.new.tool, self.site.folder
        step = self._step(
            "remains",
            "stop what an earlier, interrupted attempt may have left running",
            Run(remove_remains_argv(tool, folder, self._container)),
            Check(remains_argv(tool, folder, self._container), "nothing"),
        )
        return replace(step, wait_s=REMAINS_S)

    def partial_aside(self) -> Step:
        stray = self.site.path("stray", "data.part")
        return self._step(
            "partial",
            "set aside what an earlier, interrupted attempt may have left",
            Move(self._partial, stray, stray, self.site.prefix),
            self.site.is_gone(self._partial),
        )

    def unpack(self) -> Step:
        new = self.new
        args = restore_args(self._file, self._partial, new.member, new.bump_revision)
        step = self._step(
            "unpack",
            f"restore the snapshot into an empty folder with {new.tool.words}, as member {new.member.name}",
            Run(self._use(*args), self._limit_s),
            self.site.is_there(self._database, posixpath.join(self._partial, "member/wal")),
        )
        requires = (self.site.named("remains"), self.site.named("partial"))
        return replace(step, requires=requires, always=True)

    def check(self) -> Step:
        revision = self.new.revision
        status = self._use(*status_args(self._database))
        step = self._step(
            "check",
            f"check the restored database: structure sound, revision {revision}",
            None,
            Check(status, "match", f'"revision": ?{revision}[,}}]', self._limit_s),
        )
        return replace(step, requires=(self.site.named("remains"),))

    def attributes(self) -> list[Step]:
        """Return the steps for what a data directory carries beside its content."""
        member = posixpath.join(self._partial, "member")
        return [self._step(*each) for each in _attributes(self.site, member, self.new.live)]

    def ready(self) -> Step:
        site = self.site
        return Step(
            site.named("data"),
            "restore_etcd",
            site.place,
            "the new data is ready",
            Move(self._partial, site.path("data"), site.path("stray", "data"), site.prefix),
            site.is_there(site.path("data")),
            needed_until=(site.named("aside-data"), site.named("place-data")),
        )

    def _step(self, name: str, words: str, action: Run | Put | Move | None, done: Check) -> Step:
        phase: Phase = "stage" if isinstance(action, Put) else "restore_etcd"
        until = (self.site.named("data"),)
        return Step(self.site.named(name), phase, self.site.place, words, action, done, needed_until=until)

    def _use(self, *args: str) -> tuple[str, ...]:
        return tool_argv(self.new.tool, args, folder=self.site.folder, name=self._container)

    @property
    def _limit_s(self) -> float:
        return TOOL_START_S + self.new.snapshot.plaintext.size_bytes / SLOWEST_BYTES_PER_S

    @property
    def _container(self) -> str:
        return f"etcdkeep-{self.site.run}".lower()

    @property
    def _file(self) -> str:
        return self.site.path(SNAPSHOT_FILE)

    @property
    def _partial(self) -> str:
        return self.site.path("data.part")

    @property
    def _database(self) -> str:
        return posixpath.join(self._partial, "member/snap/db")


def _attributes(site: StagingSite, member: str, live: PathFacts) -> Iterator[tuple[str, str, Run, Check]]:
    """Yield name, words, action and check for what a data directory carries beside its content."""
    database = posixpath.join(member, "snap/db")
    if live.owner:
        check = Check(site.argv("stat", "-c", "%u:%g", database), "match", f"^{live.owner}$")
        yield "owner", f"set the owner {live.owner}", Run(site.argv("chown", "-R", live.owner, member)), check
    else:
        words = "set the owner of the live data"
        chown = Run(site.argv("sh", "-c", OWN_ALIKE, "sh", live.path, member))
        check = Check(site.argv("sh", "-c", OWNED_ALIKE, "sh", live.path, member))
        yield "owner", words, chown, check
    if live.mode:
        check = Check(site.argv("stat", "-c", "%a", member), "match", f"^{live.mode}$")
        yield "mode", f"set the mode {live.mode}", Run(site.argv("chmod", live.mode, member)), check
    if live.label:
        check = Check(site.argv("stat", "-c", "%C", database), "match", f"^{live.label}$")
        yield "label", f"set the SELinux label {live.label}", Run(site.argv("chcon", "-R", live.label, member)), check
