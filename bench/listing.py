"""Listing 1,000 clusters with 60 backups each in a store that takes 30 ms a request, and 10,000 backups in a directory."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import yaml

from bench.report import Row
from bench.slow_store import SlowStore
from etcdkeep import naming
from etcdkeep.cli.listing import list_sets
from etcdkeep.sealing.digest import Hasher
from etcdkeep.sets.manifest import Stored
from etcdkeep.sets.results import Rehearsal
from tests.builders import (
    make_artifact,
    make_entry,
    make_manifest,
    make_reported,
    make_repository,
    make_signer,
    make_verification,
    signing_pair,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CLUSTERS, NIGHTS = 1_000, 60
READABLE = 3
"""Of each cluster but the first: listing all clusters opens no more, and would fail if it did."""
IN_DIRECTORY = 10_000
LATENCY_S = 0.030
ALL_MAX_S, ONE_MAX_S = 20.0, 0.5
NOW = datetime.now(UTC).replace(microsecond=0)
ARTIFACT = b"sealed"

LIST = """
import re, sys
from pathlib import Path
from etcdkeep.__main__ import main
try:
    main(["list", "cluster-0000"])
finally:  # not getrusage: its peak may be that of the process that started this one
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        every, one = _slow(Path(name))
        few, many = (
            _in_directory(Path(name) / "few", IN_DIRECTORY // 10),
            _in_directory(Path(name) / "many", IN_DIRECTORY),
        )
    return [
        Row(f"`list`: {CLUSTERS:,} clusters × {NIGHTS} backups, {LATENCY_S * 1000:.0f} ms a request, at most {every.at_once} at once", f"{every.seconds:.1f} s, {every.requests:,} requests", f"< {ALL_MAX_S:.0f} s", every.seconds < ALL_MAX_S),
        Row(f"`list CLUSTER` there, at most {one.at_once} at once", f"{one.seconds:.2f} s, {one.requests} requests", f"< {ONE_MAX_S} s", one.seconds < ONE_MAX_S),
        Row(f"`list CLUSTER` of {IN_DIRECTORY // 10:,} backups in a directory, whole process", f"{few.seconds:.1f} s, {few.peak_mib:.0f} MiB"),
        Row(f"`list CLUSTER` of {IN_DIRECTORY:,} backups in a directory, whole process", f"{many.seconds:.1f} s, {many.peak_mib:.0f} MiB"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What one command took."""

    seconds: float
    requests: int = 0
    at_once: int = 0
    peak_mib: float = 0.0


def _slow(folder: Path) -> tuple[Measured, Measured]:
    store = SlowStore(LATENCY_S)
    names = [f"cluster-{number:04}" for number in range(CLUSTERS)]
    for name in names:
        for night in range(NIGHTS):
            put_set(store.put, name, night, readable=name == names[0] or night < READABLE)
    with (
        patch.dict(os.environ, ETCDKEEP_CONFIG=str(_config(folder, names))),
        patch("etcdkeep.site.site.open_store", lambda *_: store),
    ):
        return _listed(store, []), _listed(store, [names[0]])  # fmt: skip


def _listed(store: SlowStore, arguments: list[str]) -> Measured:
    store.requests = store.at_once = 0
    output, began = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(output):
        list_sets.main(arguments, standalone_mode=False)
    seconds = time.monotonic() - began
    expected = NIGHTS if arguments else CLUSTERS
    if output.getvalue().count(" good") != expected:
        raise RuntimeError(f"expected {expected} good backups, found {output.getvalue()[-2000:]}")
    return Measured(seconds, store.requests, store.at_once)


def _in_directory(folder: Path, count: int) -> Measured:
    def put(name: str, data: bytes, size_bytes: int, at: datetime) -> None:
        path = folder / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (at.timestamp(), at.timestamp()))

    for night in range(count):
        put_set(put, "cluster-0000", night, readable=True)
    config = _config(folder, ["cluster-0000"], f"file://{folder}/repository")
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", LIST], env={**os.environ, "ETCDKEEP_CONFIG": str(config)}, capture_output=True, text=True, check=True)  # fmt: skip
    seconds = time.monotonic() - began
    if done.stdout.count(" good") != count:
        raise RuntimeError(f"expected {count} good backups, found {done.stdout[-2000:]}")
    return Measured(seconds, peak_mib=int(done.stderr.split()[-1]) / 1024)


def put_set(put: Callable[[str, bytes, int, datetime], None], cluster: str, night: int, *, readable: bool) -> None:
    """Put a set of that many nights ago, verified and rehearsed; one that is not readable has names alone."""
    at = NOW - timedelta(days=1) * night
    identifier = f"{at:%Y%m%dT%H%M%SZ}-00000000"
    documents = _documents(cluster, identifier, at) if readable else {}
    names = documents or dict.fromkeys(_names(cluster, identifier, at), b"not readable")
    for name, data in names.items():
        put(name, data, len(ARTIFACT if name.endswith(naming.ETCD_ARTIFACT) else data), at + timedelta(minutes=3))


def _names(cluster: str, identifier: str, at: datetime) -> tuple[str, ...]:
    prefix = naming.set_prefix(cluster, identifier)
    records = naming.verification_name(cluster, identifier, at, "pki"), naming.rehearsal_name(cluster, identifier, at)
    return *(prefix + name for name in (naming.MANIFEST, naming.SIGNATURE, naming.ETCD_ARTIFACT)), *records


def _documents(cluster: str, identifier: str, at: datetime) -> dict[str, bytes]:
    """Return a set's objects by name."""
    digest = Hasher()
    digest.update(ARTIFACT)
    artifact = make_artifact(naming.ETCD_ARTIFACT, kind="etcd", stored=Stored(**vars(digest.digest())))
    manifest = make_manifest(
        cluster=cluster, backup_id=identifier, taken_at=at, artifacts=(artifact,), snapshot=make_reported(taken_at=at)
    )
    data, prefix = manifest.to_bytes(), naming.set_prefix(cluster, identifier)
    store = SlowStore(0.0)
    store.put(prefix + naming.MANIFEST, data, len(data), at)
    store.put(prefix + naming.SIGNATURE, make_signer().sign(data), 64, at)
    store.put(prefix + naming.ETCD_ARTIFACT, ARTIFACT, len(ARTIFACT), at)
    repository = make_repository(store)
    found = repository.get(cluster, identifier)
    repository.record(found, make_verification(at=at))
    repository.record_rehearsal(found, Rehearsal(at=at, restorable="yes"))
    return {name: stored for name, (_, stored) in store._objects.items()}


def _config(folder: Path, clusters: list[str], repository: str = "file:///nowhere") -> Path:
    path = folder / "clusters.yaml"
    folder.mkdir(exist_ok=True)
    pem = folder / "signing-key.pem"
    pem.write_bytes(signing_pair()[0])
    signing = {"key": {"path": str(pem)}, "public_keys": [signing_pair()[1]]}
    entries = [{**make_entry(name=name, signing=signing), "repository": repository} for name in clusters]
    path.write_text(yaml.safe_dump({"schema_version": 1, "clusters": entries}))
    return path
