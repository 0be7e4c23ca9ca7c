"""Steps that put the API server's files beside the PKI back, set aside and undone as the PKI is."""

from __future__ import annotations

import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from etcdkeep.restore.plan.staging import StagingSite, Stopped, swap
from etcdkeep.restore.steps import Check, Move, Run, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.restore.found.config_files import ApiserverFile


def stage_config(site: StagingSite, files: Sequence[ApiserverFile]) -> list[Step]:
    """
    Steps that unpack the set's files beside the live ones, from the archive that was brought with the PKI.

    :param files: Those that are put back.
    """
    archive, partial, folder = site.path("control-plane.tar"), site.path("config.part"), site.path("config")
    ready = site.named("config")
    names = [file.archived for file in files]
    inner = sorted({posixpath.dirname(name) for name in names} - {""})
    aside = [site.path(place, each) for place in ("old", "stray") for each in inner]
    parents = sorted({posixpath.dirname(file.real) for file in files if file.sha256 is None})
    unpack = ("tar", "--extract", "--preserve-permissions", "--numeric-owner", "--directory", partial)

    def stage(name: str, words: str, action: Run | Move, done: Check, *, always: bool = False) -> Step:
        return Step(site.named(name), "stage", site.place, words, action, done, needed_until=(ready,), always=always)

    moved = Move(partial, site.path("stray", "config.part"), site.path("stray", "config.part"), site.prefix)
    steps = [
        stage(
            "config-partial",
            "set aside what an earlier, interrupted attempt may have left",
            moved,
            site.is_gone(partial),
        ),
        stage(
            "config-folders",
            "create folders for the API server's configuration",
            Run(site.argv("mkdir", "-p", "-m", "0700", partial, *aside)),
            site.is_there(partial, *aside),
        ),
        stage(
            "config-unpack",
            f"unpack {', '.join(names)}, with their recorded modes and owners",
            Run(site.argv(*unpack, "--file", archive, *names)),
            site.is_there(*(posixpath.join(partial, name) for name in names)),
            always=True,
        ),
    ]
    if parents:
        make = Run(site.argv("mkdir", "-p", *parents))
        steps.append(stage("config-parents", f"create {', '.join(parents)}", make, site.is_there(*parents)))
    for place, file in enumerate(files):
        if file.label:
            path = posixpath.join(partial, file.archived)
            labelled = Check(site.argv("stat", "-c", "%C", path), "match", f"^{file.label}$")
            relabel = Run(site.argv("chcon", file.label, path))
            steps.append(stage(f"config-label-{place}", f"set the SELinux label {file.label}", relabel, labelled))
    swaps = tuple(name for place in range(len(files)) for name in _names(site, place))
    finish = Move(partial, folder, site.path("stray", "config"), site.prefix)
    words = "the API server's configuration is ready"
    return [*steps, Step(ready, "stage", site.place, words, finish, site.is_there(folder), needed_until=swaps)]


def swap_config(site: StagingSite, files: Sequence[ApiserverFile], stopped: Stopped) -> list[Step]:
    """Steps that rename each file out of the way and the set's into its place."""
    steps: list[Step] = []
    for place, file in enumerate(files):
        pair = swap(site, "swap_pki", "config", file.real, file.archived, file.path, stopped)
        steps += [replace(step, name=name) for step, name in zip(pair, _names(site, place), strict=True)]
    return steps


def _names(site: StagingSite, place: int) -> tuple[str, str]:
    return site.named(f"aside-config-{place}"), site.named(f"place-config-{place}")
