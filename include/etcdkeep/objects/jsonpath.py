"""
JSONPath as kubectl takes it: ``{.items[*].metadata.name}``, with ``range``, filters, slices, unions and ``..``.

A template is text with expressions in braces; what an object does not have prints as nothing.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etcdkeep.objects.decoding import exact_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PART = re.compile(r"""\{((?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^{}"'])*)\}""", re.DOTALL)
_QUOTED = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')\s*""", re.DOTALL)
_FIELD = re.compile(r"(?:[^\s.\[\]\\{}*'\"=<>!|&()@$,:?]|\\.)+")
_SLICE = re.compile(r"\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?(?::\s*(\d*)\s*)?")
_FILTER = re.compile(r"\s*(.+?)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?)\s*)?", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True)
class _Range:
    """A path whose values the body is printed for, one after the other."""

    path: Sequence[Callable[[list[Any]], list[Any]]]
    body: list[Any]


def parse_template(text: str) -> list[Any]:
    """
    Read a template.

    :return: For :func:`render`.
    :raises ValueError: when it is none, with what is wrong.
    """
    outer: list[Any] = []
    stack = [outer]
    at = 0
    for match in _PART.finditer(text):
        _add_text(stack[-1], text[at : match.start()])
        at = match.end()
        inner = match[1].strip()
        if inner == "end":
            stack.pop()
            if not stack:
                raise ValueError(f"{text!r} has an {{end}} without a {{range}}")
        elif inner.startswith("range"):
            opened = _Range(parse_path(inner[len("range") :].strip()), [])
            stack[-1].append(opened)
            stack.append(opened.body)
        elif quoted := _QUOTED.fullmatch(inner):
            stack[-1].append(_unquoted(quoted))
        else:
            stack[-1].append(parse_path(inner))
    _add_text(stack[-1], text[at:])
    if len(stack) > 1:
        raise ValueError(f"{text!r} has a {{range}} without an {{end}}")
    return outer


def render(template: Sequence[Any], content: Any) -> str:
    """Return what a template makes of an object."""
    return "".join(_rendered(template, content))


def parse_path(text: str) -> list[Callable[[list[Any]], list[Any]]]:
    """
    Read one path: ``.metadata.name``, also with ``$`` or ``@`` before it, without the first dot, or in braces.

    :raises ValueError: when it is none, with what is wrong.
    """
    text = text.strip().removeprefix("{").removesuffix("}").strip()
    at = 1 if text[:1] in ("$", "@") else 0
    steps: list[Callable[[list[Any]], list[Any]]] = []
    while at < len(text):
        if text.startswith("..", at):
            steps.append(_descendants)
            at += 2
        elif text[at] == ".":
            at += 1
            if at == len(text):
                break
        if text.startswith("*", at):
            steps.append(_children)
            at += 1
        elif text.startswith("[", at):
            end = _closing(text, at)
            steps.append(_bracket(text[at + 1 : end]))
            at = end + 1
        elif match := _FIELD.match(text, at):
            steps.append(_field(re.sub(r"\\(.)", r"\1", match[0])))
            at = match.end()
        else:
            raise ValueError(f"{text!r} is not a JSONPath from {text[at:]!r} on")
    return steps


def find(path: Sequence[Callable[[list[Any]], list[Any]]], content: Any) -> list[Any]:
    """Return the values at a path."""
    values = [content]
    for step in path:
        values = step(values)
    return values


def _rendered(template: Sequence[Any], content: Any) -> Iterator[str]:
    for part in template:
        if isinstance(part, str):
            yield part
        elif isinstance(part, _Range):
            for value in find(part.path, content):
                yield from _rendered(part.body, value)
        else:
            yield " ".join(map(_text, find(part, content)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else exact_json.dumps(value)


def _add_text(parts: list[Any], text: str) -> None:
    if "{" in text or "}" in text:
        raise ValueError(f"{text!r} has a brace without the other one")
    if text:
        parts.append(text)


def _unquoted(match: re.Match[str]) -> str:
    text: str = match[1] if match[1] is not None else match[2]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), text)


def _closing(text: str, start: int) -> int:
    """Return where the bracket at `start` ends."""
    depth, quote = 0, ""
    for at in range(start, len(text)):
        char = text[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "[(":
            depth += 1
        elif char in "])":
            depth -= 1
            if not depth:
                return at
    raise ValueError(f"{text!r} has a bracket without the other one")


def _bracket(inner: str) -> Callable[[list[Any]], list[Any]]:
    inner = inner.strip()
    if inner == "*":
        return _children
    if inner.startswith("?(") and inner.endswith(")"):
        return _filter(inner[2:-1])
    parts = re.split(r""",(?=(?:[^"']|"[^"]*"|'[^']*')*$)""", inner)
    if len(parts) > 1:
        steps = [_bracket(part) for part in parts]
        return lambda values: [found for step in steps for found in step(values)]  # all of the first, as kubectl prints
    if quoted := _QUOTED.fullmatch(inner):
        return _quoted_field(_unquoted(quoted), quoted[0][1:-1])
    match = _SLICE.fullmatch(inner)
    if match is None or not inner:
        return _union_of_a_path(inner)
    if ":" not in inner:
        return _index(int(match[1]))
    start, stop, stride = (int(each) if each else None for each in match.groups())
    return lambda values: [found for value in values if isinstance(value, list) for found in value[start:stop:stride]]


def _union_of_a_path(inner: str) -> Callable[[list[Any]], list[Any]]:
    """``['metadata.name', .spec]``: kubectl also takes a path in brackets."""
    path = parse_path(inner)
    if not path:
        raise ValueError("[] is not a JSONPath: expected an index, a name in quotes, a filter or * in brackets")
    return lambda values: [found for value in values for found in find(path, value)]


def _field(name: str) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value[name] for value in values if isinstance(value, dict) and name in value]


def _quoted_field(name: str, raw: str) -> Callable[[list[Any]], list[Any]]:
    """Return a field of that very name; where there is none, what kubectl takes the text for: a path."""
    try:
        path = parse_path(f".{raw}")
    except ValueError:
        return _field(name)

    def step(values: list[Any]) -> list[Any]:
        found: list[Any] = []
        for value in values:
            found += [value[name]] if isinstance(value, dict) and name in value else find(path, value)
        return found

    return step


def _index(at: int) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value[at] for value in values if isinstance(value, list) and -len(value) <= at < len(value)]


def _children(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if isinstance(value, dict | list):
            found += value.values() if isinstance(value, dict) else value
    return found


def _descendants(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    ahead = list(reversed(values))
    while ahead:
        value = ahead.pop()
        found.append(value)
        ahead += reversed(_children([value]))
    return found


def _filter(text: str) -> Callable[[list[Any]], list[Any]]:
    match = _FILTER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a filter of a JSONPath")
    left, right = _operand(match[1]), _operand(match[3]) if match[2] else None
    compare = _COMPARE[match[2]] if match[2] else None

    def holds(value: Any) -> bool:
        found = left(value)
        if compare is None or right is None:
            return bool(found)
        other = right(value)
        try:
            return bool(found) and bool(other) and compare(found[0], other[0])
        except TypeError:
            return False

    return lambda values: [entry for value in values for entry in _children([value]) if holds(entry)]


def _operand(text: str) -> Callable[[Any], list[Any]]:
    if quoted := _QUOTED.fullmatch(text):
        constant: Any = _unquoted(quoted)
        return lambda _: [constant]
    if text[:1] not in ("@", "$", "."):
        try:
            constant = exact_json.loads(text)
        except ValueError as err:
            raise ValueError(
                f"{text!r} in a filter is neither a path (@.name), nor a text in quotes, nor a number"
            ) from err
        return lambda _: [constant]
    path = parse_path(text)
    return lambda value: find(path, value)
