"""Clean manifests without a live cluster: for a person who applies them with kubectl, here or elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from etcdkeep.errors import ValueDamaged
from etcdkeep.recover.clean import check_draft, clean
from etcdkeep.recover.left_out import controller_of, why_left_out
from etcdkeep.recover.order import in_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from etcdkeep.recover.draft import Draft
    from etcdkeep.recover.gather import Gathered


class Manifests(NamedTuple):
    """
    What can be applied, in order, and what is left out.

    :param left_out: Each object with the reason.
    :param failures: Why some cannot be made into a manifest.
    """

    drafts: list[Draft]
    left_out: list[tuple[Draft, str]]
    failures: list[ValueDamaged]


def clean_manifests(gathered: Gathered, *, include_left_out: bool) -> Manifests:
    """Return clean manifests in order; every owner is dropped, since its new uid is not known before it is made."""
    uids = {draft.uid for draft in gathered.drafts if draft.uid}
    found = Manifests([], [], [])
    for draft in gathered.drafts:
        owner = controller_of(draft.manifest)
        why = f"{owner['kind']} {owner['name']} makes it" if owner and owner.get("uid") in uids else ""
        why = why or why_left_out(draft.manifest)
        if why and not include_left_out:
            found.left_out.append((draft, why))
        else:
            found.drafts.append(draft)
    surroundings = _OnPaper({draft.name: draft.manifest for draft in found.drafts if draft.kind == "PersistentVolume"})
    for draft in in_order(found.drafts):
        try:
            check_draft(draft)
            clean(draft, surroundings)
        except ValueDamaged as err:
            found.drafts.remove(draft)
            found.failures.append(err)
    found.drafts[:] = in_order(found.drafts)
    return found


class _OnPaper:
    def __init__(self, volumes: Mapping[str, Mapping[str, Any]]) -> None:
        self._volumes = volumes

    def has_owner(self, reference: Mapping[str, Any], namespace: str) -> bool:
        return False

    def volume(self, name: str) -> Mapping[str, Any] | None:
        return self._volumes.get(name)
