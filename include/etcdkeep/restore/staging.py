"""
Steps that are the same on a node and in a utility pod: preparing a member's new data beside the old, and swapping them.

Layout of a run's folder ``.etcdkeep/<run>/``: ``etcd.db`` the snapshot, ``data/`` and ``keys/`` what was prepared, ``old/``
what was set aside, ``stray/`` what stood in the way.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from etcdkeep.restore import facts
from etcdkeep.restore.facts import LIST
from etcdkeep.restore.node_memory import NOTE
from etcdkeep.restore.planning import SNAPSHOT_FILE
from etcdkeep.restore.steps import Check, Move, Phase, Put, Run, Step, Write
from etcdkeep.restore.tools import (
    MemberFlags,
    Tool,
    remains_argv,
    remove_remains_argv,
    restore_args,
    status_args,
    tool_argv,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.manifest import Artifact, Manifest
    from etcdkeep.restore.facts import PathFacts

_OWNER = 'live=$1; [ -e "$live" ] || live=${1%/*}; owner=$(stat -c %u:%g "$live") && '
OWN_ALIKE = _OWNER + 'chown -R "$owner" "$2"'
OWNED_ALIKE = _OWNER + '[ "$(stat -c %u:%g "$2/snap/db")" = "$owner" ]'
"""For a member that could not be asked beforehand: its own owner, or its folder's where it is gone."""

CLAIM = 'ln -s -n "$1" "$2" && exit; echo "locked by $(readlink "$2"). $3" >&2; exit 1'
"""Makes the link ``active``, once only; otherwise names the restore that holds the place, and the next step."""

SLOWEST_BYTES_PER_S = 2 * 2**20
TOOL_START_S = 120.0
REMAINS_S = 30.0


@dataclass(frozen=True)
class Site:
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
        """Return a check that is true when all paths are there."""
        words = [word for path in paths for word in ("-a", "-e", path)][1:]
        return Check(self.argv("test", *words))

    def is_gone(self, path: str) -> Check:
        """Return a check that is true when a path is not there."""
        return Check(self.argv("test", "!", "-e", path))

    def named(self, name: str) -> str:
        """Return a step's name at this place."""
        return f"{name}.{self.suffix}"


