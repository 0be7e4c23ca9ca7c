"""
What has to go before an object of a backup can be made anew: what the API server, the node or a controller wrote into it.

Each kind's own rules are in :mod:`etcdkeep.recover.kinds`. Nothing goes without being noted in the draft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding import schema
from etcdkeep.objects.decoding.shape import check_shape
from etcdkeep.recover import kinds
from etcdkeep.recover.draft import group_of

if TYPE_CHECKING:
    from etcdkeep.recover.draft import Draft, Surroundings

_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "clusterName",
    "managedFields",
)
_LEADER = "control-plane.alpha.kubernetes.io/leader"
BY_THE_SERVER = frozenset({"status", "spec.finalizers", *(f"metadata.{name}" for name in _METADATA)})
"""Fields that nobody misses: the API server and the controllers fill them anew."""


def clean(draft: Draft, surroundings: Surroundings) -> None:
    """
    Make a stored object one that can be applied.

    Finalizers go: a controller that is there sets its own again when it sees the object, and one that is not would make
    the object impossible to delete.

    :raises ValueDamaged: when the object is not shaped like one of its kind.
    """
    metadata = draft.manifest["metadata"]
    for name in _METADATA:
        draft.drop("metadata", name)
    for finalizer in metadata.pop("finalizers", None) or ():
        draft.dropped.append(f"metadata.finalizers ({finalizer})")
    draft.drop("status")
    draft.drop_annotations(_LEADER)
    rule = kinds.RULES.get((group_of(draft.api_version), draft.kind))
    try:
        if rule is not None:
            rule(draft, surroundings)
        _drop_owners(draft, surroundings)
    except (KeyError, TypeError, AttributeError) as err:
        raise ValueDamaged(f"{draft.label} is not shaped like a {draft.kind}: {type(err).__name__} {err}") from err


def check_draft(draft: Draft) -> None:
    """
    Refuse an object of a built-in kind whose fields are of other types than the kind's.

    :raises ValueDamaged: when it is one.
    """
    message = schema.kinds().get(f"{draft.api_version} {draft.kind}")
    if message is not None:
        try:
            check_shape(draft.manifest, message)
        except ValueDamaged as err:
            raise ValueDamaged(f"{draft.label} is not shaped like a {draft.kind}: {err}") from err


def _drop_owners(draft: Draft, surroundings: Surroundings) -> None:
    """Drop references to owners that are gone: the garbage collector would delete the object with them."""
    metadata = draft.manifest["metadata"]
    references = metadata.pop("ownerReferences", None) or ()
    kept = []
    for reference in references:
        if surroundings.has_owner(reference, draft.namespace):
            kept.append(reference)
        else:
            draft.dropped.append(f"metadata.ownerReferences ({reference.get('kind')} {reference.get('name')})")
    if kept:
        metadata["ownerReferences"] = kept
