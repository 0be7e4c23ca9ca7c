"""
A snapshot of about 400 MB and 200,000 Kubernetes objects, made once by a real etcd and kept for the next benchmark.

Each object is one of a real control plane under another name, filled up by an annotation to the size such objects have
in a busy cluster. One key in ten was updated since, one in a hundred deleted.
"""

from __future__ import annotations

import base64
import json
import random
from typing import TYPE_CHECKING, Any

from bench.snapshot_file import made_once
from etcdkeep.objects.decoding import schema
from tests.etcd import b64
from tests.kubernetes_values import control_plane, envelope

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEYS = 200_000
_KINDS = (
    ("leases", "Lease", 350),
    ("events", "Event", 600),
    ("configmaps", "ConfigMap", 1_000),
    ("secrets", "Secret", 1_200),
    ("endpointslices", "EndpointSlice", 800),
    ("pods", "Pod", 4_200),
    ("cluster.k8s.io/clusters", "Cluster", 1_500),
)
_KEYS_PER_TRANSACTION = 20
_FILLER = "bench.etcdkeep/filler"


def object_snapshot(keys: int = KEYS) -> Path:
    """Return the snapshot with so many objects, made at the first call (some minutes)."""
    return made_once(f"objects-{keys}.db", _transactions(keys))


def object_place(number: int) -> tuple[str, str, str]:
    """Return kind, namespace and name of the object that was put as the `number`-th."""
    _, kind, _ = _KINDS[number % len(_KINDS)]
    return kind, f"namespace-{number % 397:03d}", f"object-{number * 7919 % 1_000_003:07d}"


def _transactions(keys: int) -> Iterator[list[dict[str, object]]]:
    chance = random.Random(20261123)
    noise = base64.b64encode(chance.randbytes(1 << 20)).decode()
    templates = {
        kind: next(each for each in control_plane() if each.json and each.json["kind"] == kind) for _, kind, _ in _KINDS
    }

    def key(number: int) -> str:
        folder, _, _ = _KINDS[number % len(_KINDS)]
        _, namespace, name = object_place(number)
        return b64(f"/registry/{folder}/{namespace}/{name}".encode())

    def put(number: int) -> dict[str, object]:
        _, _, usual_bytes = _KINDS[number % len(_KINDS)]
        kind, namespace, name = object_place(number)
        size = int(usual_bytes * chance.uniform(0.6, 1.4))
        start = chance.randrange(len(noise) - size)
        template = templates[kind]
        metadata = {"name": name, "namespace": namespace, "uid": f"{chance.getrandbits(128):032x}"}
        return {"request_put": {"key": key(number), "value": b64(_value(template, metadata, noise[start:], size))}}

    for first in range(0, keys, _KEYS_PER_TRANSACTION):
        yield [put(number) for number in range(first, min(first + _KEYS_PER_TRANSACTION, keys))]
    for number in chance.sample(range(keys), keys // 10):
        yield [put(number)]
    for number in chance.sample(range(keys), keys // 100):
        yield [{"request_delete_range": {"key": key(number)}}]


def _value(template: Any, metadata: dict[str, str], filler: str, size: int) -> bytes:
    room = max(size - len(template.stored), 16)
    if template.stored.startswith(b"{"):
        content = json.loads(template.stored)
        content["metadata"] |= {**metadata, "annotations": {_FILLER: filler[:room]}}
        return json.dumps(content, separators=(",", ":")).encode()
    api_version, kind = template.json["apiVersion"], template.json["kind"]
    unknown: Any = schema.message_class("runtime.Unknown")()
    unknown.ParseFromString(template.stored[4:])
    message: Any = schema.message_class(schema.kinds()[f"{api_version} {kind}"])()
    message.ParseFromString(unknown.f2)
    message.f1.f1, message.f1.f3, message.f1.f5 = metadata["name"], metadata["namespace"], metadata["uid"]
    message.f1.f12[_FILLER] = filler[:room]
    return envelope(api_version, kind, message.SerializeToString())
