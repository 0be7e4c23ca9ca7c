"""Label and field selectors."""

from __future__ import annotations

import re
from typing import Any

from lab.api.status import bad_request

_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")


def matches_labels(selector: str, obj: dict[str, Any]) -> bool:
    """Tell whether an object's labels satisfy ``a=b,c!=d,e in (f,g),h,!i``."""
    labels = obj["metadata"].get("labels") or {}
    return all(_label(term.strip(), labels) for term in re.split(r",(?![^(]*\))", selector) if term.strip())


def _label(term: str, labels: dict[str, str]) -> bool:
    found = _SET.match(term)
    if found:
        values = {value.strip() for value in found[3].split(",")}
        return (labels.get(found[1]) in values) == (found[2] == "in")
    if "!=" in term:
        key, _, value = term.partition("!=")
        return labels.get(key.strip()) != value.strip()
    if "=" in term:
        key, _, value = term.replace("==", "=").partition("=")
        return labels.get(key.strip()) == value.strip()
    return term[1:].strip() not in labels if term.startswith("!") else term in labels


def matches_fields(selector: str, obj: dict[str, Any]) -> bool:
    """Tell whether an object satisfies ``metadata.name=x,spec.nodeName!=y``; any dotted path of strings is taken."""
    return all(_field(term.strip(), obj) for term in selector.split(",") if term.strip())


def _field(term: str, obj: dict[str, Any]) -> bool:
    parts = re.match(r"^([^=!]+)(!=|==|=)(.*)$", term)
    if parts is None:
        raise bad_request(f'invalid selector: "{term}"; can\'t understand "{term}"')
    key, operator, value = parts.groups()
    found: Any = obj
    for part in key.strip().split("."):
        found = found.get(part, "") if isinstance(found, dict) else ""
    return (str(found) == value.strip()) == (operator != "!=")
