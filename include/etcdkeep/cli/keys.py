"""``keygen`` and ``trust``: the keys that a configuration refers to."""

from __future__ import annotations

import os
from pathlib import Path

import click

from etcdkeep.adapters.ssh.node import NodeTarget, scan_host_keys
from etcdkeep.backup.discover import etcd_nodes, node_address
from etcdkeep.cli.common import credentials_here
from etcdkeep.config.loading import load_cluster
from etcdkeep.errors import HostKeyUnknown, ObjectExists
from etcdkeep.say import say
from etcdkeep.sealing.age_keys import generate_identity
from etcdkeep.sealing.signature import generate_signing_key
from etcdkeep.site.site import Site

AGE_FILE = "age-identity.txt"
SIGNING_FILE = "signing-key.pem"


@click.command()
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the two private keys.",
)
def keygen(folder: Path) -> None:
    """Make an age identity and a signing key in FOLDER (files 0600), and print what goes into the configuration."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity, recipient = generate_identity()
    pem, public_key = generate_signing_key()
    for name in (AGE_FILE, SIGNING_FILE):
        if (folder / name).exists():
            raise ObjectExists(
                f"{folder / name} exists: a key that backups may need is never overwritten. Give another folder."
            )
    for name, data in ((AGE_FILE, identity.encode()), (SIGNING_FILE, pem)):
        with open(folder / name, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(data)
    say(
        f"# {folder / AGE_FILE} opens every backup: keep a copy where no attacker and no fire reaches both it and the backups."
    )
    say(f"age_recipients: [{recipient}]")
    say(f"age_identity: {{path: {(folder / AGE_FILE).resolve()}}}")
    say(f"signing: {{key: {{path: {(folder / SIGNING_FILE).resolve()}}}, public_keys: [{public_key}]}}")


@click.command()
@click.argument("cluster")
def trust(cluster: str) -> None:
    """Print the SSH host keys of CLUSTER's nodes and jump host, to be compared and put into the configuration."""
    site = Site(load_cluster(cluster), credentials_here())
    ssh = site.ssh
    say("# Compare each fingerprint with the host's own: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub", err=True)
    if ssh.jump:
        say("# ssh.jump.host_keys:")
        jump = ssh.jump
        _print_keys(NodeTarget(jump.host, jump.port, jump.user, (), jump.weak_algorithms, setting="ssh.jump"))
    say("# ssh.host_keys:")
    for node in etcd_nodes(site.api, site.cluster):
        target, way = site.node_target(node_address(site.api, site.cluster, node))
        say(f"# node {node}")
        try:
            _print_keys(target, way)
        except HostKeyUnknown as err:
            raise HostKeyUnknown(
                f"node {node} is behind the jump host {ssh.jump.host if ssh.jump else ''}, which is not trusted yet: put its keys above into "
                "ssh.jump.host_keys, then run this again.",
                line=err.line,
                fingerprint=err.fingerprint,
            ) from err


def _print_keys(target: NodeTarget, jump: tuple[NodeTarget, bytes] | None = None) -> None:
    for key in scan_host_keys(target, jump=jump):
        say(f"# {key.fingerprint}")
        say(f"- {key.line}")