def open_run(site: Site, cluster: str, record: str, until: str) -> list[Step]:
    """
    Steps that make the run's folder and take the node for this restore.

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
            f"make {site.folder}, readable by root only",
            Run(site.argv("mkdir", "-p", "-m", "0700", *folders)),
            site.is_there(site.path("stray")),
        ),
        Step(
            site.named("claim"),
            "stage",
            site.place,
            "take this place for this restore; refused while another restore has it",
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
            "leave a note of what this restore is",
            Write(record, site.path(NOTE), site.prefix),
            site.is_there(site.path(NOTE)),
            needed_until=(until,),
        ),
    ]


def close_run(site: Site, phase: Phase = "close") -> Step:
    """The last step at a place: give it free for another restore. What was set aside stays."""
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


def stage_data(
    site: Site, manifest: Manifest, tool: Tool, member: MemberFlags, bump: int, live: PathFacts
) -> list[Step]:
    """
    Steps that turn the snapshot into checked member data beside the live data, while everything runs.

    :param live: Owner, mode and label that the data gets. Mode and label stay as the tool makes them where they are None,
        the owner becomes that of the live data.
    """
    artifact = manifest.artifact("etcd")
    if artifact is None:
        raise ValueError("a set without snapshot cannot be planned for")
    size = artifact.plaintext.size_bytes
    snapshot, partial, data = site.path(SNAPSHOT_FILE), site.path("data.part"), site.path("data")
    ready = site.named("data")
    container = f"etcdkeep-{site.run}".lower()
    limit_s = TOOL_START_S + size / SLOWEST_BYTES_PER_S
    revision = manifest.snapshot.revision + bump

    def stage(name: str, words: str, action: Run | Put | Move | None, done: Check) -> Step:
        phase: Phase = "stage" if isinstance(action, Put) else "restore_etcd"
        return Step(site.named(name), phase, site.place, words, action, done, needed_until=(ready,))

    def use(*args: str) -> tuple[str, ...]:
        return tool_argv(tool, args, folder=site.folder, name=container)

    remains = stage(
        "remains",
        "end what an earlier, broken-off try may have left running",
        Run(remove_remains_argv(tool, site.folder, container)),
        Check(remains_argv(tool, site.folder, container), "nothing"),
    )
    unpack = stage(
        "unpack",
        f"restore the snapshot into an empty folder with {tool.words}, as member {member.name}",
        Run(use(*restore_args(snapshot, partial, member, bump)), limit_s),
        site.is_there(posixpath.join(partial, "member/snap/db"), posixpath.join(partial, "member/wal")),
    )
    status = use(*status_args(posixpath.join(partial, "member/snap/db")))
    check = stage(
        "check",
        f"check the restored database: structure sound, revision {revision}",
        None,
        Check(status, "match", f'"revision": ?{revision}[,}}]', limit_s),
    )
    steps = [
        stage(
            "snapshot",
            f"bring the snapshot ({size} bytes) and compare its SHA-256 there",
            Put(SNAPSHOT_FILE, snapshot, size, artifact.plaintext.sha256, site.prefix),
            Check(site.argv("sha256sum", snapshot), "match", f"^{artifact.plaintext.sha256} ", limit_s),
        ),
        replace(remains, wait_s=REMAINS_S),
        stage(
            "partial",
            "set aside what an earlier, broken-off try may have left half done",
            Move(partial, site.path("stray", "data.part"), site.path("stray", "data.part"), site.prefix),
            site.is_gone(partial),
        ),
        replace(unpack, requires=(remains.name, site.named("partial")), always=True),
        replace(check, requires=(remains.name,)),
    ]
    steps += [stage(*attribute) for attribute in _attributes(site, posixpath.join(partial, "member"), live)]
    move = Move(partial, data, site.path("stray", "data"), site.prefix)
    swap = (site.named("aside-data"), site.named("place-data"))
    steps.append(
        Step(ready, "restore_etcd", site.place, "the new data is ready", move, site.is_there(data), needed_until=swap)
    )
    return steps


def _attributes(site: Site, member: str, live: PathFacts) -> Iterator[tuple[str, str, Run, Check]]:
    """Yield name, words, action and check for what a data directory carries beside its content."""
    database = posixpath.join(member, "snap/db")
    if live.owner:
        check = Check(site.argv("stat", "-c", "%u:%g", database), "match", f"^{live.owner}$")
        yield "owner", f"give it the owner {live.owner}", Run(site.argv("chown", "-R", live.owner, member)), check
    else:
        words = "give it the owner of the live data"
        chown = Run(site.argv("sh", "-c", OWN_ALIKE, "sh", live.path, member))
        check = Check(site.argv("sh", "-c", OWNED_ALIKE, "sh", live.path, member))
        yield "owner", words, chown, check
    if live.mode:
        check = Check(site.argv("stat", "-c", "%a", member), "match", f"^{live.mode}$")
        yield "mode", f"give it the mode {live.mode}", Run(site.argv("chmod", live.mode, member)), check
    if live.label:
        check = Check(site.argv("stat", "-c", "%C", database), "match", f"^{live.label}$")
        yield "label", f"give it the label {live.label}", Run(site.argv("chcon", "-R", live.label, member)), check


def bring_archive(site: Site, artifact: Artifact, name: str, until: tuple[str, ...]) -> Step:
    """
    The step that brings a node's archive.

    :param name: Of the archive, as ``unseal`` writes it.
    :param until: The steps after which it is no longer needed.
    """
    archive, digest = site.path("control-plane.tar"), artifact.plaintext.sha256
    return Step(
        site.named("archive"),
        "stage",
        site.place,
        "bring the node's certificates and keys and compare their SHA-256 there",
        Put(name, archive, artifact.plaintext.size_bytes, digest, site.prefix),
        Check(site.argv("sha256sum", archive), "match", f"^{digest} "),
        needed_until=until,
    )


def stage_keys(site: Site, live: PathFacts) -> list[Step]:
    """
    Steps that put the set's PKI together beside the live one: the set's files over a copy of the live folder.

    A file that only the live folder has stays, since a manifest may name it. The archive must have been brought.
    """
    archive, partial, keys = site.path("control-plane.tar"), site.path("keys.part"), site.path("keys")
    ready = site.named("keys")

    def stage(name: str, words: str, action: Run | Put | Move, done: Check, *, always: bool = False) -> Step:
        return Step(site.named(name), "stage", site.place, words, action, done, needed_until=(ready,), always=always)

    copy = (
        ("cp", "-a", "-T", live.path, posixpath.join(partial, "pki"))
        if live.exists
        else ("mkdir", "-p", posixpath.join(partial, "pki"))
    )
    unpack = (
        "tar",
        "--extract",
        "--preserve-permissions",
        "--numeric-owner",
        "--directory",
        partial,
        "--file",
        archive,
        "pki",
    )
    steps = [
        stage(
            "keys-partial",
            "set aside what an earlier, broken-off try may have left half done",
            Move(partial, site.path("stray", "keys.part"), site.path("stray", "keys.part"), site.prefix),
            site.is_gone(partial),
        ),
        stage(
            "keys-folder",
            "make a folder for them",
            Run(site.argv("mkdir", "-m", "0700", partial)),
            site.is_there(partial),
        ),
        stage(
            "keys-copy",
            "copy the live ones",
            Run(site.argv(*copy)),
            site.is_there(posixpath.join(partial, "pki")),
            always=True,
        ),
        stage(
            "keys-unpack",
            "lay the set's files over the copy, modes and owners as they were",
            Run(site.argv(*unpack)),
            site.is_there(posixpath.join(partial, "pki/ca.crt")),
            always=True,
        ),
    ]
    if live.label:
        labelled = Check(
            site.argv("stat", "-c", "%C", posixpath.join(partial, "pki/ca.crt")), "match", f"^{live.label}$"
        )
        relabel = Run(site.argv("chcon", "-R", live.label, posixpath.join(partial, "pki")))
        steps.append(stage("keys-label", f"give them the live folder's SELinux label {live.label}", relabel, labelled))
    move = Move(partial, keys, site.path("stray", "keys"), site.prefix)
    swap = (site.named("aside-keys"), site.named("place-keys"))
    steps.append(
        Step(
            ready,
            "stage",
            site.place,
            "the new certificates and keys are ready",
            move,
            site.is_there(keys),
            needed_until=swap,
        )
    )
    return steps


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
    site: Site,
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
            f"put what was prepared in its place: {live}",
            Move(staged, live, stray, site.prefix),
            Check(site.argv("test", "-e", folder, "-a", "-e", live, "-a", "!", "-e", staged)),
            Move(live, staged, stray, site.prefix),
            Check(site.argv("test", "-e", staged, "-o", "!", "-e", folder)),
            requires=requires,
            undo_requires=stopped.by_undo,
        ),
    ]
