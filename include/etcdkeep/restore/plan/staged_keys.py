"""Steps that put the set's PKI together beside the live one: the set's files over a copy of the live folder."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.restore.steps import Check, Move, Put, Run, Step

if TYPE_CHECKING:
    from etcdkeep.restore.found.nodes import PathFacts
    from etcdkeep.restore.plan.staging import StagingSite
    from etcdkeep.sets.manifest import Artifact


def bring_archive(site: StagingSite, artifact: Artifact, name: str, until: tuple[str, ...]) -> Step:
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
        "copy the node's certificates and keys there and compare their SHA-256",
        Put(name, archive, artifact.plaintext.size_bytes, digest, site.prefix),
        Check(site.argv("sha256sum", archive), "match", f"^{digest} "),
        needed_until=until,
    )


def stage_keys(site: StagingSite, live: PathFacts) -> list[Step]:
    """
    Return the steps, in their order. The archive must have been brought.

    A file that only the live folder has stays, since a manifest may name it.
    """
    steps = _KeysSteps(site, live)
    label = [steps.label(live.label)] if live.label else []
    return [steps.partial_aside(), steps.folder(), steps.copy(), steps.unpack(), *label, steps.ready()]


@dataclass(frozen=True)
class _KeysSteps:
    site: StagingSite
    live: PathFacts

    def partial_aside(self) -> Step:
        stray = self.site.path("stray", "keys.part")
        return self._step(
            "keys-partial",
            "set aside what an earlier, interrupted attempt may have left",
            Move(self._partial, stray, stray, self.site.prefix),
            self.site.is_gone(self._partial),
        )

    def folder(self) -> Step:
        make = Run(self.site.argv("mkdir", "-m", "0700", self._partial))
        return self._step("keys-folder", "create a folder for them", make, self.site.is_there(self._partial))

    def copy(self) -> Step:
        new = self._in_partial("pki")
        argv = ("cp", "-a", "-T", self.live.path, new) if self.live.exists else ("mkdir", "-p", new)
        copied = self.site.is_there(new)
        return self._step("keys-copy", "copy the live ones", Run(self.site.argv(*argv)), copied, always=True)

    def unpack(self) -> Step:
        options = ("--extract", "--preserve-permissions", "--numeric-owner", "--directory", self._partial)
        argv = ("tar", *options, "--file", self.site.path("control-plane.tar"), "pki")
        return self._step(
            "keys-unpack",
            "unpack the set's files over the copy, with their recorded modes and owners",
            Run(self.site.argv(*argv)),
            self.site.is_there(self._in_partial("pki/ca.crt")),
            always=True,
        )

    def label(self, label: str) -> Step:
        seen = self.site.argv("stat", "-c", "%C", self._in_partial("pki/ca.crt"))
        relabel = Run(self.site.argv("chcon", "-R", label, self._in_partial("pki")))
        words = f"set the live folder's SELinux label {label}"
        return self._step("keys-label", words, relabel, Check(seen, "match", f"^{label}$"))

    def ready(self) -> Step:
        site, keys = self.site, self.site.path("keys")
        return Step(
            site.named("keys"),
            "stage",
            site.place,
            "the new certificates and keys are ready",
            Move(self._partial, keys, site.path("stray", "keys"), site.prefix),
            site.is_there(keys),
            needed_until=(site.named("aside-keys"), site.named("place-keys")),
        )

    def _step(self, name: str, words: str, action: Run | Move, done: Check, *, always: bool = False) -> Step:
        until = (self.site.named("keys"),)
        return Step(
            self.site.named(name), "stage", self.site.place, words, action, done, needed_until=until, always=always
        )

    @property
    def _partial(self) -> str:
        return self.site.path("keys.part")

    def _in_partial(self, name: str) -> str:
        return posixpath.join(self._partial, name)
