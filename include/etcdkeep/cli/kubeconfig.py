"""``kubeconfig``: the administrator's kubeconfig that a restore kept."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from etcdkeep.cli.common import IDENTITY_VARIABLE, open_cluster
from etcdkeep.errors import NotFound, ObjectExists, SecretUnavailable
from etcdkeep.restore.record import RestoreRecord, restores_with_kubeconfig
from etcdkeep.say import say
from etcdkeep.sealing.private_file import private_file
from etcdkeep.sealing.seal import unseal

if TYPE_CHECKING:
    from etcdkeep.config.models import Cluster

KUBECONFIG_BYTES = 2**20


@click.command()
@click.argument("cluster")
@click.argument("restore", required=False)
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="New file for it, readable by you only.",
)
def kubeconfig(cluster: str, restore: str | None, target: Path) -> None:
    """Write the kubeconfig that a restore of CLUSTER fetched from its node. Without RESTORE: the newest one's."""
    site = open_cluster(cluster)
    store = site.repository.store
    keys = site.identities()
    if keys is None:
        raise SecretUnavailable(f"the kubeconfig cannot be opened: set {IDENTITY_VARIABLE} to the age identity file.")
    kept = restores_with_kubeconfig(site.repository.records, cluster)
    chosen = restore or (kept[-1] if kept else "")
    if chosen not in kept:
        others = f"available: {', '.join(kept)}." if kept else _where_else(site.cluster)
        raise NotFound(
            f"no kubeconfig of {f'restore {restore!r}' if restore else 'any restore'} of cluster {cluster!r} in {store.url}; {others}"
        )
    with private_file(KUBECONFIG_BYTES) as plain:
        sealed = RestoreRecord(site.repository.records, cluster, chosen).sealed_kubeconfig()
        unseal(io.BytesIO(sealed), plain, keys, size_limit=KUBECONFIG_BYTES)
        plain.seek(0)
        try:
            with open(target, "xb", opener=_private) as file:
                file.write(plain.read())
        except FileExistsError as err:
            raise ObjectExists(f"{target} already exists; nothing was written. Give a new file.") from err
    say(f"{target}: cluster {cluster}, as of {chosen}")


def _where_else(cluster: Cluster) -> str:
    """Return where a kubeconfig is when no restore kept one."""
    if not cluster.control_plane.has_nodes:
        return "none is kept of a kubeception cluster, which keeps its own."
    return (
        "no restore has kept one. The kubeconfig that the cluster was backed up with is in the backup: "
        f"`python -m etcdkeep unseal {cluster.name} --to FOLDER`, access/kubeconfig."
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
