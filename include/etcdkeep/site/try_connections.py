"""
Tries all that a cluster's entry refers to: API, nodes, stores and keys. Nothing is changed but a small object that is
written to each store and deleted again.
"""

from __future__ import annotations

import io
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from etcdkeep.backup.discover import discover
from etcdkeep.config.copies import BUCKETS, scheme
from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.documents import read, write
from etcdkeep.errors import AccessDenied, ConfigError, EtcdkeepError
from etcdkeep.ports import StreamLimits
from etcdkeep.records import PURPOSES
from etcdkeep.sealing.seal import opens, seal, unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.backup.discover import Discovery
    from etcdkeep.config.access import JumpHost, SecretRef, Ssh
    from etcdkeep.config.copies import Copy
    from etcdkeep.ports import CommandRunner, ObjectStore
    from etcdkeep.site.site import Site

AS_ROOT = (("cat", "/dev/null"), ("find", "/dev/null"), ("tar", "--version"))
"""What a backup runs on a node through sudo, with nothing to do."""

PROBE = b"written by `config check --connections`; may be deleted\n"


@runtime_checkable
class MayReplace(Protocol):
    """A store whose server may ignore that an object is not to be replaced."""

    def refuses_to_replace(self, name: str) -> bool: ...


@dataclass(frozen=True)
class Tried:
    """
    One thing that was tried.

    :param by: Where the configuration says that it comes from.
    :param said: What was found; why it was not tried when `ok` is None.
    :param error: Why it does not work.
    """

    what: str
    by: str
    said: str = ""
    ok: bool | None = True
    error: EtcdkeepError | None = None


def try_connections(site: Site) -> Iterator[Tried]:
    """Yield what came of each connection of a cluster; one that fails does not keep the others from being tried."""
    found: list[Discovery] = []
    kubeconfig = site.cluster.kubeconfig
    if kubeconfig is not None:
        by = where(kubeconfig)
        answer = _try("API reached", by, lambda: f"version {site.api.version()}")
        yield answer
        if answer.ok:
            yield _try("API rights", by, lambda: _look(site, found))
        else:
            yield Tried("API rights", by, "the API was not reached", None)
    if site.cluster.own_kubeconfig is not None:
        yield _try("own API rights", where(site.cluster.own_kubeconfig), lambda: _own_version(site))
    yield from _nodes(site, found[0] if found else None)
    yield from _stores(site)
    yield from _keys(site)


def where(ref: SecretRef) -> str:
    """Return where a reference leads."""
    if ref.connection:
        return f"connection {ref.connection}"
    secret = getattr(ref, "secret", None)
    return f"file {ref.path}" if ref.path else f"Secret {secret}" if secret else "in_cluster"


def _try(what: str, by: str, work: Callable[[], str]) -> Tried:
    try:
        return Tried(what, by, work())
    except EtcdkeepError as err:
        return Tried(what, by, str(err), False, err)


# --- API -----------------------------------------------------------------------------------------------------------


def _own_version(site: Site) -> str:
    site.own_api.get("/api/v1/namespaces/kube-system")
    return f"version {site.own_api.version()}"


def _look(site: Site, found: list[Discovery]) -> str:
    """Do what a backup begins with: namespaces, pods and nodes are read, etcdctl is run in each etcd pod."""
    discovery = discover(site.api, site.cluster)
    found.append(discovery)
    return f"{len(discovery.members)} etcd member(s), {len(discovery.candidates)} can give a snapshot"


# --- nodes ---------------------------------------------------------------------------------------------------------


def _nodes(site: Site, discovery: Discovery | None) -> Iterator[Tried]:
    ssh = site.cluster.ssh
    if not (site.cluster.control_plane.has_nodes or ssh.addresses):
        return
    if ssh.jump is not None:
        yield _try("SSH jump host", _login_of(ssh.jump, ssh), lambda: _log_in_to_jump_host(site))
    members = discovery.members if discovery else ()
    nodes = {member.node: member.address for member in members if member.node and member.address} or dict(ssh.addresses)
    if not nodes:
        yield Tried("SSH nodes", _login_of(ssh), "the API did not say where they are", None)
    for name, address in sorted(nodes.items()):
        yield from _node(site, name, address)


def _node(site: Site, name: str, address: str) -> Iterator[Tried]:
    by, reached = _login_of(site.cluster.ssh), False
    try:
        with site.open_node(address) as shell:
            reached = True
            yield Tried(f"SSH node {name}", by, f"{shell.where}: host key and login")
            yield _try(f"sudo on {name}", by, lambda: _run_as_root(shell, site.cluster.limits.command_s))
    except EtcdkeepError as err:
        if not reached:
            yield Tried(f"SSH node {name}", by, str(err), False, err)


def _log_in_to_jump_host(site: Site) -> str:
    with site.open_jump_host() as name:
        return f"{name}: host key and login"


