"""Label selectors, as ``kubectl -l`` takes them, and the labels of a stored object."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding import free_form, schema
from etcdkeep.objects.decoding.decode import MAX_VALUE_BYTES
from etcdkeep.objects.decoding.served import NAME_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY = r"(?:[A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<not>!)\s*(?P<absent>{_KEY})"
    rf"|(?P<key>{_KEY})(?:\s*(?P<operator>==?|!=|<|>)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)
_PROTOBUF_MARK = b"k8s\x00"


@dataclass(frozen=True)
class Requirement:
    """
    One part of a selector.

    :param operator: ``in``, ``notin``, ``exists``, ``absent``, ``<`` or ``>``.
    """

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant; ``notin`` means objects without the label too."""
        value = labels.get(self.key)
        if self.operator == "absent":
            return value is None
        if self.operator == "notin":
            return value not in self.values
        if value is None or self.operator == "exists":
            return value is not None
        if self.operator == "in":
            return value in self.values
        if not re.fullmatch(r"[+-]?\d{1,19}", value):
            return False
        limit = int(self.values[0])
        return int(value) < limit if self.operator == "<" else int(value) > limit


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """
    Read ``app=web,tier in (a,b),!canary``.

    :raises ValueError: when it is none.
    """
    found: list[Requirement] = []
    at = 0
    while at < len(text):
        match = _REQUIREMENT.match(text, at)
        if match is None:
            raise ValueError(
                f"{text!r} is not a label selector, from {text[at:].strip()!r} on: parts are key=value, key!=value, "
                "'key in (a,b)', 'key notin (a,b)', key and !key, with commas between"
            )
        found.append(_requirement(match))
        at = match.end()
    return tuple(found)


def labels_of(value: bytes) -> Mapping[str, str]:
    """
    Return the labels of a stored object, without decoding the rest of it.

    :param value: In the clear.
    :raises ValueDamaged: when it is no object.
    """
    if len(value) > MAX_VALUE_BYTES:
        raise ValueDamaged(f"it is {len(value)} bytes long; an API server stores at most a few MiB")
    return _protobuf_labels(value) if value.startswith(_PROTOBUF_MARK) else _free_form_labels(value)


def _requirement(match: re.Match[str]) -> Requirement:
    if match["not"]:
        return Requirement(match["absent"], "absent")
    if match["set"]:
        values = tuple(value.strip() for value in match["values"].split(","))
        if not all(re.fullmatch(_VALUE, value) for value in values):
            raise ValueError(f"({match['values']}) holds something that is not a label value")
        return Requirement(match["key"], match["set"], values)
    operator = match["operator"]
    if operator is None:
        return Requirement(match["key"], "exists")
    if operator in "<>":
        if not match["value"].isdecimal():
            raise ValueError(f"{match['key']}{operator} needs a number behind it, not {match['value']!r}")
        return Requirement(match["key"], operator, (match["value"],))
    return Requirement(match["key"], "notin" if operator == "!=" else "in", (match["value"],))


def _protobuf_labels(value: bytes) -> Mapping[str, str]:
    from google.protobuf.message import DecodeError

    envelope: Any = schema.message_class("runtime.Unknown")()
    any_kind: Any = schema.message_class(schema.ANY_KIND)()
    try:
        envelope.ParseFromString(value[len(_PROTOBUF_MARK) :])
        any_kind.ParseFromString(envelope.f2)
        labels = dict(any_kind.f1.f11)
    except (DecodeError, UnicodeDecodeError) as err:
        raise ValueDamaged(f"its bytes are not an object: {err}") from err
    if (envelope.f1.f1, envelope.f1.f2) == ("v1", "Namespace"):
        labels[NAME_LABEL] = any_kind.f1.f1
    return labels


def _free_form_labels(value: bytes) -> Mapping[str, str]:
    if not value.startswith((b"{", free_form.CBOR_MARK)):
        raise ValueDamaged("it holds no Kubernetes object")
    content = free_form.parse(value, "it")
    metadata = content.get("metadata") if isinstance(content, dict) else None
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    if labels is None:
        return {}
    if not isinstance(labels, dict) or not all(isinstance(each, str) for each in labels.values()):
        raise ValueDamaged("its labels are not a map of strings")
    return labels
