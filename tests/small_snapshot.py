"""A small snapshot that a real etcd made."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from tests.etcd import running_etcd


@cache
def small_snapshot() -> bytes:
    """Return a snapshot file with live, overwritten and deleted keys; made once per session."""
    with tempfile.TemporaryDirectory() as folder, running_etcd(Path(folder) / "data") as etcd:
        for number in range(5):
            etcd.put(b"/registry/configmaps/default/c%d" % number, b"k8s\0" + b"v%d" % number)
        etcd.put(b"/registry/configmaps/default/c0", b"k8s\0again")
        etcd.delete(b"/registry/configmaps/default/c4")
        return etcd.snapshot(Path(folder) / "snapshot.db").read_bytes()