def _run_as_root(shell: CommandRunner, limit_s: float) -> str:
    for argv in AS_ROOT:
        shell.run((*SUDO, *argv), StreamLimits(limit_s))
    return f"runs {', '.join(argv[0] for argv in AS_ROOT)}"


def _login_of(host: Ssh | JumpHost, otherwise: Ssh | None = None) -> str:
    if host.connection:
        return f"connection {host.connection}"
    if host.key is not None and not (host.password_file and "key" not in host.model_fields_set):
        return where(host.key)
    if host.password_file:
        return f"file {host.password_file}"
    return _login_of(otherwise) if otherwise else "-"


# --- stores --------------------------------------------------------------------------------------------------------


def _stores(site: Site) -> Iterator[Tried]:
    cluster = site.cluster
    apart = cluster.spool is not None and not cluster.spool.startswith(cluster.repository.rstrip("/") + "/")
    by = _account_of(cluster.repository, cluster.repository_connection)
    yield _try("repository", by, lambda: _use(site.repository.store, may_keep=apart))
    if apart:
        by = _account_of(cluster.spool_url, cluster.repository_connection)
        yield _try("spool", by, lambda: _use(site.spool("connection-check").store, may_keep=False))
    for copy in cluster.copies:
        by = _account_of(copy.repository, copy.connection)
        yield _try("copy", by, partial(_use_copy, site, copy))


def _account_of(url: str, connection: str | None) -> str:
    if scheme(url) not in BUCKETS:
        return url
    return f"connection {connection}" if connection else "default credentials"


def _use_copy(site: Site, copy: Copy) -> str:
    return _use(site.store_at(copy.repository, copy.connection), may_keep=True)


def _use(store: ObjectStore, *, may_keep: bool) -> str:
    """
    List, write, read and delete.

    :param may_keep: Whether it is good enough when nothing can be deleted, as with a repository whose spool lies elsewhere.
    """
    name = f".connection-check/{secrets.token_hex(8)}"
    next(iter(store.list()), None)
    write(store, name, PROBE)
    try:
        if read(store, name) != PROBE:
            raise EtcdkeepError(f"{name} in {store.url} is read otherwise than it was written. Ask who runs the store.")
        if isinstance(store, MayReplace) and not store.refuses_to_replace(name):
            raise ConfigError(
                f"{store.url}: the server replaces an object although it is asked not to (If-None-Match). Use a store that has "
                "conditional writes."
            )
    finally:
        kept = _remove(store, name, may_keep=may_keep)
    return f"{store.url}: list, write, read" + (f"; nothing can be deleted, {name} stays" if kept else ", delete")


def _remove(store: ObjectStore, name: str, *, may_keep: bool) -> bool:
    try:
        store.delete(name)
        store.purge(name.rpartition("/")[0])
    except AccessDenied:
        if not may_keep:
            raise
        return True
    return False


# --- keys ----------------------------------------------------------------------------------------------------------


def _keys(site: Site) -> Iterator[Tried]:
    identity = site.cluster.age_identity
    if identity is None:
        yield Tried("age identity", "-", "not configured: verify stops at `stored`, no drills and restores", None)
    else:
        yield _try("age identity", where(identity), lambda: _open_sealed(site))
    if site.cluster.index_identity is not None:
        yield _try("index identity", where(site.cluster.index_identity), lambda: _open_index(site))
    by_place: dict[str, list[str]] = {}
    for purpose in PURPOSES:
        key = site.cluster.signing.for_purpose(purpose).key
        by_place.setdefault(where(key) if key else "-", []).append(purpose)
    for place, purposes in by_place.items():
        said = ", ".join(purposes)
        if place == "-":
            yield Tried("signing key", place, f"not configured for {said}", None)
        else:
            yield _try("signing key", place, lambda purposes=purposes: _sign(site, purposes))  # type: ignore[misc]


def _open_sealed(site: Site) -> str:
    sealed, opened = io.BytesIO(), io.BytesIO()
    seal([PROBE], sealed, site.cluster.age_recipients)
    unseal(io.BytesIO(sealed.getvalue()), opened, site.identities() or [], size_limit=len(PROBE))
    return f"opens what is sealed to age_recipients ({len(site.cluster.age_recipients)})"


def _open_index(site: Site) -> str:
    identities, recipients = site.index_identities() or [], site.cluster.index_recipients
    if not recipients or not opens(identities, recipients):
        raise ConfigError("no index is sealed to it: add its public key to index_recipients.")
    return f"opens what is sealed to index_recipients ({len(recipients)}), and nothing that is sealed to age_recipients"


def _sign(site: Site, purposes: list[str]) -> str:
    for purpose in PURPOSES:
        if purpose in purposes:
            site.signer(purpose)
    return f"trusted for {', '.join(purposes)}"
