"""What differs between two states of a cluster: added, removed, changed, recreated."""

from __future__ import annotations

from difflib import unified_diff
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from etcdkeep.objects.history import without_noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from etcdkeep.objects.entries import Entry

ADDED, REMOVED, CHANGED, RECREATED = "added", "removed", "changed", "recreated"
SIGNS = {ADDED: "+", REMOVED: "-", CHANGED: "~", RECREATED: "!"}


class Side(NamedTuple):
    """
    One key in one of the two states.

    :param digest: Of the stored value.
    :param record: Where the value is, for whoever reads it; None where only an index was read.
    """

    entry: Entry
    digest: str
    record: Any = None


class Change(NamedTuple):
    """
    What became of one object.

    :param what: ``recreated``: deleted and made anew under the same name.
    """

    what: str
    before: Side | None
    after: Side | None

    @property
    def entry(self) -> Entry:
        """The object, as it is in the later state that has it."""
        side = self.after or self.before
        if side is None:
            raise ValueError("a change has a side")
        return side.entry


def value_digest(value: bytes) -> str:
    """Return what tells one stored value from another, short of reading it."""
    return blake2b(value, digest_size=16).hexdigest()


def compare(before: Iterable[Side], after: Iterable[Side]) -> Iterator[Change]:
    """
    Yield what differs, in the order of the keys.

    Objects whose stored bytes are equal count as the same, whoever wrote them and when.
    """
    old = {side.entry.key: side for side in before}
    new = {side.entry.key: side for side in after}
    for key in sorted(old.keys() | new.keys()):
        left, right = old.get(key), new.get(key)
        if left is None:
            yield Change(ADDED, None, right)
        elif right is None:
            yield Change(REMOVED, left, None)
        elif left.digest != right.digest:
            same_life = left.entry.create_revision == right.entry.create_revision
            yield Change(CHANGED if same_life else RECREATED, left, right)


def unified(before: dict[str, Any] | None, after: dict[str, Any] | None, name: str, labels: tuple[str, str]) -> str:
    """
    Return the difference of two objects as of their YAML, without what changes with every write.

    :param labels: What the two states are called.
    """
    from etcdkeep.objects import yaml_text

    old, new = (yaml_text.dumps(without_noise(each)).splitlines(True) if each else [] for each in (before, after))
    old_label, new_label = (f"{label}: {name}" for label in labels)
    return "".join(unified_diff(old, new, old_label, new_label))
