"""
CBOR as an API server writes and reads it (feature gate ``CBORServingAndStorage``), as JSON's types.

Strict where the API server is: no undefined, NaN, Infinity, bignum, number past 64 bits, key that is no string, or key
that comes twice. Without recursion: a value of any depth is judged, none ends the process.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from struct import Struct
from typing import Any

from etcdkeep.objects.decoding.exact_json import MAX_DEPTH, TOO_DEEP, ExactNumber

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_BREAK = 0xFF
_INDEFINITE = 31
_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOATS = {25: Struct(">e"), 26: Struct(">f"), 27: Struct(">d")}
_SIMPLES = {20: False, 21: True, 22: None}
_REFUSED_TAGS = {0: "a date", 1: "a date", 2: "a bignum", 3: "a bignum"}
_BASE64 = 22
_GO_SHORTEST, _GO_LONGEST = 1e-6, 1e21
"""Between these, Go prints a number without an exponent."""


@dataclass
class _Open:
    """
    A container that is being filled, or a tag that waits for what it stands before.

    :param left: Entries still to come; -1 until a break.
    :param key: Of the entry whose value comes next; None where a key comes next.
    """

    major: int
    content: Any
    left: int
    key: str | None = None


def loads(data: bytes) -> Any:
    """
    Return the one value that the bytes hold.

    :raises ValueError: when they are not what an API server takes.
    """
    return _Decoder(data).document()


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._open: list[_Open] = []

    def document(self) -> Any:
        while True:
            complete, value = self._item()
            if not complete:
                continue
            is_whole, value = self._deliver(value)
            if is_whole:
                if self._at != len(self._data):
                    raise ValueError(f"{len(self._data) - self._at} bytes follow it")
                return value

    def _item(self) -> tuple[bool, Any]:
        """Read one head, with the content of a string; return whether a value is complete, and the value."""
        head = self._take(1)[0]
        major, info = head >> 5, head & 0x1F
        if head == _BREAK:
            return True, self._close_indefinite()
        if major == _SIMPLE:
            return True, self._simple(info)
        if info == _INDEFINITE:
            if major in (_BYTES, _TEXT):
                return True, self._chunks(major)
            if major not in (_ARRAY, _MAP):
                raise ValueError(f"a head {head:#x} has no meaning")
            return self._begin(major, -1)
        count = self._argument(info)
        if major in (_UNSIGNED, _NEGATIVE):
            if count >> 63:
                raise ValueError("it holds a number that does not fit into 64 bits")
            return True, -1 - count if major == _NEGATIVE else count
        if major in (_BYTES, _TEXT):
            return True, self._string(major, count)
        if major == _TAG and count in _REFUSED_TAGS:
            raise ValueError(f"it holds {_REFUSED_TAGS[count]}, which JSON cannot hold")
        return self._begin(major, count)

    def _begin(self, major: int, count: int) -> tuple[bool, Any]:
        if len(self._open) >= MAX_DEPTH:
            raise ValueError(TOO_DEEP)
        content: Any = count if major == _TAG else {} if major == _MAP else []
        if count == 0 and major != _TAG:
            return True, content
        self._open.append(_Open(major, content, count))
        return False, None

    def _close_indefinite(self) -> Any:
        top = self._open.pop() if self._open else None
        if top is None or top.left != -1 or top.major == _TAG or top.key is not None:
            raise ValueError("a break stands where nothing can end")
        return top.content

    def _deliver(self, value: Any) -> tuple[bool, Any]:
        """Put a complete value where it belongs; return whether the document is complete, and its value."""
        while self._open:
            top = self._open[-1]
            if top.major == _TAG:
                self._open.pop()
                value = (
                    base64.b64encode(value).decode() if top.content == _BASE64 and isinstance(value, bytes) else value
                )
                continue
            value = value.decode(errors="replace") if isinstance(value, bytes) else value
            if top.major == _MAP and top.key is None:
                self._set_key(top, value)
                return False, None
            if top.major == _MAP:
                top.content[top.key] = value
                top.key = None
            else:
                top.content.append(value)
            if top.left > 0:
                top.left -= 1
            if top.left:
                return False, None
            value = self._open.pop().content
        return True, value.decode(errors="replace") if isinstance(value, bytes) else value

    def _set_key(self, top: _Open, key: Any) -> None:
        if not isinstance(key, str):
            raise ValueError(f"a map in it has a key of type {type(key).__name__}; keys are strings")
        if key in top.content:
            raise ValueError("a map in it has one key twice")
        top.key = key

    def _simple(self, info: int) -> Any:
        if info in _SIMPLES:
            return _SIMPLES[info]
        if info not in _FLOATS:
            raise ValueError("it holds undefined" if info == 23 else f"it holds the simple value {info}")
        (number,) = _FLOATS[info].unpack(self._take(_SIZES[info]))
        if not math.isfinite(number):
            raise ValueError(f"it holds {'NaN' if math.isnan(number) else 'Infinity'}, which JSON has not")
        return _as_go_prints(number)

    def _string(self, major: int, size: int) -> str | bytes:
        data = self._take(size)
        return data if major == _BYTES else data.decode()

    def _chunks(self, major: int) -> str | bytes:
        parts: list[str | bytes] = []
        while (head := self._take(1)[0]) != _BREAK:
            if head >> 5 != major or head & 0x1F == _INDEFINITE:
                raise ValueError("a string is made of parts that are none")
            parts.append(self._string(major, self._argument(head & 0x1F)))
        return b"".join(parts) if major == _BYTES else "".join(parts)  # type: ignore[arg-type]

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info not in _SIZES:
            raise ValueError("a length has no meaning")
        return int.from_bytes(self._take(_SIZES[info]), "big")

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError("it ends early")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def _as_go_prints(number: float) -> float:
    """Return a number that is printed as Go's JSON encoder does: ``1``, not ``1.0``."""
    magnitude = abs(number)
    if number.is_integer() and magnitude < _GO_LONGEST:
        return ExactNumber("-0" if not number and math.copysign(1, number) < 0 else str(int(number)))
    if magnitude >= _GO_SHORTEST and "e-" in repr(number):
        digits, _, exponent = repr(number).partition("e-")
        return ExactNumber(f"{number:.{int(exponent) + len(digits.partition('.')[2])}f}")
    return ExactNumber(repr(number).replace("e-0", "e-")) if "e" in repr(number) else number
