"""What a person fills in to have a cluster restored, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import StringConstraints

from etcdkeep.errors import NotFound, RestoreRefused
from etcdkeep.manifest import Record
from etcdkeep.naming import parse_set_name
from etcdkeep.restore.planning import Options

if TYPE_CHECKING:
    from datetime import datetime

    from etcdkeep.repository import BackupSet, Repository
    from etcdkeep.restore.planning import What

WHAT: dict[str, tuple[What, ...]] = {
    "etcd+pki": ("etcd", "pki"),
    "etcd": ("etcd",),
    "pki": ("pki",),
    "etcd+config": ("etcd", "config"),
    "config": ("config",),
}


class Form(Record):
    """
    The form; its fields are the DAG's params.

    :param backup: An id, ``cluster/id``, or empty for the newest good one.
    :param override: Pass over the objections that may be passed over.
    """

    cluster: str
    backup: str = ""
    what: Literal["etcd+pki", "etcd", "pki", "etcd+config", "config"] = "etcd+pki"
    bump_revision: bool = True
    way: Literal["auto", "kubelet", "manifests"] = "auto"
    dry_run: bool = True
    on_failure: Literal["rollback", "hold"] = "rollback"
    override: bool = False
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    confirm: str

    def check_confirmed(self) -> None:
        """
        :raises RestoreRefused: when the cluster's name was not typed as it is.
        """
        if self.confirm != self.cluster:
            raise RestoreRefused(
                f"restore of cluster {self.cluster!r} refused: the confirmation reads {self.confirm!r}, and it must be the cluster's name; "
                "nothing was touched. Start it anew."
            )

    def options(self, run: str, planned_at: datetime) -> Options:
        """Return the planner's options; a way that is still to be chosen stands as ``kubelet``."""
        way: Literal["kubelet", "manifests"] = "kubelet" if self.way == "auto" else self.way
        return Options(run, planned_at, WHAT[self.what], way, self.bump_revision)


def choose_backup(repository: Repository, form: Form) -> BackupSet:
    """
    Return the set that is meant.

    :raises NotFound: when there is none.
    :raises RestoreRefused: when it is another cluster's.
    """
    wanted = form.backup.strip()
    if not wanted:
        found = repository.newest(form.cluster)
        if found is None:
            raise NotFound(
                f"cluster {form.cluster!r} has no verified backup in {repository.store.url}; see `python -m etcdkeep list {form.cluster}`, "
                "and name one if it is to be an unverified one."
            )
        return found
    cluster, identifier = parse_set_name(wanted if "/" in wanted else f"{form.cluster}/{wanted}")
    if cluster != form.cluster:
        raise RestoreRefused(
            f"backup {wanted} is of cluster {cluster!r}, not of {form.cluster!r}; nothing was touched."
        )
    return repository.get(cluster, identifier)
