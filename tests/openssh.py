"""A real OpenSSH server on loopback, for the length of a test."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from etcdkeep.adapters.ssh.node import NodeTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
USER = getpass.getuser()
HOST_KEY_KINDS = ("ed25519", "ecdsa", "rsa")
LISTENS_WITHIN_S = 10.0

needs_sshd = pytest.mark.skipif(
    not os.access(SSHD, os.X_OK), reason="needs OpenSSH's sshd: apt-get install openssh-server"
)


@dataclass(frozen=True)
class Sshd:
    """
    A running server; `USER` may log in with `key`.

    :param host_keys: Lines ``type base64 comment``, in the order of `HOST_KEY_KINDS`.
    """

    address: str
    port: int
    key: bytes
    host_keys: tuple[str, ...]
    log: Path
    pid: int

    def target(self, *lines: str, user: str = USER) -> NodeTarget:
        return NodeTarget(self.address, self.port, user, lines or self.host_keys)

    def logins(self) -> int:
        """Return how often somebody logged in with a key."""
        return self.log.read_text().count("Accepted publickey")

    def cut(self) -> None:
        """End every connection, but nothing that was started over one."""
        subprocess.run(["pkill", "-KILL", "-P", str(self.pid)], check=True)


@contextmanager
def running_sshd(
    folder: Path,
    address: str,
    port: int,
    key: Path,
    *options: str,
    environment: str | None = None,
    kinds: tuple[str, ...] = HOST_KEY_KINDS,
) -> Iterator[Sshd]:
    """
    Run sshd with host keys of its own.

    :param folder: For its keys, configuration and log; made here.
    :param key: File with the private key that lets `USER` in; its public half lies beside it.
    :param options: Further lines of its configuration.
    :param kinds: Of its host keys.
    :param environment: In place of the line that sets HOME; sshd takes one only.
    """
    folder.mkdir(mode=0o700)
    for kind in kinds:
        make_key(folder / f"host_{kind}", kind)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    lines = [
        f"ListenAddress {address}:{port}",
        *(f"HostKey {folder}/host_{kind}" for kind in kinds),
        f"AuthorizedKeysFile {key}.pub",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        environment or f"SetEnv HOME={folder}",  # bash would read the user's .bashrc at each command
        *options,
    ]
    (folder / "config").write_text("\n".join(lines) + "\n")
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "config"], stderr=log) as process,
    ):
        try:
            _wait_until_it_listens(address, port, process, folder / "log")
            host_keys = tuple((folder / f"host_{kind}.pub").read_text() for kind in kinds)
            yield Sshd(address, port, key.read_bytes(), host_keys, folder / "log", process.pid)
        finally:
            process.terminate()


def make_key(path: Path, kind: str) -> None:
    """Make a key without passphrase, and its public half beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-m", "PEM", "-f", path], check=True)


def _wait_until_it_listens(address: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + LISTENS_WITHIN_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((address, port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError(f"sshd does not listen on {address}:{port}: {log.read_text()[-500:]}")
        time.sleep(0.05)
