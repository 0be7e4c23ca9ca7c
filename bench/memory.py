"""Peak memory of copy_out and verify, for a small and a large snapshot, each in a fresh process."""

from __future__ import annotations

import hashlib
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report import Row
from etcdkeep.adapters.kube.client import KubeApiClient
from etcdkeep.adapters.kube.config import open_kubeconfig
from etcdkeep.adapters.kube.exec_protocol import CLOSE, STDIN
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.backup.copy_out import copy_out
from etcdkeep.backup.discover import Discovery
from etcdkeep.backup.snapshot import TRAILER_BYTES, SavedSnapshot
from etcdkeep.backup.spool import Spool
from etcdkeep.config.loading import parse_config
from etcdkeep.naming import ETCD_ARTIFACT
from etcdkeep.records import trust_for_all
from etcdkeep.sealing.age_keys import generate_identity, parse_identities
from etcdkeep.sets.backup_set import BackupSet
from etcdkeep.sets.manifest import BackupRun, Identity, Manifest, Member, SnapshotFacts
from etcdkeep.sets.repository import Repository
from etcdkeep.snapshot import open_snapshot
from etcdkeep.verify.run import verify_set
from tests.etcd import running_etcd
from tests.exec_server import STDOUT, SUCCESS, Certificates, ExecServer, Peer, close, frame, running, status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.config.models import Cluster

SIZES_MIB = (64, 4096)
GROWTH_MAX_MIB = 20
FRAME_BYTES = 32 * 1024
END_OF_STDIN = bytes((CLOSE, STDIN))
VALUE_BYTES = 64 * 1024
VALUES_PER_TRANSACTION = 16
BLOCK = os.urandom(2**19) + bytes(2**19)
"""One MiB, half of which cannot be compressed."""


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    text, recipient = generate_identity()
    cluster = _cluster(recipient)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        with _exec_server(scratch) as kubeconfig:
            copied = [_peak_mib(_copy_out, scratch, cluster, kubeconfig, size) for size in SIZES_MIB]
        verified = [_peak_mib(_verify, scratch, cluster, text, _snapshot(folder, size)) for size in SIZES_MIB]
    return [_row("copy_out", copied), _row("verify", verified)]


def _row(what: str, peaks_mib: list[float]) -> Row:
    growth = peaks_mib[1] - peaks_mib[0]
    measured = f"{peaks_mib[0]:.0f} → {peaks_mib[1]:.0f} MiB: {growth:+.1f} MiB"
    return Row(
        f"{what}: peak of the resident set, 64 MiB → 4 GiB of snapshot",
        measured,
        f"< +{GROWTH_MAX_MIB} MiB",
        growth < GROWTH_MAX_MIB,
    )


def _peak_mib(work: Callable[..., None], *arguments: object) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, work, *arguments).result()


def _measured(work: Callable[..., None], *arguments: object) -> float:
    work(*arguments)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _copy_out(scratch: Path, cluster: Cluster, kubeconfig: dict[str, Any], size_mib: int) -> None:
    discovery = Discovery(identity=_IDENTITY, versions={}, members=(Member(name="cp-0", pod="etcd-cp-0", node="cp-0"),))
    saved = SavedSnapshot(pod="etcd-cp-0", path=f"/{size_mib}", snapshot=_reported(size_mib * 2**20))
    spool = Spool(DirectoryStore(scratch / "spool"), cluster.name, f"run-{size_mib}", cluster.age_recipients)
    api = KubeApiClient(open_kubeconfig(kubeconfig))
    copy_out(api, _no_node, cluster, spool, discovery, saved, attempt=1)
    spool.purge()


