"""
A snapshot of about 400 MB and 200,000 keys, made once by a real etcd and kept for the next benchmark.

Sizes and kinds are those of a busy cluster: many small leases and events, fewer large pods and custom resources;
one key in ten was updated since, one in a hundred deleted.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.etcd import b64, running_etcd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEYS = 200_000
_KINDS = (
    ("leases/kube-node-lease", 350),
    ("events", 600),
    ("configmaps", 1_000),
    ("secrets", 1_200),
    ("endpointslices", 800),
    ("pods", 4_200),
    ("onprem.cluster.gke.io/machines", 1_500),
)
_KEYS_PER_TRANSACTION = 10


def bench_dir() -> Path:
    """Where benchmarks keep their files: ``$BENCH_DIR``, or a directory of the system's temporary files."""
    directory = Path(os.environ.get("BENCH_DIR") or Path(tempfile.gettempdir(), "etcdkeep-bench"))
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def snapshot_file(keys: int = KEYS) -> Path:
    """Return the snapshot with so many keys, made at the first call (about a minute)."""
    return made_once(f"snapshot-{keys}.db", _transactions(keys))


def made_once(name: str, transactions: Iterable[list[dict[str, object]]]) -> Path:
    """Return a snapshot that is kept under a name; at the first call an etcd makes it of these transactions."""
    target = bench_dir() / name
    if not target.exists():
        with (
            tempfile.TemporaryDirectory(dir=bench_dir()) as data,
            running_etcd(Path(data, "data"), "--quota-backend-bytes", str(8 << 30)) as etcd,
        ):
            print(f"making {target} ...", flush=True)
            for requests in transactions:
                etcd.call("kv/txn", {"success": requests})
            etcd.snapshot(target)
    return target


def bench_key(number: int) -> bytes:
    """The key that was put as the `number`-th."""
    kind, _ = _KINDS[number % len(_KINDS)]
    return f"/registry/{kind}/namespace-{number % 397:03d}/object-{number * 7919 % 1_000_003:07d}".encode()


def _transactions(keys: int) -> Iterator[list[dict[str, object]]]:
    chance = random.Random(20261123)
    noise = chance.randbytes(1 << 20)

    def put(number: int) -> dict[str, object]:
        size = int(_KINDS[number % len(_KINDS)][1] * chance.uniform(0.6, 1.4))
        start = chance.randrange(len(noise) - size)
        return {"request_put": {"key": b64(bench_key(number)), "value": b64(b"k8s\0" + noise[start : start + size])}}

    for first in range(0, keys, _KEYS_PER_TRANSACTION):
        yield [put(number) for number in range(first, min(first + _KEYS_PER_TRANSACTION, keys))]
    for number in chance.sample(range(keys), keys // 10):
        yield [put(number)]
    for number in chance.sample(range(keys), keys // 100):
        yield [{"request_delete_range": {"key": b64(bench_key(number))}}]
