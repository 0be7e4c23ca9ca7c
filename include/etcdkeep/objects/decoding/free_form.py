"""
Values that describe themselves: JSON, or CBOR where the API server's feature gate ``CBORServingAndStorage`` is on.

Custom resources, CRDs and APIServices are stored so, and the free-form fields inside built-in kinds.
"""

from __future__ import annotations

import re
from typing import Any

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding import exact_json

CBOR_MARK = b"\xd9\xd9\xf7"
_HIGH, _LOW = r"u[dD][89abAB][0-9a-fA-F]{2}", r"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"\\(?:{_HIGH}\\{_LOW}|({_HIGH}|{_LOW})|.)", re.DOTALL)
"""An escape in a JSON string; its group is half of a surrogate pair without the other half."""


def parse(data: bytes, what: str) -> Any:
    """
    Return what the API server prints for the bytes, as Python values.

    :param what: What the bytes are, for messages.
    :raises ValueDamaged: when they are neither JSON nor CBOR, or nested too deeply.
    """
    try:
        if data.startswith(CBOR_MARK):
            from etcdkeep.objects.decoding import cbor

            return cbor.loads(data.removeprefix(CBOR_MARK))
        text = data.decode(errors="replace")
        if "\\u" in text:
            text = _ESCAPE.sub(lambda match: "\\ufffd" if match[1] else match[0], text)
        return exact_json.loads(text)
    except ValueError as err:
        form = "CBOR" if data.startswith(CBOR_MARK) else "JSON"
        raise ValueDamaged(f"{what} should be {form} and is not: {err}") from err


def lone_surrogates(data: bytes) -> int:
    """Return how many characters of a JSON value are half of a surrogate pair, which :func:`parse` replaces."""
    if b"\\u" not in data or data.startswith(CBOR_MARK):
        return 0
    return sum(1 for match in _ESCAPE.finditer(data.decode(errors="replace")) if match[1])
