"""
Values that describe themselves: JSON, or CBOR where the API server's feature gate ``CBORServingAndStorage`` is on.

Custom resources, CRDs and APIServices are stored so, and the free-form fields inside built-in kinds.
"""

from __future__ import annotations

import base64
from typing import Any

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects import exact_json

CBOR_MARK = b"\xd9\xd9\xf7"


def parse(data: bytes, what: str) -> Any:
    """
    Return what the API server prints for the bytes, as Python values.

    :param what: What the bytes are, for messages.
    :raises ValueDamaged: when they are neither JSON nor CBOR, or nested too deeply.
    """
    try:
        if data.startswith(CBOR_MARK):
            return _parse_cbor(data)
        return exact_json.loads(data.decode(errors="replace"))
    except ValueError as err:
        form = "CBOR" if data.startswith(CBOR_MARK) else "JSON"
        raise ValueDamaged(f"{what} should be {form} and is not: {err}") from err


def _parse_cbor(data: bytes) -> Any:
    import cbor2

    try:
        return _plain(cbor2.loads(data.removeprefix(CBOR_MARK)))
    except (cbor2.CBORDecodeError, RecursionError, TypeError, OverflowError, MemoryError) as err:
        raise ValueError(str(err)) from err


def _plain(value: Any) -> Any:
    """Turn what the CBOR library gives into JSON's types, as the API server does: it writes strings as bytes."""
    import cbor2

    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, cbor2.CBORTag):
        tagged = value.value
        return base64.b64encode(tagged).decode() if value.tag == 22 and isinstance(tagged, bytes) else _plain(tagged)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} has no place in JSON")
