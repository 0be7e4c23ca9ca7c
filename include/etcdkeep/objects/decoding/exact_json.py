"""
JSON that comes out as it went in: numbers keep the text they were written with.

Values that the API server stores without looking inside (a ControllerRevision's data, a driver's parameters) are
served byte for byte, ``1.50`` and ``1E+2`` included; a float would give ``1.5`` and ``100.0``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 10_000
"""Go's limit, so an API server's: deeper JSON is never stored by one."""
TOO_DEEP = f"it is nested too deeply: more than {MAX_DEPTH} levels, which no API server takes"

_quote = json.encoder.encode_basestring_ascii
_CLOSING = {"{": "}", "[": "]"}
_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"[-+.\w]+")


class ExactNumber(float):
    """
    A number whose text says more than its value.

    :ivar text: The number as it was written.
    """

    text: str

    def __new__(cls, text: str) -> ExactNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __reduce__(self) -> tuple[type[ExactNumber], tuple[str]]:
        return ExactNumber, (self.text,)


def loads(data: str | bytes) -> Any:
    """
    Parse JSON.

    :raises ValueError: when it is none, or nested deeper than an API server takes.
    """
    try:
        return json.loads(data, parse_float=_number, parse_int=_integer, parse_constant=_refuse)
    except RecursionError:
        return _loads_deep(data if isinstance(data, str) else data.decode())


def dumps(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """
    Write JSON, pure ASCII; the opposite of :func:`loads`. Depth is no matter.

    :param indent: Spaces per level; None for one line without spaces.
    """
    newline, step, colon = ("", "", ":") if indent is None else ("\n", " " * indent, ": ")
    out: list[str] = []
    ahead: list[tuple[Iterator[tuple[str, Any]], str]] = []
    while True:
        separator = ","
        if value and isinstance(value, dict):
            entries = sorted(value.items()) if sort_keys else value.items()
            ahead.append((((_quote(key) + colon, entry) for key, entry in entries), "}"))
            out.append("{")
            separator = ""
        elif value and isinstance(value, list | tuple):
            ahead.append(((("", entry) for entry in value), "]"))
            out.append("[")
            separator = ""
        else:
            out.append(_scalar(value))
        while ahead:
            rest, closing = ahead[-1]
            entry = next(rest, None)
            if entry is not None:
                label, value = entry
                out.append(separator + newline + step * len(ahead) + label)
                break
            ahead.pop()
            out.append(newline + step * len(ahead) + closing)
            separator = ","
        else:
            return "".join(out)


def _scalar(value: Any) -> str:
    if isinstance(value, ExactNumber):
        return value.text
    return _quote(value) if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _loads_deep(text: str) -> Any:
    """Parse JSON that is nested deeper than the quick parser can go."""
    ahead: list[Any] = []
    keys: list[str] = []
    at = _skip(text, 0)
    while True:
        opening = text[at : at + 1]
        if opening in ("{", "["):
            if len(ahead) >= MAX_DEPTH:
                raise ValueError(TOO_DEEP)
            value: Any = {} if opening == "{" else []
            at = _skip(text, at + 1)
            if text[at : at + 1] != _CLOSING[opening]:
                ahead.append(value)
                if opening == "{":
                    key, at = _read_key(text, at)
                    keys.append(key)
                continue
            at += 1
        else:
            value, at = _read_scalar(text, at)
        while ahead:
            container = ahead[-1]
            is_map = isinstance(container, dict)
            if is_map:
                container[keys[-1]] = value
            else:
                container.append(value)
            at = _skip(text, at)
            following = text[at : at + 1]
            if following == ",":
                at = _skip(text, at + 1)
                if is_map:
                    keys[-1], at = _read_key(text, at)
                break
            if following != ("}" if is_map else "]"):
                raise ValueError(f"no comma and no end at character {at}")
            at += 1
            value = ahead.pop()
            if is_map:
                keys.pop()
        else:
            if _skip(text, at) != len(text):
                raise ValueError(f"something follows at character {at}")
            return value


def _read_key(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise ValueError(f"no name in quotes at character {at}")
    key, at = json.decoder.scanstring(text, at + 1)  # type: ignore[attr-defined]
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise ValueError(f"no colon at character {at}")
    return key, _skip(text, at + 1)


def _read_scalar(text: str, at: int) -> tuple[Any, int]:
    if text[at : at + 1] == '"':
        value, end = json.decoder.scanstring(text, at + 1)  # type: ignore[attr-defined]
        return value, end
    word = _WORD.match(text, at)
    if word is None:
        raise ValueError(f"no value at character {at}")
    return loads(word[0]), word.end()


def _skip(text: str, at: int) -> int:
    """Return where something stands from `at` on."""
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _number(text: str) -> float:
    number = float(text)
    return number if repr(number) == text else ExactNumber(text)


def _integer(text: str) -> int | float:
    # A JSON number has no length limit, Python's int() does, and it has no -0.
    return ExactNumber(text) if text == "-0" or len(text) > 400 else int(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")
