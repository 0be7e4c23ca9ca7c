"""Values that somebody altered: an object or a clear error, and nothing else."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.errors import ValueDamaged, ValueEncrypted
from etcdkeep.objects.decoding.decode import decode
from etcdkeep.objects.decoding.exact_json import dumps, loads
from tests.kubernetes_values import control_plane, envelope, vectors

SEEDS = [recorded.stored for recorded in (*vectors(), *control_plane())]
KINDS = [(recorded.json["apiVersion"], recorded.json["kind"]) for recorded in vectors()]


def survives(value: bytes) -> None:
    with contextlib.suppress(ValueDamaged, ValueEncrypted):
        found = decode(b"/registry/pods/b/a", value, mod_revision=7)
        assert loads(dumps(found.json)) is not None


@given(st.binary())
def test_any_bytes(value: bytes) -> None:
    survives(value)


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_any_message(kind: tuple[str, str], raw: bytes) -> None:
    survives(envelope(*kind, raw))


@given(st.sampled_from(SEEDS), st.data())
def test_altered_value(seed: bytes, data: st.DataObject) -> None:
    value = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 4))):
        if value:
            start = data.draw(st.integers(0, len(value) - 1))
            value[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    survives(bytes(value))


@given(st.binary())
def test_any_cbor(value: bytes) -> None:
    survives(b"\xd9\xd9\xf7" + value)
