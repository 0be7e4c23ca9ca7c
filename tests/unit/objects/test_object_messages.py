"""Every message of the schema, with its fields unset, zero and full: the rules of Go's JSON, stated a second time."""

from __future__ import annotations

from typing import Any

import pytest

from etcdkeep.objects.decoding import go_json, schema

MINOR = 36
STORED_TIME = 1_795_392_000
SCALARS = {"string": ("", "text"), "bool": (False, True), "int32": (0, 7), "int64": (0, 2**60), "bytes": (b"", b"\x00")}
PRINTED = {b"": "", b"\x00": "AA=="}

# type → (what it prints when unset, how to set it, what it prints then)
SPECIAL: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "meta.v1.Time": (None, {"f1": STORED_TIME, "f2": 999}, "2026-11-23T00:00:00Z"),
    "meta.v1.MicroTime": (None, {"f1": STORED_TIME, "f2": 123_456_789}, "2026-11-23T00:00:00.123456Z"),
    "meta.v1.FieldsV1": (None, {"f1": b'{"f:a":{}}'}, {"f:a": {}}),
    "resource.Quantity": ("0", {"f1": "100m"}, "100m"),
    "intstr.IntOrString": (0, {"f1": 1, "f3": "25%"}, "25%"),
    "runtime.RawExtension": (None, {"f1": b"[1.50]"}, [1.5]),
    "certificates.v1.ExtraValue": (None, {"f1": ["a"]}, ["a"]),
    "certificates.v1beta1.ExtraValue": (None, {"f1": ["a"]}, ["a"]),
}


def expected_unset(name: str) -> Any:
    if name in SPECIAL:
        return SPECIAL[name][0]
    out: dict[str, Any] = {}
    for field in schema.fields(name):
        plain_struct = field.is_message and not field.container and not field.pointer
        if field.inline:
            out.update(expected_unset(field.type))
        elif field.omitzero or (field.omitempty and not plain_struct):
            continue
        elif plain_struct:
            out[field.name] = expected_unset(field.type)
        elif field.container or field.pointer or field.type == "bytes":
            out[field.name] = None
        else:
            out[field.name] = SCALARS[field.type][0]
    return out


def fill(target: Any, name: str, which: int, depth: int) -> Any:
    """Set every field of a message to zero (`which` 0) or to something (1), and return what Go prints."""
    if name in SPECIAL:
        unset, values, printed = SPECIAL[name]
        if not which:
            return unset
        for attribute, value in values.items():
            if isinstance(value, list):
                getattr(target, attribute).extend(value)
            else:
                setattr(target, attribute, value)
        return printed
    out = expected_unset(name)
    for field in schema.fields(name):
        attribute = f"f{field.number}"
        if field.is_message and depth == 0:
            continue
        if field.container and not which:
            continue
        if field.container:
            printed = fill_many(target, attribute, field, depth)
        elif field.is_message:
            inner = getattr(target, attribute)
            inner.SetInParent()
            printed = fill(inner, field.type, which, depth - 1)
            if field.inline:
                out.update(printed)
                continue
            if field.omitzero and printed is None:
                continue
        else:
            value = SCALARS[field.type][which]
            setattr(target, attribute, value)
            printed = PRINTED[value] if isinstance(value, bytes) else value
            if field.omitempty and not field.pointer and not value:
                continue
        out[field.name] = printed
    return out


def fill_many(target: Any, attribute: str, field: schema.Field, depth: int) -> Any:
    many = getattr(target, attribute)
    if field.container == "list":
        if field.is_message:
            return [fill(many.add(), field.type, which, depth - 1) for which in (1, 0)]
        values = SCALARS[field.type]
        many.extend(values)
        return [PRINTED.get(value, value) for value in values]
    if field.is_message:
        return {"key": fill(many["key"], field.type, 1, depth - 1)}
    many["key"], many[""] = SCALARS[field.type]
    return {name: PRINTED.get(value, value) for name, value in zip(("key", ""), SCALARS[field.type], strict=True)}


STRUCTS = tuple(name for name in schema.messages() if name not in SPECIAL and not name.startswith("runtime."))


@pytest.mark.parametrize("name", STRUCTS)
def test_message(name: str) -> None:
    message_class = schema.message_class(name)
    assert go_json.to_json(message_class(), name, MINOR) == expected_unset(name), "unset"
    for which, depth in ((0, 2), (1, 2)):
        filled = message_class()
        printed = fill(filled, name, which, depth)
        reread = message_class()
        reread.ParseFromString(filled.SerializeToString())
        assert go_json.to_json(reread, name, MINOR) == printed, ("zero", "full")[which]


def to_json(name: str, **values: Any) -> Any:
    """Print one value of a type that prints itself, as the first field of a status that has one."""
    owner, attribute = {
        "meta.v1.Time": ("meta.v1.ManagedFieldsEntry", "f4"),
        "meta.v1.MicroTime": ("coordination.v1.LeaseSpec", "f3"),
        "intstr.IntOrString": ("core.v1.HTTPGetAction", "f2"),
    }[name]
    message: Any = schema.message_class(owner)()
    inner = getattr(message, attribute)
    inner.SetInParent()
    for key, value in values.items():
        setattr(inner, key, value)
    field = next(field for field in schema.fields(owner) if f"f{field.number}" == attribute)
    return go_json.to_json(message, owner, MINOR)[field.name]


@pytest.mark.parametrize(
    ("name", "values", "printed"),
    [
        pytest.param("meta.v1.Time", {}, None, id="empty-time"),
        pytest.param("meta.v1.Time", {"f1": -62135596800}, None, id="zero-time"),
        pytest.param("meta.v1.Time", {"f1": 0}, "1970-01-01T00:00:00Z", id="epoch"),
        pytest.param("meta.v1.Time", {"f1": -1}, "1969-12-31T23:59:59Z", id="before-1970"),
        pytest.param("meta.v1.Time", {"f1": -62000000000}, "0005-04-19T09:46:40Z", id="year-5"),
        pytest.param("meta.v1.Time", {"f2": 5}, "1970-01-01T00:00:00Z", id="seconds-unset"),
        pytest.param("meta.v1.MicroTime", {"f1": 1}, "1970-01-01T00:00:01.000000Z", id="whole-second"),
        pytest.param("meta.v1.MicroTime", {"f1": 1, "f2": 999_999_999}, "1970-01-01T00:00:01.999999Z", id="truncated"),
        pytest.param("meta.v1.MicroTime", {}, None, id="empty-micro-time"),
        pytest.param("intstr.IntOrString", {"f1": 0, "f2": -1, "f3": ""}, -1, id="int"),
        pytest.param("intstr.IntOrString", {"f1": 1, "f2": 0, "f3": ""}, "", id="empty-string"),
    ],
)
def test_type_that_prints_itself(name: str, values: dict[str, Any], printed: Any) -> None:
    assert to_json(name, **values) == printed


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        pytest.param("meta.v1.Time", {"f1": 2**62}, "outside the years", id="absurd-time"),
        pytest.param("intstr.IntOrString", {"f1": 2}, "of type 2", id="absurd-type"),
    ],
)
def test_value_that_its_type_cannot_hold(name: str, values: dict[str, Any], problem: str) -> None:
    with pytest.raises(go_json.ValueDamaged, match=problem):
        to_json(name, **values)
