"""Builders of values as an API server stores them, and the recorded ones under ``tests/data/objects``."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import zstandard

from etcdkeep.objects.decoding import schema

DATA = Path(__file__).parent / "data" / "objects"


@dataclass(frozen=True)
class Recorded:
    """
    A stored value and the JSON that goes with it.

    :param key: Of the control plane's values only.
    :param release: Of the published vectors only: the Kubernetes that wrote it, ``HEAD`` or ``v1.34.0``.
    :param json: None for a key that holds no object of the API.
    """

    stored: bytes
    json: Any
    key: bytes = b""
    mod_revision: int = 0
    release: str = ""


@cache
def control_plane() -> tuple[Recorded, ...]:
    """Return values of a real Kubernetes 1.36 with what its API server said of them at that very revision."""
    return tuple(
        Recorded(base64.b64decode(row["stored"]), row["json"], row["key"].encode(), row["mod_revision"])
        for row in _rows("control-plane.json.zst")
    )


@cache
def vectors() -> tuple[Recorded, ...]:
    """Return the vectors that Kubernetes publishes: every kind, all fields set, as protobuf and as JSON."""
    rows = _rows("vectors.json.zst")
    return tuple(Recorded(base64.b64decode(row["stored"]), row["json"], release=row["release"]) for row in rows)


def _rows(name: str) -> list[dict[str, Any]]:
    return list(json.loads(zstandard.ZstdDecompressor().decompress((DATA / name).read_bytes())))


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    """Wrap a kind's message as the API server does."""
    unknown: Any = schema.message_class("runtime.Unknown")()
    unknown.f1.f1, unknown.f1.f2, unknown.f2 = api_version, kind, raw
    unknown.f3 = unknown.f4 = ""
    return b"k8s\x00" + bytes(unknown.SerializeToString())


def message(api_version: str, kind: str) -> Any:
    """Return an empty message of a kind, to be filled by field numbers: ``message("v1", "Pod").f2.f1``."""
    return schema.message_class(schema.kinds()[f"{api_version} {kind}"])()


def stored(api_version: str, kind: str, filled: Any = None) -> bytes:
    """Return a stored value; without a message, one that has only the name ``a`` and the namespace ``b``."""
    if filled is None:
        filled = message(api_version, kind)
        filled.f1.f1, filled.f1.f3 = "a", "b"
    return envelope(api_version, kind, filled.SerializeToString())


def wire_field(number: int, data: bytes | int) -> bytes:
    """Encode one field by hand, for what no schema has."""
    if isinstance(data, int):
        return _varint(number << 3) + _varint(data)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])
