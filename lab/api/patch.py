"""The kinds of PATCH: JSON patch, merge patch and strategic merge patch; server-side apply is in ``managed``."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml

from lab.api.status import bad_request

APPLY = "application/apply-patch+yaml"

MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "volumes": "name", "env": "name",
    "volumeMounts": "mountPath", "volumeDevices": "devicePath", "conditions": "type", "ownerReferences": "uid",
    "imagePullSecrets": "name", "secrets": "name", "hostAliases": "ip", "addresses": "type", "taints": "key",
    "topologySpreadConstraints": "topologyKey", "resourceClaims": "name",
}  # fmt: skip
"""List field → key by which strategic merge joins its items; any other list is replaced."""
SETS = ("finalizers",)


def apply_patch(content_type: str, body: bytes, current: dict[str, Any]) -> dict[str, Any]:
    """Return `current` with one patch applied; `current` itself is left alone."""
    target = copy.deepcopy(current)
    kind = content_type.partition(";")[0].strip()
    try:
        patch = json.loads(body)
    except ValueError as err:
        raise bad_request(f"error decoding patch: {err}") from err
    if kind == "application/json-patch+json":
        for operation in patch:
            _operate(target, operation)
        return target
    if kind == "application/merge-patch+json":
        return merge(target, patch)
    if kind == "application/strategic-merge-patch+json":
        return strategic(target, patch)
    raise bad_request(f"the body of the request was in an unknown format: {kind}")


def read_applied(body: bytes) -> dict[str, Any]:
    """Return the object of a server-side apply, which may be YAML."""
    try:
        wanted = yaml.safe_load(body)
    except yaml.YAMLError as err:
        raise bad_request(f"error decoding YAML: {err}") from err
    if not isinstance(wanted, dict) or "apiVersion" not in wanted or "kind" not in wanted:
        raise bad_request("invalid object type: apiVersion and kind are required")
    if (wanted.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    try:
        json.dumps(wanted, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as err:
        # JSON's surrogate pairs: YAML has none
        raise bad_request("error decoding YAML: yaml: found invalid Unicode character escape code") from err
    return wanted


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(target: Any, patch: dict[str, Any]) -> dict[str, Any]:
    """Kubernetes' strategic merge for the lists in ``MERGE_KEYS``, with its ``$patch`` and ``$deleteFrom…`` directives."""
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field, ()) if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic(result.get(key), value)
        elif isinstance(value, list):
            result[key] = _merge_list(key, result.get(key) or [], value)
        else:
            result[key] = value
    return result


def merge_key(field: str, items: list[Any]) -> str | None:
    """Return the key by which the items of a list field are told apart; None where the list is one value."""
    key = MERGE_KEYS.get(field)
    if field == "ports":
        key = "containerPort" if any("containerPort" in item for item in items if isinstance(item, dict)) else "port"
    return key if items and all(isinstance(item, dict) and key in item for item in items) else None


def _merge_list(field: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if field in SETS:
        return [*target, *(item for item in patch if item not in target)]
    key = merge_key(field, [*target, *(item for item in patch if item != {"$patch": "replace"})])
    if key is None:
        return [item for item in patch if item != {"$patch": "replace"}]
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    result = list(target)
    for item in patch:
        place = next((index for index, old in enumerate(result) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if place is not None:
                del result[place]
        elif place is None:
            result.append(item)
        else:
            result[place] = strategic(result[place], item)
    return result


def _operate(target: Any, operation: dict[str, Any]) -> None:
    """Carry out one RFC 6902 operation in place."""
    kind, path = operation["op"], _pointer(operation["path"])
    if kind in ("move", "copy"):
        source = _pointer(operation["from"])
        value = copy.deepcopy(_walk(target, source))
        if kind == "move":
            _remove(target, source)
        _add(target, path, value)
    elif kind == "add":
        _add(target, path, operation["value"])
    elif kind == "remove":
        _remove(target, path)
    elif kind == "replace":
        _remove(target, path)
        _add(target, path, operation["value"])
    elif kind == "test" and _walk(target, path) != operation["value"]:
        raise bad_request(f"testing path {operation['path']} failed")


def _pointer(text: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _walk(target: Any, path: list[str]) -> Any:
    for part in path:
        try:
            target = target[int(part)] if isinstance(target, list) else target[part]
        except (KeyError, IndexError, ValueError) as err:
            raise bad_request(f"jsonpatch: path /{'/'.join(path)} does not exist") from err
    return target


def _add(target: Any, path: list[str], value: Any) -> None:
    parent, last = _walk(target, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else int(last), value)
    else:
        parent[last] = value


def _remove(target: Any, path: list[str]) -> None:
    _walk(target, path)
    parent, last = _walk(target, path[:-1]), path[-1]
    del parent[int(last) if isinstance(parent, list) else last]
