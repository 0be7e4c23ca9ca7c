"""What a person fills in to have a cluster restored, and what follows from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import StringConstraints

from etcdkeep.documents import Document
from etcdkeep.errors import RequestRefused
from etcdkeep.restore.options import Options

if TYPE_CHECKING:
    from datetime import datetime

    from etcdkeep.restore.options import What

WHAT: dict[str, tuple[What, ...]] = {
    "etcd+pki": ("etcd", "pki"),
    "etcd": ("etcd",),
    "pki": ("pki",),
    "etcd+config": ("etcd", "config"),
    "config": ("config",),
}


class Form(Document):
    """
    The form; its fields are the DAG's params.

    :param backup: An id, ``cluster/id``, or empty for the newest good one.
    :param override: Override the blocking problems that can be overridden.
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
        :raises RequestRefused: when the cluster's name was not typed as it is.
        """
        if self.confirm != self.cluster:
            raise RequestRefused(
                f"restore of cluster {self.cluster!r} refused: the confirmation is {self.confirm!r}, and it must be the cluster's name; nothing was changed. Start a new restore."
            )

    def options(self, run: str, planned_at: datetime) -> Options:
        """Return the planner's options; a way that is still to be chosen stands as ``kubelet``."""
        way: Literal["kubelet", "manifests"] = "kubelet" if self.way == "auto" else self.way
        return Options(run, planned_at, WHAT[self.what], way, self.bump_revision)
