"""What a person fills in to have objects recovered, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints

from etcdkeep.errors import NotFound, RecoveryRefused
from etcdkeep.manifest import Record
from etcdkeep.naming import parse_set_name
from etcdkeep.objects.labels import parse_selector
from etcdkeep.objects.selection import Selection

if TYPE_CHECKING:
    from etcdkeep.repository import BackupSet, Repository


class RecoveryForm(Record):
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

        :raises RecoveryRefused: when the label selector is none.
        """
        try:
            labels = parse_selector(self.labels)
        except ValueError as err:
            raise RecoveryRefused(f"labels: {err}; nothing was touched.") from err
        return Selection(_listed(self.namespace), _listed(self.kinds), self.name.strip(), labels)

    @property
    def meant(self) -> str:
        """The selection in words."""
        parts = (("namespace", self.namespace), ("kinds", self.kinds), ("labels", self.labels), ("name", self.name))
        return ", ".join(f"{name} {' '.join(text.split())}" for name, text in parts if text.strip())


def choose_set(repository: Repository, form: RecoveryForm) -> BackupSet:
    """
    Return the set that is meant.

    :raises NotFound: when there is none.
    :raises RecoveryRefused: when it is another cluster's, or marked bad.
    """
    wanted = form.backup.strip()
    if not wanted:
        newest = repository.newest(form.cluster)
        if newest is None:
            raise NotFound(
                f"cluster {form.cluster!r} has no verified backup in {repository.store.url}; "
                f"see `python -m etcdkeep list {form.cluster}`, and name one if it is to be an unverified one."
            )
        return newest
    cluster, identifier = parse_set_name(wanted if "/" in wanted else f"{form.cluster}/{wanted}")
    if cluster != form.cluster:
        raise RecoveryRefused(
            f"backup {wanted} is of cluster {cluster!r}, not of {form.cluster!r}; nothing was touched."
        )
    found = repository.get(cluster, identifier)
    if found.state not in ("good", "unverified"):
        raise RecoveryRefused(
            f"backup {found.name} is {found.state} ({'; '.join(found.problems)}); nothing was touched. "
            f"Choose another one: python -m etcdkeep list {cluster}."
        )
    return found


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
