"""
This machine as a control-plane node: real files, real coreutils, real etcdutl, docker where it is; kubelet, crictl and
curl are small fakes.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etcdkeep.errors import CommandFailed, CommandMissing
from etcdkeep.ports import CommandResult, KubeApi, StreamLimits
from tests.docker_engine import docker_environment
from tests.etcd import etcd_program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FAKES = {
    "sudo": '[ "$1" = -n ] && shift\nexec "$@"',
    "ssh": 'for last; do :; done\nexec sh -c "$last"',
    "chown": "exit 0",
    "ctr": "exit 127",
    "nerdctl": "exit 127",
    "kubelet-stop": 'rm -f "$NODE/kubelet"',
    "kubelet-start": 'touch "$NODE/kubelet" "$NODE/running"; "$NODE/bin/note-data"',
    "kubelet-running": 'test -e "$NODE/kubelet"',
    "note-data": 'ls "$NODE/var/lib/etcd/member" > "$NODE/started-with"',
    "crictl": """case $* in
*json) echo '{"containers": []}' ;;
ps*) [ -e "$NODE/running" ] && echo c1; exit 0 ;;
stop*) rm -f "$NODE/running" ;;
logs*) exit 0 ;;
esac""",
    "curl": '[ -e "$NODE/running" ] || exit 7\ncase $* in *readyz) printf ok ;; *) echo \'{"health":"true"}\' ;; esac',
}


class Killed(BaseException):
    """The worker is gone; nothing of ours may catch it."""


@dataclass
class LocalNode:
    """
    A node below `root`; implements :class:`~etcdkeep.ports.CommandRunner`.

    :param die_at: The command at which everything of ours ends, as by a kill; 0 for never.
    """

    root: Path
    die_at: int = 0
    count: int = 0
    where: str = "node cp-0"

    def prepare(self) -> None:
        """Lay out a running control plane."""
        (self.root / "bin").mkdir()
        for name, script in FAKES.items():
            path = self.root / "bin" / name
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)
        (self.root / "bin/etcdutl").symlink_to(etcd_program("etcdutl"))
        (self.data / "member").mkdir(parents=True)
        (self.data / "member/live").write_text("the live data")
        self.pki.mkdir(parents=True)
        (self.pki / "ca.crt").write_text("live ca")
        (self.pki / "only-live.crt").write_text("kept")
        for flag in ("kubelet", "running"):
            (self.root / flag).touch()

    @property
    def data(self) -> Path:
        """etcd's data folder."""
        return self.root / "var/lib/etcd"

    @property
    def pki(self) -> Path:
        """The PKI folder."""
        return self.root / "etc/kubernetes/pki"

    @property
    def environment(self) -> dict[str, str]:
        """What programs of the node see."""
        own = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "NODE": str(self.root), "LC_ALL": "C"}
        return own | docker_environment()

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        """Run as SSH would: the words go through a shell."""
        self.count += 1
        if self.count == self.die_at:
            raise Killed
        done = subprocess.run(
            ["sh", "-c", shlex.join(argv)],
            input=stdin,
            capture_output=True,
            timeout=limits.deadline_s,
            env=self.environment,
            check=False,
        )
        if done.returncode == 127:
            raise CommandMissing(done.stderr.decode())
        if done.returncode:
            raise CommandFailed(
                f"{argv}: {done.stderr.decode()}", exit_code=done.returncode, stderr_tail=done.stderr.decode()
            )
        return CommandResult(done.stdout, done.stderr.decode())

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        """Not used by a restore."""
        yield self.run(argv, limits).stdout


@dataclass
class LocalWorld:
    """One node, and a folder as ``unseal`` leaves it."""

    node: LocalNode
    folder: Path

    def runner(self, place: str) -> LocalNode:
        del place
        return self.node

    def api(self) -> KubeApi:
        raise AssertionError("no plan for nodes asks the API")

    def artifact(self, name: str) -> Iterator[bytes]:
        with open(self.folder / name, "rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk


def write_keys_archive(path: Path) -> None:
    """Write a node archive with a PKI."""
    source = path.with_suffix(".d")
    (source / "pki/etcd").mkdir(parents=True)
    (source / "pki/ca.crt").write_text("ca of the backup")
    (source / "pki/etcd/ca.key").write_text("key")
    (source / "pki/etcd/ca.key").chmod(0o600)
    with tarfile.open(path, "w") as archive:
        archive.add(source / "pki", "pki")
