"""In which version a stored object can be applied: its own, or one that has all of its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.errors import NotServed
from etcdkeep.objects.decoding import schema
from etcdkeep.recover.draft import group_of
from etcdkeep.recover.order import BUILT_IN_GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from etcdkeep.recover.draft import Draft


def use_served_version(draft: Draft, served: Sequence[str], definition: Mapping[str, Any] | None) -> None:
    """
    Put an object into a version that the cluster serves.

    :param served: The values of apiVersion that its kind is served under, the preferred one first.
    :param definition: Its CustomResourceDefinition, for a custom kind.
    :raises NotServed: when there is none, or none that it can be put into without knowing the kind.
    """
    stored = draft.api_version
    if stored in served:
        return
    if not served:
        raise NotServed(f"this cluster does not serve {stored} {draft.kind}")
    same = next((version for version in served if _has_its_fields(stored, version, draft.kind, definition)), None)
    if same is None:
        raise NotServed(
            f"this cluster does not serve {stored} {draft.kind} any more, and {', '.join(served)} has other fields: export the YAML (python -m etcdkeep objects get) and convert it"
        )
    draft.manifest["apiVersion"] = same
    draft.warnings.append(f"it was stored as {stored}, which is no longer served; it is applied as {same}.")


def served_by(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values of apiVersion that a CustomResourceDefinition serves its kind under."""
    spec = definition["spec"]
    return tuple(f"{spec['group']}/{version['name']}" for version in spec["versions"] if version.get("served", True))


def _has_its_fields(stored: str, served: str, kind: str, definition: Mapping[str, Any] | None) -> bool:
    if group_of(stored) not in BUILT_IN_GROUPS:
        conversion = ((definition or {}).get("spec") or {}).get("conversion") or {"strategy": "None"}
        return definition is not None and conversion.get("strategy") == "None"
    before, after = (schema.kinds().get(f"{version} {kind}") for version in (stored, served))
    return before is not None and after is not None and _reads_as(before, after, set())


def _reads_as(before: str, after: str, seen: set[tuple[str, str]]) -> bool:
    """Whether the later message reads all that the earlier one can hold; status is of no account."""
    if before == after or (before, after) in seen:
        return True
    seen.add((before, after))
    old, new = ({each.name: each for each in schema.fields(name) if each.name != "status"} for name in (before, after))
    return old.keys() <= new.keys() and all(
        (one.container, one.is_message, one.inline) == (other.container, other.is_message, other.inline)
        and (_reads_as(one.type, other.type, seen) if one.is_message else one.type == other.type)
        for one, other in ((old[name], new[name]) for name in old)
    )
