"""What differs between two states of a cluster: added, removed, changed, recreated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import unified_diff
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from etcdkeep.objects.history import without_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.resources import Resource

ADDED, REMOVED, CHANGED, RECREATED = "added", "removed", "changed", "recreated"
SIGNS = {ADDED: "+", REMOVED: "-", CHANGED: "~", RECREATED: "!"}


class Change(NamedTuple):
    """
    What became of one object.

    :param what: ``recreated``: deleted and made anew under the same name.
    :param before: None where it did not exist, as is `after`.
    """

    what: str
    before: Entry | None
    after: Entry | None

    @property
    def entry(self) -> Entry:
        """The object in the later state, or the earlier one where only that has it."""
        entry = self.after or self.before
        if entry is None:
            raise ValueError("a change has a side")
        return entry


@dataclass(frozen=True)
class ChangeCount:
    """How many objects of one kind in one namespace, empty for none, were added, removed, changed, recreated."""

    resource: Resource
    namespace: str
    added: int = 0
    removed: int = 0
    changed: int = 0
    recreated: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.added + self.removed + self.changed + self.recreated

    def as_json(self) -> dict[str, Any]:
        """Return it for programs and pages."""
        numbers = {what: getattr(self, what) for what in (ADDED, REMOVED, CHANGED, RECREATED)}
        return {**kind_json(self.resource), "namespace": self.namespace, **numbers}


def value_digest(value: bytes) -> str:
    """Return what tells one stored value from another, short of reading it."""
    return blake2b(value, digest_size=16).hexdigest()


def compare(
    before: Callable[[], Iterable[tuple[Entry, str]]],
    after: Iterable[tuple[Entry, str]],
    takes: Callable[[Entry], bool],
) -> list[Change]:
    """
    Return what differs, in the order of the keys.

    Objects whose stored bytes are equal count as the same, whoever wrote them and when. In memory are a digest for each
    object of `before`, and what differs.

    :param before: Read twice: entries with the digest of their values.
    :param takes: What to compare.
    """
    digests = {entry.key: bytes.fromhex(digest) for entry, digest in before() if takes(entry)}
    changed: dict[str, Entry] = {}
    added: list[Entry] = []
    for entry, digest in after:
        if takes(entry):
            old = digests.pop(entry.key, None)
            if old is None:
                added.append(entry)
            elif old != bytes.fromhex(digest):
                changed[entry.key] = entry
    found = [Change(ADDED, None, entry) for entry in added]
    if changed or digests:
        for entry, _ in before():
            if takes(entry) and (entry.key in changed or entry.key in digests):
                found.append(_difference(entry, changed.get(entry.key)))
    return sorted(found, key=lambda change: change.entry.key)


def _difference(old: Entry, new: Entry | None) -> Change:
    if new is None:
        return Change(REMOVED, old, None)
    return Change(rewritten(old.create_revision, new.create_revision), old, new)


def rewritten(created_before: int, created_after: int) -> str:
    """Say what became of an object whose stored bytes differ, by the revisions at which it was created."""
    return CHANGED if created_before == created_after else RECREATED


def count_changes(changes: Iterable[tuple[str, Resource, str]]) -> tuple[ChangeCount, ...]:
    """
    Count changes by kind and namespace, what lost most objects first.

    :param changes: What happened, to which kind, in which namespace.
    """
    numbers: dict[tuple[Resource, str], Counter[str]] = {}
    for what, resource, namespace in changes:
        numbers.setdefault((resource, namespace), Counter())[what] += 1
    counts = [ChangeCount(resource, namespace, **found) for (resource, namespace), found in numbers.items()]
    return tuple(sorted(counts, key=lambda each: (-each.removed, -each.total, each.resource, each.namespace)))


def kind_json(resource: Resource) -> dict[str, str]:
    """Return a kind for programs and pages."""
    return {"group": resource.group, "resource": resource.plural, "kind": resource.kind}


def unified(before: dict[str, Any] | None, after: dict[str, Any] | None, name: str, labels: tuple[str, str]) -> str:
    """
    Return the difference of two objects as of their YAML, without what changes with every write.

    :param labels: What the two states are called.
    """
    from etcdkeep.objects import yaml_text

    old, new = (yaml_text.dumps(without_noise(each)).splitlines(True) if each else [] for each in (before, after))
    old_label, new_label = (f"{label}: {name}" for label in labels)
    return "".join(unified_diff(old, new, old_label, new_label))
