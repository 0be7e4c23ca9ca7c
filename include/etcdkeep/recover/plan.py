"""The plan of a recovery as data: what would happen to each object, and what a person approves by its digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, Literal

from pydantic import ValidationError

from etcdkeep.documents import Document
from etcdkeep.errors import NotApproved, ObjectDamaged
from etcdkeep.objects.decoding import exact_json
from etcdkeep.recover.draft import label

Action = Literal["create", "overwrite", "leave", "unchanged", "skip", "refuse"]
WRITING: tuple[Action, ...] = ("create", "overwrite")


class Planned(Document):
    """
    One object of a plan.

    :param path: In the API; empty where it is not known.
    :param uid: It had in the backup: what refers to it as its owner refers to this.
    :param why: Why it is left, skipped or refused.
    :param checked: Whether a server-side dry run took it; ``elsewhere``: in another namespace, since its own is not there.
    :param manifest: Clean, as JSON.
    :param live_uid: Of the live object, when the plan was made.
    :param live_digest: Of the live object's state; what is applied over another state was not approved.
    :param result_digest: Of the state that applying gives.
    :param diff: What applying would change in the live object; a Secret's values are not in it.
    :param stays: Fields that only the live object has: applying leaves them.
    """

    action: Action
    api_version: str
    kind: str
    namespace: str = ""
    name: str
    path: str = ""
    uid: str = ""
    why: str = ""
    checked: Literal["", "here", "elsewhere"] = ""
    dropped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    manifest: str = ""
    live_uid: str = ""
    live_digest: str = ""
    result_digest: str = ""
    diff: str = ""
    stays: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """``Deployment shop/web``."""
        return label(self.kind, self.namespace, self.name)


class RecoveryPlan(Document):
    """
    A recovery from one backup into the cluster it is of.

    :param cluster_uid: Of the live cluster's namespace kube-system.
    :param unread: What was meant and could not be read out of the backup.
    :param notes: What to know of the whole.
    """

    schema_version: Literal[1] = 1
    cluster: str
    backup_id: str
    recovery_id: str
    reason: str
    meant: str
    overwrite: bool
    cluster_uid: str
    objects: tuple[Planned, ...]
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many objects there are by action."""
        return dict(Counter(each.action for each in self.objects))

    @property
    def writes(self) -> int:
        """How many objects applying would make or change."""
        return sum(each.action in WRITING for each in self.objects)

    def to_bytes(self) -> bytes:
        """Return the bytes that the digest is of; the same plan gives the same bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the plan, hex: what is approved."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_plan(data: bytes, digest: str) -> RecoveryPlan:
    """
    Read a stored plan.

    :param digest: Of the plan that was approved.
    :raises NotApproved: when it is another one.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != digest:
        raise NotApproved(
            f"the stored plan has the SHA-256 {found}, approved is {digest}; nothing was applied. Start a new run."
        )
    try:
        return RecoveryPlan.model_validate_json(data)
    except ValidationError as err:
        raise ObjectDamaged(
            "the stored plan is not a plan of schema_version 1; nothing was applied. Start a new run."
        ) from err


def state_of(content: Any) -> dict[str, Any]:
    """Return what of a live object counts: all but what the API server and controllers keep writing into it."""
    metadata = {name: value for name, value in content["metadata"].items() if name not in _BOOKKEEPING}
    return {**{name: value for name, value in content.items() if name != "status"}, "metadata": metadata}


def state_digest(content: Any) -> str:
    """Return what tells one state of an object from another."""
    return hashlib.sha256(exact_json.dumps(state_of(content), sort_keys=True).encode()).hexdigest()


_BOOKKEEPING = ("managedFields", "resourceVersion", "generation")
