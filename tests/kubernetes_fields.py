"""Whether Kubernetes knows every field of a manifest: by the same table that decodes its stored objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.objects.decoding import schema

if TYPE_CHECKING:
    from collections.abc import Iterator


def unknown_fields(manifest: dict[str, Any]) -> list[str]:
    """Return the paths of fields that no such object has."""
    message = schema.kinds()[f"{manifest['apiVersion']} {manifest['kind']}"]
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    return list(_unknown(body, message, ""))


def _unknown(value: dict[str, Any], message: str, path: str) -> Iterator[str]:
    known = {field.name: field for field in _fields(message)}
    for name, inner in value.items():
        field, place = known.get(name), f"{path}.{name}".lstrip(".")
        if field is None:
            yield place
        elif field.is_message:
            members = {"list": inner, "map": inner.values() if isinstance(inner, dict) else ()}.get(
                field.container, [inner]
            )
            for each in members:
                if isinstance(each, dict):
                    yield from _unknown(each, field.type, place)


def _fields(message: str) -> Iterator[schema.Field]:
    """Yield a message's fields; those of an inline one stand in its place."""
    for field in schema.fields(message):
        if field.inline:
            yield from _fields(field.type)
        else:
            yield field
