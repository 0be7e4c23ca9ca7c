"""A node of the lab as a real one is reached and equipped: OpenSSH behind a jump host of OpenSSH, docker in place of etcd's tools."""

from __future__ import annotations

import shlex
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.layout import VIEW_FD
from lab.tools import ETCD_TOOLS, python_env
from tests.docker_engine import IMAGE, docker_environment
from tests.etcd import free_ports
from tests.openssh import USER, Sshd, running_sshd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Site
    from lab.site import NodeHandle


@dataclass(frozen=True)
class RealAccess:
    """The two servers."""

    jump: Sshd
    node: Sshd

    @property
    def configuration(self) -> dict[str, Any]:
        """Return what differs in the cluster's entry; the key stays where the lab has it, in the vendor's Secret."""
        jump, node = self.jump, self.node
        way = {"host": jump.address, "port": jump.port, "user": USER, "host_keys": list(jump.host_keys)}
        ssh = {"user": USER, "port": node.port, "host_keys": list(node.host_keys), "jump": way}
        return {"ssh": ssh, "control_plane": {"restore_image": IMAGE}}


@contextmanager
def reached_by_openssh(site: Site, node: NodeHandle, folder: Path) -> Iterator[RealAccess]:
    """Serve the node's commands by a server at its own address, to which the jump host's alone forwards."""
    ports = free_ports(2)
    enter = folder / "enter-node"
    enter.write_text(_entrance(node))
    enter.chmod(0o755)
    forwards = ("ForceCommand /bin/false", f"PermitOpen {node.address}:{ports[1]}")
    runs = (f"ForceCommand {enter}", "AllowTcpForwarding no")
    with (
        running_sshd(folder / "jump", site.jump.address, ports[0], site.ssh_key, *forwards) as jump,
        running_sshd(folder / "node", node.address, ports[1], site.ssh_key, *runs) as served,
    ):
        yield RealAccess(jump, served)


def _entrance(node: NodeHandle) -> str:
    """Return the script that makes a login one to the node: its programs alone, and its own tree under the view."""
    environment = {"PATH": f"{node.view}/usr/local/bin:{node.view}/usr/bin"} | python_env() | docker_environment()
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    root = shlex.quote(str(node.root))
    return "\n".join(
        ["#!/bin/bash", f"exec {VIEW_FD}< {root}", f"cd {root}", *lines, 'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"', ""]
    )


@contextmanager
def docker_alone(node: NodeHandle) -> Iterator[Path]:
    """Give the node the real docker in place of etcd's own tools, for the length of the block; return where it lies."""
    real = shutil.which("docker")
    assert real is not None
    node.set_tools()
    client = node.root / "usr/local/bin/docker"
    client.symlink_to(real)
    try:
        yield client
    finally:
        node.set_tools(*ETCD_TOOLS)
