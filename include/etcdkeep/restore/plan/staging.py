"""
Steps that are the same on a node and in a utility pod: locking the place, swapping what was prepared beside the old, and
closing. What is prepared: :mod:`staged_data` and :mod:`staged_keys`.

Layout of a run's folder ``.etcdkeep/<run>/``: ``etcd.db`` the snapshot, ``data/`` and ``keys/`` what was prepared, ``old/``
what was set aside, ``stray/`` what stood in the way.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Literal

from etcdkeep.restore.found import nodes as facts
from etcdkeep.restore.found.nodes import LIST
from etcdkeep.restore.node_memory import NOTE
from etcdkeep.restore.steps import Check, Move, Phase, Run, Step, Write

CLAIM = 'ln -s -n "$1" "$2" && exit; echo "locked by $(readlink "$2"). $3" >&2; exit 1'
"""Makes the link ``active``, once only; otherwise names the restore that holds the place, and the next step."""


@dataclass(frozen=True)
class StagingSite:
    """
    One place where files are prepared and renamed.

    :param suffix: Ends the names of its steps.
    :param base: The ``.etcdkeep`` folder.
    :param prefix: What makes a command root there.
    """

    place: str
    suffix: str
    base: str
    run: str
    prefix: tuple[str, ...]

    @property
    def folder(self) -> str:
        """This run's own folder."""
        return posixpath.join(self.base, self.run)

    def path(self, *parts: str) -> str:
        """Return a path in the run's folder."""
        return posixpath.join(self.folder, *parts)

    def argv(self, *command: str) -> tuple[str, ...]:
        """Return a command as root."""
        return (*self.prefix, *command)

    def is_there(self, *paths: str) -> Check:
        """Return a check that is true when all paths exist."""
        words = [word for path in paths for word in ("-a", "-e", path)][1:]
        return Check(self.argv("test", *words))

    def is_gone(self, path: str) -> Check:
        """Return a check that is true when a path does not exist."""
        return Check(self.argv("test", "!", "-e", path))

    def named(self, name: str) -> str:
        """Return a step's name at this place."""
        return f"{name}.{self.suffix}"


def open_run(site: StagingSite, cluster: str, record: str, until: str) -> list[Step]:
    """
    Steps that make the run's folder and lock the place for this restore.

    The link ``active`` can be made once only, so two restores cannot work on one node; it becomes ``finished`` at the
    end (:func:`close_run`) and ``rolled-back`` on the way back.

    :param until: The step after which the claim is no longer needed.
    """
    active = posixpath.join(site.base, facts.ACTIVE)
    mine = Check(site.argv("readlink", active), "match", f"^{site.folder}$")
    folders = [site.base, site.folder, *(site.path(name) for name in ("old", "stray"))]
    return [
        Step(
            site.named("folder"),
            "stage",
            site.place,
            f"create {site.folder}, readable by root only",
            Run(site.argv("mkdir", "-p", "-m", "0700", *folders)),
            site.is_there(site.path("stray")),
        ),
        Step(
            site.named("claim"),
            "stage",
            site.place,
            "lock this place for this restore; refused while another restore holds it",
            Run(site.argv("sh", "-c", CLAIM, "sh", site.folder, active, f"List its restores: {LIST} {cluster}")),
            mine,
            Move(active, site.path(facts.ROLLED_BACK), site.path("stray", facts.ROLLED_BACK), site.prefix),
            Check(mine.argv, "mismatch", mine.pattern),
            needed_until=(until,),
        ),
        Step(
            site.named("record"),
            "stage",
            site.place,
            "write a note that describes this restore",
            Write(record, site.path(NOTE), site.prefix),
            site.is_there(site.path(NOTE)),
            needed_until=(until,),
        ),
    ]


def close_run(site: StagingSite, phase: Phase = "close") -> Step:
    """The last step at a place: release it for another restore. What was set aside stays."""
    active = posixpath.join(site.base, facts.ACTIVE)
    return Step(
        site.named("close"),
        phase,
        site.place,
        f"mark this restore as finished; the old state stays in {site.path('old')}",
        Move(active, site.path(facts.FINISHED), site.path("stray", facts.FINISHED), site.prefix),
        Check(site.argv("test", "-L", site.path(facts.FINISHED))),
        Move(site.path(facts.FINISHED), active, site.path("stray", facts.ACTIVE), site.prefix),
        Check(site.argv("test", "!", "-L", site.path(facts.FINISHED))),
    )


@dataclass(frozen=True)
class Stopped:
    """
    The steps that stop the control plane at a place, and those whose undo does.

    :param by: In the order in which they act.
    :param by_undo: In the order in which they are undone.
    """

    by: tuple[str, ...]
    by_undo: tuple[str, ...]


def swap(
    site: StagingSite,
    phase: Phase,
    thing: Literal["data", "keys", "config"],
    live: str,
    prepared: str,
    words: str,
    stopped: Stopped,
) -> list[Step]:
    """
    Two steps: rename what is live out of the way, rename what was prepared into its place.

    Whatever appeared at `live` in between, because a node rebooted and its kubelet started the pods, goes to ``stray/``.

    :param thing: The folder in which it was prepared.
    :param prepared: Its name in that folder.
    """
    folder, staged, old = site.path(thing), site.path(thing, prepared), site.path("old", prepared)
    stray = site.path("stray", prepared)
    requires = (site.named(thing), *stopped.by)
    return [
        Step(
            site.named(f"aside-{thing}"),
            phase,
            site.place,
            f"set {words} aside: {live} becomes {old}",
            Move(live, old, stray, site.prefix),
            Check(site.argv("test", "-e", old, "-o", "!", "-e", live, "-o", "!", "-e", staged)),
            Move(old, live, stray, site.prefix),
            site.is_gone(old),
            requires=requires,
            undo_requires=stopped.by_undo,
        ),
        Step(
            site.named(f"place-{thing}"),
            phase,
            site.place,
            f"move what was prepared into its place: {live}",
            Move(staged, live, stray, site.prefix),
            Check(site.argv("test", "-e", folder, "-a", "-e", live, "-a", "!", "-e", staged)),
            Move(live, staged, stray, site.prefix),
            Check(site.argv("test", "-e", staged, "-o", "!", "-e", folder)),
            requires=requires,
            undo_requires=stopped.by_undo,
        ),
    ]
