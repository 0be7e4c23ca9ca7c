"""The etcd programs of a drill: which are good for a backup, and how they are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.errors import DrillImpossible
from etcdkeep.etcd.etcdctl import UTIL_SINCE, version_tuple

if TYPE_CHECKING:
    from pathlib import Path

MEMBER = "drill"
WAL_BYTES = 192 * 2**20
"""Two segments of 64 MiB, which etcd allocates at once, and what else it writes."""
RESTORE_PROGRAMS = ("etcdutl", "etcdctl")
"""The first that is there is taken."""
_VERSION = re.compile(r"(?:etcd|etcdutl|etcdctl) version: v?(\d+\.\d+\.\d+\S*)", re.IGNORECASE)


@dataclass(frozen=True)
class Program:
    """One etcd program of this machine."""

    path: Path
    version: str

    @property
    def words(self) -> str:
        """``etcdutl 3.5.16``."""
        return f"{self.path.name} {self.version}"


@dataclass(frozen=True)
class Programs:
    """What a drill runs."""

    etcd: Program
    restore: Program


@dataclass(frozen=True)
class CredentialFiles:
    """Files with the certificates of one drill's etcd, in PEM."""

    authority: Path
    certificate: Path
    key: Path


def parse_program_version(output: str) -> str | None:
    """Return the version from what ``etcd --version``, ``etcdutl version`` or ``etcdctl version`` prints; None when it is another text."""
    match = _VERSION.search(output)
    return match[1] if match else None


def choose_restore(found: Program | None) -> Program:
    """
    Return what restores.

    :param found: The first of :data:`RESTORE_PROGRAMS` that is there.
    :raises DrillImpossible: when there is none, or only an etcdctl that cannot any more.
    """
    if found is None:
        raise DrillImpossible(f"there is no etcdutl on this worker. {how_to_install()}")
    if found.path.name == "etcdctl" and version_tuple(found.version) >= UTIL_SINCE:
        raise DrillImpossible(
            f"there is no etcdutl on this worker; {found.words} no longer has `snapshot restore`. {how_to_install()}"
        )
    return found


def check_versions(programs: Programs, cluster_version: str) -> list[str]:
    """
    Compare the versions with the cluster's, and return what a reader of the result should know.

    :param cluster_version: Of the etcd that the backup was taken from; empty when it is not known.
    :raises DrillImpossible: when these programs are too old for such a backup.
    """
    etcd, restore = programs.etcd, programs.restore
    if version_tuple(restore.version) > version_tuple(etcd.version):
        raise DrillImpossible(
            f"{restore.words} makes data directories that {etcd.words} may be unable to read. {how_to_install()}"
        )
    if not cluster_version:
        return []
    wanted = version_tuple(cluster_version)
    for program in (etcd, restore):
        if version_tuple(program.version) < wanted:
            raise DrillImpossible(
                f"the backup is of etcd {cluster_version}, and {program.path} is {program.version}: an older etcd cannot be trusted with "
                f"newer data. {how_to_install(cluster_version)}"
            )
    if version_tuple(etcd.version) > wanted:
        return [
            f"drilled with etcd {etcd.version}, but the cluster runs {cluster_version}: a restore will use the cluster's own"
        ]
    return []


def restore_argv(programs: Programs, snapshot: Path, data: Path, peer_url: str) -> tuple[str, ...]:
    """Return the call that makes a data directory of a snapshot."""
    return (
        str(programs.restore.path),
        "snapshot",
        "restore",
        str(snapshot),
        f"--data-dir={data}",
        f"--initial-cluster-token=etcdkeep-{MEMBER}",
        *_membership(peer_url),
    )


def etcd_argv(
    programs: Programs, data: Path, credentials: CredentialFiles, peer_url: str, client_port: int, peer_port: int
) -> tuple[str, ...]:
    """
    Return the call of an etcd that only this drill can speak to: on loopback, by certificates made for it.

    :param peer_url: As at the restore; it need not be where the peer port is now.
    """
    client_url = f"https://127.0.0.1:{client_port}"
    files = (("cert-file", credentials.certificate), ("key-file", credentials.key))
    trust = ("trusted-ca-file", credentials.authority)
    return (
        str(programs.etcd.path),
        f"--data-dir={data}",
        *_membership(peer_url),
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls=https://127.0.0.1:{peer_port}",
        *(f"--{side}{name}={path}" for side in ("", "peer-") for name, path in (*files, trust)),
        # Nobody else votes: no need to wait up to a second for others.
        "--heartbeat-interval=20",
        "--election-timeout=100",
        "--client-cert-auth",
        "--peer-client-cert-auth",
        "--log-level=error",
    )


def how_to_install(version: str = "") -> str:
    """Return the next step where programs are missing or too old; it ends the message."""
    release = ".".join(map(str, version_tuple(version))) if version else "3.5"
    return (
        f"Put etcd and etcdutl of one {release} release on the worker's PATH (in the image: build argument ETCD_IMAGE), or name "
        "their folder in drill.etcd_dir. The backup is not in doubt."
    )


def needed_bytes(snapshot_bytes: int) -> int:
    """Return the room that a drill takes: the snapshot, the data directory made of it, and its write-ahead log."""
    return 2 * snapshot_bytes + WAL_BYTES


def _membership(peer_url: str) -> tuple[str, ...]:
    return f"--name={MEMBER}", f"--initial-cluster={MEMBER}={peer_url}", f"--initial-advertise-peer-urls={peer_url}"
