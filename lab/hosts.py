"""The site's SSH hosts: where they listen, and the keys they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.layout import Layout

HOST_KEY_KINDS = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256"}


@dataclass(frozen=True)
class SshHost:
    """
    Where an SSH server is.

    :param key_lines: Its host keys, as ``known_hosts`` has them: ``[address]:port type base64``.
    """

    name: str
    address: str
    port: int
    key_lines: tuple[str, ...]


def ssh_host(layout: Layout, name: str, address: str, port: int) -> SshHost:
    """Return a host with its public keys."""
    lines = []
    for kind in HOST_KEY_KINDS:
        algorithm, blob = (layout.keys / "host" / f"{name}_{kind}.pub").read_text().split()[:2]
        lines.append(f"[{address}]:{port} {algorithm} {blob}")
    return SshHost(name, address, port, tuple(lines))