def _verify(scratch: Path, cluster: Cluster, identity: str, snapshot: Path) -> None:
    store = DirectoryStore(scratch / "repository")
    with open_snapshot(snapshot) as opened:
        facts = opened.status()
    reported = _reported(facts.size_bytes, facts.hash, facts.revision, facts.total_keys)
    spool = Spool(store, cluster.name, snapshot.stem, cluster.age_recipients)
    with snapshot.open("rb", buffering=0) as plain:
        artifact = spool.seal(ETCD_ARTIFACT, "etcd", iter(lambda: plain.read(2**18), b""))
    manifest = Manifest(
        cluster=cluster.name, profile=cluster.profile, backup_id=snapshot.stem, taken_at=reported.taken_at,
        revision=reported.revision, run=BackupRun(dag_id="bench", run_id="bench"), identity=_IDENTITY, versions={},
        members=(), snapshot=reported, artifacts=(artifact,), signing_key="",
    )  # fmt: skip
    found = BackupSet(cluster.name, snapshot.stem, manifest, b"", b"", ())
    record = verify_set(Repository(store, trust_for_all(())), cluster, found, parse_identities(identity.encode()))
    if record.problems:
        raise RuntimeError(f"{snapshot} does not verify: {record.problems}")
    spool.purge()


_IDENTITY = Identity(kube_system_uid="", namespace_uid="", etcd_cluster_id="")


def _reported(size_bytes: int, hash_: int = 0, revision: int = 1, total_keys: int = 0) -> SnapshotFacts:
    return SnapshotFacts(
        member="cp-0", taken_at=datetime.now(UTC), hash=hash_, revision=revision, total_keys=total_keys,
        size_bytes=size_bytes, tool="etcdctl", tool_version="3.5.16",
    )  # fmt: skip


def _no_node(address: str) -> Any:
    raise RuntimeError(f"nobody asked for node {address}")


def _cluster(recipient: str) -> Cluster:
    text = f"""
schema_version: 1
clusters:
- name: bench
  profile: kubeadm
  kubeconfig: {{path: /unused}}
  repository: file:///unused
  age_recipients: [{recipient}]
  signing: {{public_keys: [q2y4mY0yS1lD0l1x0yN3o8Zb8mS3p2JmG3mVxgk5b0E=]}}
  control_plane: {{has_nodes: false}}
"""
    return parse_config(text, "bench").cluster("bench")


@contextmanager
def _exec_server(scratch: Path) -> Iterator[dict[str, Any]]:
    """Serve ``cat /SIZE_MIB -`` as a file of that size with its SHA-256 behind it, and give the kubeconfig."""
    certificates = Certificates(scratch)
    frames = b"".join(frame(STDOUT + BLOCK[at : at + FRAME_BYTES]) for at in range(0, len(BLOCK), FRAME_BYTES))

    def cat(peer: Peer) -> None:
        size_mib = next(int(value[1:]) for name, value in peer.query if name == "command" and value.startswith("/"))
        digest = hashlib.sha256()
        for _ in range(size_mib):
            digest.update(BLOCK)
            peer.send(frames)
        peer.send(frame(STDOUT + digest.digest()[:TRAILER_BYTES]))
        while peer.receive()[1] != END_OF_STDIN:
            pass
        peer.send(status(SUCCESS), close())
        peer.until_gone()

    with running(ExecServer(certificates, cat)) as server:
        yield certificates.kubeconfig(server.url)


def _snapshot(folder: Path, size_mib: int) -> Path:
    """Return a snapshot with so much data, made once by a real etcd and kept (4 GiB: some minutes)."""
    target = folder / f"large-{size_mib}.db"
    if not target.exists():
        count = size_mib * 2**20 // VALUE_BYTES
        with (
            tempfile.TemporaryDirectory(dir=folder) as data,
            running_etcd(Path(data, "data"), "--quota-backend-bytes", str(8 << 30)) as etcd,
        ):
            for first in range(0, count, VALUES_PER_TRANSACTION):
                numbers = range(first, min(first + VALUES_PER_TRANSACTION, count))
                etcd.put_all(
                    (f"/registry/bench/{number:09d}".encode(), BLOCK[number : number + VALUE_BYTES])
                    for number in numbers
                )
            etcd.snapshot(target)
    return target
