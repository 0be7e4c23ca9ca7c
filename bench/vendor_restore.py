"""
The vendor's restore of an admin cluster (PROCEDURE.md) as a script runs it: its commands, in its order, over ``ssh``.

It differs from the page where the lab does, or where the page destroys: the snapshot is restored by the node's own etcdctl,
as newer releases have it; old data is set aside, where the page removes it; a failed command ends the script. The page says
"wait until they are really gone" without a time, so the script asks five times a second; it prescribes no other pause.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lab.site import ClusterHandle, NodeHandle
    from lab.site import Site as LabSite

STOPS = "stops"
NODE, JUMP = "node", "jump"


@dataclass(frozen=True)
class VendorRestore:
    """
    One admin's workstation.

    :param plain: Folder with what the admin has at hand: ``etcd.db``, and the PKI in ``pki/``.
    :param ssh_config: What `ssh` needs to reach the node.
    """

    plain: Path
    ssh_config: Path
    node: NodeHandle

    @classmethod
    def prepare(cls, lab: LabSite, cluster: ClusterHandle, plain: Path, folder: Path) -> VendorRestore:
        """Write what `ssh` needs: addresses, key, and the hosts' own keys."""
        known_hosts = folder / "known_hosts"
        known_hosts.write_text("".join(f"{line}\n" for host in (lab.jump, cluster.node.ssh) for line in host.key_lines))
        config = folder / "ssh_config"
        config.write_text(
            f"Host {JUMP}\n  HostName {lab.jump.address}\n  Port {lab.jump.port}\n"
            f"Host {NODE}\n  HostName {cluster.node.ssh.address}\n  Port {cluster.node.ssh.port}\n  ProxyJump {JUMP}\n"
            f"Host *\n  User {lab.ssh_user}\n  IdentityFile {lab.ssh_key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known_hosts}\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        )
        return cls(plain, config, cluster.node)

    def run(self) -> float:
        """Restore, up to the moment when the manifests are back, and return when the first thing was stopped (epoch)."""
        with (self.plain / "etcd.db").open("rb") as snapshot:
            subprocess.run(self._ssh("cat > snapshot.db"), stdin=snapshot, check=True)
        subprocess.run(self._ssh(f"set -e; sudo cp snapshot.db {self.node.view}/mnt/; mkdir backup"), check=True)
        archive = subprocess.run(["tar", "-C", self.plain / "pki", "-cf", "-", "."], stdout=subprocess.PIPE, check=True)
        subprocess.run(self._ssh("tar -C backup -xf -"), input=archive.stdout, check=True)
        said, stopped_at = [], 0.0
        with subprocess.Popen(
            self._ssh(self._script()), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as script:
            for line in script.stdout or ():
                said.append(line)
                stopped_at = time.time() if line.strip() == STOPS else stopped_at
        if script.returncode:
            raise RuntimeError(f"the vendor's commands ended with {script.returncode}: {''.join(said)[-1000:]}")
        return stopped_at

    def clear(self) -> None:
        """Remove what it left on the node."""
        home = self.node.root / "home/ubuntu"
        for path in (home / "snapshot.db", self.node.root / "mnt/snapshot.db"):
            path.unlink(missing_ok=True)
        for name in ("backup", "aside", "default.etcd"):
            shutil.rmtree(home / name, ignore_errors=True)

    def _ssh(self, command: str) -> Sequence[str]:
        return ("ssh", "-F", str(self.ssh_config), NODE, f"cd ~ && {command}")

    def _script(self) -> str:
        view = self.node.view
        manifests, pki, data = f"{view}/etc/kubernetes/manifests", f"{view}/etc/kubernetes/pki", f"{view}/var/lib/etcd"
        listing = (
            "sudo crictl ps --quiet --label io.kubernetes.pod.namespace=kube-system --name '^(etcd|kube-apiserver)$'"
        )
        lines = (
            "set -e",
            f"echo {STOPS}",
            f"sudo mv {manifests}/etcd.yaml {view}/tmp/etcd.yaml",
            f"sudo mv {manifests}/kube-apiserver.yaml {view}/tmp/kube-apiserver.yaml",
            f'until [ -z "$({listing})" ]; do sleep 0.2; done',
            f"sudo cp -r backup/* {pki}/",
            f"sudo ETCDCTL_API=3 etcdctl snapshot restore {view}/mnt/snapshot.db",
            f"mkdir aside && sudo mv {data}/member aside/",
            f"sudo mv default.etcd/member {data}/",
            f"sudo mv {view}/tmp/etcd.yaml {manifests}/etcd.yaml",
            f"sudo mv {view}/tmp/kube-apiserver.yaml {manifests}/kube-apiserver.yaml",
        )
        return "\n".join(lines)
