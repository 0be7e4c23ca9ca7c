"""Who owns which field: ``metadata.managedFields``, and what server-side apply makes of it."""

from __future__ import annotations

import json
from typing import Any

from lab.api.defaults import NO_STATUS_SUBRESOURCE, now
from lab.api.patch import merge_key, strategic
from lab.api.status import ApiError

Path = tuple[str, ...]
NOBODYS = {
    "managedFields",
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "selfLink",
}
NOBODYS |= {"deletionTimestamp", "deletionGracePeriodSeconds"}


def track_update(old: dict[str, Any] | None, new: dict[str, Any], manager: str, subresource: str) -> None:
    """Note in `new` that `manager` has set what differs from `old`."""
    before, after = _leaves(old or {}), _leaves(new)
    changed = {path for path, value in after.items() if before.get(path, _ABSENT) != value}
    entries = [
        (entry, (_paths(entry["fieldsV1"]) & after.keys()) - changed)
        for entry in new["metadata"].get("managedFields", ())
    ]
    own = _entry(new, manager, "Update", subresource)
    for place, (entry, paths) in enumerate(entries):
        if _same(entry, own):
            entries[place] = (own if changed else entry), paths | changed
            break
    else:
        entries.append((own, changed))
    _store(new, entries)


def apply(old: dict[str, Any] | None, wanted: dict[str, Any], manager: str, *, force: bool) -> dict[str, Any]:
    """
    Return the object after a server-side apply of `wanted`.

    :raises ApiError: 409 when a field with another value belongs to somebody else and `force` is not given.
    """
    wanted = _appliable(wanted)
    fields = _leaves(wanted)
    entries = [
        (entry, _paths(entry["fieldsV1"])) for entry in (old or {"metadata": {}})["metadata"].get("managedFields", ())
    ]
    own = _entry(wanted, manager, "Apply", "")
    present = _leaves(old or {})
    differing = {path for path, value in fields.items() if present.get(path, value) != value}
    conflicts = [
        (entry, path) for entry, paths in entries if not _same(entry, own) for path in sorted(paths & differing)
    ]
    if conflicts and not force:
        raise _conflict(conflicts)
    result = strategic(old or {}, wanted)
    previous = next((paths for entry, paths in entries if _same(entry, own)), set())
    others = [(entry, paths - differing) for entry, paths in entries if not _same(entry, own)]
    owned = set(fields).union(*(paths for _, paths in others))
    for path in previous - owned:
        _remove(result, _widest(path, owned))
    kept = next((entry for entry, paths in entries if _same(entry, own) and paths == set(fields)), own)
    result["metadata"] = dict(result["metadata"])
    _store(result, [*others, (kept, set(fields))])
    return result


_ABSENT = object()


def _appliable(wanted: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an apply cannot set: a status that has its own subresource, and fields that are null."""
    if wanted["kind"] not in NO_STATUS_SUBRESOURCE:
        wanted = {key: value for key, value in wanted.items() if key != "status"}
    metadata = {key: value for key, value in (wanted.get("metadata") or {}).items() if value is not None}
    return {**wanted, "metadata": metadata}


def _leaves(obj: dict[str, Any]) -> dict[Path, Any]:
    """Return every field that somebody can own, with its value."""
    body = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata")}
    meta = {key: value for key, value in (obj.get("metadata") or {}).items() if key not in NOBODYS}
    found: dict[Path, Any] = {}
    _walk({**({"metadata": meta} if meta else {}), **body}, (), found)
    return found


def _walk(value: Any, path: Path, found: dict[Path, Any], field: str = "") -> None:
    key = merge_key(field, value) if isinstance(value, list) else None
    if isinstance(value, dict) and value:
        for name, item in value.items():
            _walk(item, (*path, f"f:{name}"), found, name)
    elif key is not None and isinstance(value, list):
        for item in value:
            _walk(item, (*path, "k:" + json.dumps({key: item[key]}, separators=(",", ":"))), found)
    else:
        found[path] = value


def _widest(path: Path, owned: set[Path]) -> Path:
    """Return the list item around a field in which nobody owns anything any more, else the field itself."""
    for length, segment in enumerate(path, start=1):
        if segment.startswith("k:") and not any(other[:length] == path[:length] for other in owned):
            return path[:length]
    return path


def _remove(obj: dict[str, Any], path: Path) -> None:
    """Take one field out, and the lists and objects that it leaves empty."""
    steps: list[tuple[Any, Any]] = []
    target: Any = obj
    for segment in path:
        if segment.startswith("f:"):
            key: Any = segment[2:]
        else:
            ((name, wanted),) = json.loads(segment[2:]).items()
            key = next((index for index, item in enumerate(target) if item.get(name) == wanted), None)
        if key is None or (isinstance(target, dict) and key not in target):
            return
        steps.append((target, key))
        target = target[key]
    for holder, key in reversed(steps):
        del holder[key]
        if holder:
            return


def _entry(obj: dict[str, Any], manager: str, operation: str, subresource: str) -> dict[str, Any]:
    entry = {
        "manager": manager,
        "operation": operation,
        "apiVersion": obj["apiVersion"],
        "time": now(),
        "fieldsType": "FieldsV1",
    }
    return entry | ({"subresource": subresource} if subresource else {})


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("manager", "operation", "apiVersion", "subresource"))


def _store(obj: dict[str, Any], entries: list[tuple[dict[str, Any], set[Path]]]) -> None:
    managed = [{**entry, "fieldsV1": _tree(paths)} for entry, paths in entries if paths]
    obj["metadata"].pop("managedFields", None)
    if managed:
        obj["metadata"]["managedFields"] = managed


def _tree(paths: set[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        place = tree
        for segment in path:
            place = place.setdefault(segment, {})
    return tree


def _paths(tree: dict[str, Any], prefix: Path = ()) -> set[Path]:
    if not tree:
        return {prefix}
    return {path for segment, below in tree.items() for path in _paths(below, (*prefix, segment))}


def _conflict(conflicts: list[tuple[dict[str, Any], Path]]) -> ApiError:
    causes = []
    fields: dict[str, list[str]] = {}
    for entry, path in conflicts:
        field = "".join(f".{part[2:]}" if part.startswith("f:") else f"[{part[2:]}]" for part in path)
        version = "" if entry["operation"] == "Apply" else f" using {entry['apiVersion']}"
        manager = f'"{entry["manager"]}"{version}'
        causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": field})
        fields.setdefault(manager, []).append(field)
    if len(causes) == 1:
        text = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        lines = [
            line
            for manager, own in fields.items()
            for line in (f"conflicts with {manager}:", *(f"- {each}" for each in own))
        ]
        text = f"Apply failed with {len(causes)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", text, {"causes": causes})
