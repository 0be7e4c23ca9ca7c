"""
``objects`` on one snapshot of about 400 MB and 200,000 Kubernetes objects, each command in a process of its own.

The yardstick of a list without an index is our own ``status`` of the same file, which reads the same records.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.object_snapshot import KEYS, object_place, object_snapshot
from bench.report import Row, interleaved, print_rows
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.naming import ETCD_ARTIFACT
from etcdkeep.objects.index import index_snapshot
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sealing.seal import seal
from etcdkeep.sealing.signature import load_signing_key
from etcdkeep.sets.manifest import Plaintext, Stored
from etcdkeep.snapshot import open_snapshot
from tests.builders import (
    BACKUP_ID,
    age_pair,
    make_artifact,
    make_entry,
    make_file,
    make_manifest,
    make_repository,
    make_verification,
    signing_pair,
)

TITLE = "objects in a snapshot of 200,000"
CLUSTER = "harbor"
REPETITIONS = 7
_REPOSITORY = Path(__file__).resolve().parent.parent


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    file = object_snapshot()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        environment = publish(Path(scratch), file)
        kind, namespace, name = object_place(KEYS // 2)
        commands = (
            ("status", str(file), "--json"),
            ("objects", "list", str(file)),
            ("objects", "list", CLUSTER),
            ("objects", "stats", CLUSTER),
            ("objects", "diff", CLUSTER, f"{CLUSTER}/{BACKUP_ID}"),
            ("objects", "get", str(file), kind, name, "-n", namespace),
        )
        peaks: dict[str, float] = {}
        status_s, walk_s, list_s, stats_s, diff_s, get_s = interleaved(
            *(lambda command=command: _run(command, environment, peaks) for command in commands),
            repetitions=REPETITIONS,
        )
    ratio, peak_mib = walk_s / status_s, max(peaks.values())
    return [
        Row("file", f"{file.stat().st_size / 1e6:.0f} MB"),
        Row("python -m etcdkeep status FILE", f"{status_s:.2f} s"),
        Row("objects list FILE", f"{walk_s:.2f} s, {ratio:.2f}× status", "≤ 2.00×", ratio <= 2),
        Row("objects list CLUSTER, from the index", f"{list_s:.2f} s", "< 1.00 s", list_s < 1),
        Row("objects stats CLUSTER, from the index", f"{stats_s:.2f} s"),
        Row("objects diff CLUSTER CLUSTER/ID, from two indexes", f"{diff_s:.2f} s"),
        Row("objects get FILE KIND NAME", f"{get_s:.2f} s", "< 0.30 s", get_s < 0.3),
        Row("peak memory of any of them", f"{peak_mib:.0f} MiB", "≤ 150 MiB", peak_mib <= 150),
    ]


def publish(folder: Path, file: Path) -> dict[str, str]:
    """Publish the snapshot as a verified set, and return the environment of a machine that can read it."""
    identity, recipient = age_pair()
    store = DirectoryStore(folder / "repository")
    name = f"{CLUSTER}/{BACKUP_ID}"
    with file.open("rb") as plain, store.create(f"{name}/{ETCD_ARTIFACT}") as sink:
        sealed = seal(iter(lambda: plain.read(1 << 20), b""), sink, [recipient])
    artifact = make_artifact(
        plaintext=Plaintext(size_bytes=sealed.plain_size_bytes, sha256=sealed.plain_sha256),
        stored=Stored(size_bytes=sealed.stored_size_bytes, sha256=sealed.stored_sha256, crc32c=sealed.stored_crc32c),
    )
    manifest = make_manifest(artifacts=(artifact,), versions={"kubernetes": "v1.36.2"}).to_bytes()
    signature = load_signing_key(signing_pair()[0], trusted=[signing_pair()[1]]).sign(manifest)
    for document, data in (("manifest.json", manifest), ("manifest.json.sig", signature)):
        with store.create(f"{name}/{document}") as sink:
            sink.write(data)
    with open_snapshot(file) as snapshot:
        index = index_snapshot(store, name, snapshot, [recipient], parse_identities(identity))
    repository = make_repository(store)
    repository.record(repository.get(CLUSTER, BACKUP_ID), make_verification(index=index))
    (folder / "identity.txt").write_bytes(identity)
    (folder / "clusters.yaml").write_text(make_file(make_entry(repository=store.url)))
    # As an installed program runs: with its modules compiled.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {
        "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        "ETCDKEEP_CONFIG": str(folder / "clusters.yaml"),
        "ETCDKEEP_AGE_IDENTITY": str(folder / "identity.txt"),
        "PYTHONPATH": str(_REPOSITORY / "include"),
    }


def _run(command: tuple[str, ...], environment: dict[str, str], peaks: dict[str, float]) -> float:
    """Run one command and return its seconds; its peak memory in MiB goes to `peaks`."""
    began = time.monotonic()
    argv = (sys.executable, "-m", "etcdkeep", *command)
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    peaks[" ".join(command)] = usage.ru_maxrss / 1024
    return time.monotonic() - began


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own_folder:
        print_rows(TITLE, run(Path(own_folder)))
