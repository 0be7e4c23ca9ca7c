"""
copy_out of harbor's snapshot against ``kubectl exec … cat | zstd | age > file`` and a bare ``etcdctl snapshot save``.

All three write to the same disk; ours syncs what it wrote, checks length and trailer, and takes the digests for the manifest.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

from bench.report import Row, interleaved
from bench.site import cluster_with, filled_lab
from etcdkeep.backup.cleanup import clean_up
from etcdkeep.backup.copy_out import copy_out
from etcdkeep.backup.discover import discover
from etcdkeep.backup.snapshot import save_snapshot
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
from lab.site import ClusterHandle, kubectl_path

SIZE_MIB = 200


def run(folder: Path) -> list[Row]:
    """Measure and return the rows."""
    with filled_lab(folder, SIZE_MIB) as lab:
        cluster = cluster_with(lab, "harbor", repository=(folder / "copy_out").as_uri())
        site = Site(cluster, FileCredentials())
        discovery = discover(site.api, cluster)
        saved = save_snapshot(site.api, cluster, discovery.candidates, "bench", task="snapshot", attempt=1)
        harbor = lab.clusters["harbor"]
        runs = count()

        def ours() -> float:
            spool = site.spool(f"run-{next(runs)}")
            began = time.monotonic()
            copy_out(site.api, site.open_node, cluster, spool, discovery, saved, attempt=1)
            took_s = time.monotonic() - began
            spool.purge()
            return took_s

        def pipeline() -> float:
            target = folder / "pipeline.age"
            kubectl = [
                str(kubectl_path()),
                "exec",
                "-n",
                cluster.namespace,
                saved.pod,
                "-c",
                cluster.control_plane.container,
            ]
            sealing = ["age", "-r", cluster.age_recipients[0], "-o", str(target)]
            words = " | ".join(
                shlex.join(part) for part in ([*kubectl, "--", "cat", saved.path], ["zstd", "-q"], sealing)
            )
            took_s = _timed(["bash", "-o", "pipefail", "-c", words], harbor)
            target.unlink()
            return took_s

        def bare() -> float:
            target = folder / "bare.db"
            ca, certificate, key = harbor.etcd_tls
            tls = ["--cacert", str(ca), "--cert", str(certificate), "--key", str(key)]
            etcdctl = str(Path(sys.executable).with_name("etcdctl"))
            took_s = _timed(
                [etcdctl, "--endpoints", harbor.etcd_endpoints[0], *tls, "snapshot", "save", str(target)], harbor
            )
            target.unlink()
            return took_s

        try:
            ours_s, pipeline_s, bare_s = interleaved(ours, pipeline, bare)
        finally:
            clean_up(cluster, site.spool("bench"), site.repository.store, discovery, lambda: site.api, site.open_node)
    mib = saved.snapshot.size_bytes / 2**20
    ratio = pipeline_s / ours_s
    return [
        Row("copy_out: exec, checks, zstd, age, fsync", f"{ours_s:.2f} s ({mib / ours_s:.0f} MiB/s)"),
        Row("`kubectl exec … cat | zstd | age > file`", f"{pipeline_s:.2f} s ({mib / pipeline_s:.0f} MiB/s)"),
        Row("throughput of copy_out over the pipeline's", f"{ratio:.2f}×", "≥ 1.0×", ratio >= 1),
        Row("`etcdctl snapshot save` alone, from the member to a file", f"{bare_s:.2f} s ({mib / bare_s:.0f} MiB/s)"),
    ]


def _timed(argv: list[str], harbor: ClusterHandle) -> float:
    environment = {**os.environ, "KUBECONFIG": str(harbor.kubeconfig)}
    began = time.monotonic()
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    took_s = time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"{shlex.join(argv)} ended with {done.returncode}: {done.stderr[-1000:]}")
    return took_s
