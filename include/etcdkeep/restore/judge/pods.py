"""A kubeception control plane: everything that is wrong with its pods and claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.restore.judge.finding import Finding, final, problem
from etcdkeep.restore.judge.identity import judge_pod_identity
from etcdkeep.restore.judge.members import judge_need
from etcdkeep.restore.judge.words import cannot_raise, release_words, unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.found.pods import PodFacts
    from etcdkeep.restore.options import Options
    from etcdkeep.sets.manifest import Manifest


def judge_pods(manifest: Manifest, facts: PodFacts, options: Options) -> Iterator[Finding]:
    """Yield the findings about a control plane in pods."""
    yield from judge_pod_identity(manifest, facts)
    yield from _holders(manifest, facts, options)
    if len(facts.members) != len(manifest.members):
        words = f"the backup has {len(manifest.members)} member(s), {facts.statefulset} has {len(facts.members)} now"
        yield problem(words) if facts.members else final(words)
    yield from judge_need([member.pod for member in facts.members if member.healthy], len(facts.members))
    if options.bump_revision and not facts.tool.bumps:
        yield cannot_raise("", facts.tool)


def _holders(manifest: Manifest, facts: PodFacts, options: Options) -> Iterator[Finding]:
    """Other restores that swap data, or hold claims."""
    if facts.unfinished and facts.unfinished != options.run:
        yield final(unfinished(manifest.cluster, facts.unfinished, f"in {facts.namespace}"))
    for run, pods in facts.holders.items():
        if run not in (options.run, facts.unfinished):
            words = f"restore {run!r} holds the claim of {', '.join(pods)}, and did not finish"
            yield final(f"{words}. {release_words(manifest.cluster, run)}")
