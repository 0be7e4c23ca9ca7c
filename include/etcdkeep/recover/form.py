"""What a person fills in to have objects recovered, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints

from etcdkeep.documents import Document
from etcdkeep.errors import RequestRefused
from etcdkeep.objects.labels import parse_selector
from etcdkeep.objects.selection import Selection

if TYPE_CHECKING:
    from etcdkeep.sets.backup_set import State

OPENED: tuple[State, ...] = ("good", "unverified")
"""The states of sets that objects are recovered from."""


class RecoveryForm(Document):
    """
    The form; its fields are the DAG's params.

    :param backup: An id, ``cluster/id``, or empty for the newest good one.
    :param namespace: One or more, with commas; as are `kinds`.
    :param overwrite: Whether live objects that differ are to be overwritten.
    :param include_left_out: Whether what the cluster makes by itself is wanted too, and what has had its time.
    """

    cluster: str
    backup: str = ""
    namespace: str = ""
    kinds: str = ""
    labels: str = ""
    name: str = ""
    overwrite: bool = False
    include_left_out: bool = False
    dry_run: bool = True
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

    def selection(self) -> Selection:
        """
        Return the objects that are meant.

        :raises RequestRefused: when the label selector is none.
        """
        try:
            labels = parse_selector(self.labels)
        except ValueError as err:
            raise RequestRefused(f"labels: {err}; nothing was changed.") from err
        return Selection(_listed(self.namespace), _listed(self.kinds), self.name.strip(), labels)

    @property
    def meant(self) -> str:
        """The selection in words."""
        parts = (("namespace", self.namespace), ("kinds", self.kinds), ("labels", self.labels), ("name", self.name))
        return ", ".join(f"{name} {' '.join(text.split())}" for name, text in parts if text.strip())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
