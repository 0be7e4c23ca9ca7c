"""Opening a backup set into plain files, for a person with the age identity."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.control_plane.archive import extract_archive
from etcdkeep.errors import IdentityMismatch, NotFound, SealError, SecretUnavailable, VerificationFailed
from etcdkeep.sealing.private_file import private_file, telling_full_disk
from etcdkeep.sealing.seal import unseal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from etcdkeep.ports import ByteSink, ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Artifact, Manifest

SEALED_SUFFIX = ".zst.age"
BLOCK_BYTES = 2**20
ARCHIVE_LIMIT_BYTES = 256 * 2**20
"""A control plane's files come to a few hundred KiB; a larger archive is not one."""


def unseal_set(
    store: ObjectStore,
    found: BackupSet,
    manifest: Manifest,
    identities: Sequence[Identity],
    folder: Path,
    progress: Callable[[int, int], None],
) -> None:
    """
    Write a set's plain files: ``etcd.db``, ``control-plane/``, ``access/``, ``manifest.json``; files 0600, folders 0700.

    Each archive stands beside its folder as it was, ``control-plane.tar``: only there are owners and modes as on the node.

    :param folder: An empty private folder. What is in it after a failure is not to be used.
    :raises VerificationFailed: when an artifact is not what the manifest says.
    :raises NoSpace: when it does not fit.
    """
    done = 0
    for artifact in manifest.artifacts:
        name = f"{naming.set_prefix(found.cluster, found.backup_id)}{artifact.name}"
        path = folder / artifact.name.removesuffix(SEALED_SUFFIX)
        with (
            store.open(name) as stored,
            telling_full_disk(folder, artifact.plaintext.size_bytes),
            open(path, "x+b", opener=_private) as plain,
        ):
            facts = unseal(stored, plain, identities, size_limit=artifact.plaintext.size_bytes)
            _compare(artifact, facts.plain_sha256)
            if artifact.kind != "etcd":
                plain.seek(0)
                extract_archive(plain, path.with_suffix(""), ARCHIVE_LIMIT_BYTES)
        done += artifact.stored.size_bytes
        progress(done, manifest.stored_bytes)
    for name, data in ((naming.MANIFEST, found.manifest_bytes), (naming.SIGNATURE, found.signature)):
        with open(folder / name, "xb", opener=_private) as file:
            file.write(data)


@contextmanager
def open_artifact(
    store: ObjectStore, set_name: str, artifact: Artifact, identities: Sequence[Identity] | None
) -> Iterator[IO[bytes]]:
    """
    Open one artifact's plaintext, in a file that only this process can reach.

    :param set_name: ``cluster/backup-id``.
    :raises SecretUnavailable: when no identity at hand opens it.
    :raises VerificationFailed: when it is not what the manifest says.
    """
    with private_file(artifact.plaintext.size_bytes) as plain:
        _unseal(store, set_name, artifact, identities, plain)
        plain.flush()
        plain.seek(0)
        yield plain


def stream_plaintext(
    store: ObjectStore, found: BackupSet, identities: Sequence[Identity] | None, name: str
) -> Iterator[bytes]:
    """
    Yield an artifact's plaintext as it is unsealed, so that it can travel meanwhile: use it only when all of it has come.

    :param name: As it would have without sealing, such as ``etcd.db``.
    :raises NotFound: when the set has none of that name; else as :func:`open_artifact`.
    """
    artifacts = found.manifest.artifacts if found.manifest else ()
    artifact = next((each for each in artifacts if each.name == name + SEALED_SUFFIX), None)
    if artifact is None:
        raise NotFound(f"backup {found.name} holds no {name}; choose another set (python -m etcdkeep list).")
    reading, writing = os.pipe()

    def work() -> None:
        with open(writing, "wb", BLOCK_BYTES) as plain:
            _unseal(store, found.name, artifact, identities, plain)

    with ThreadPoolExecutor(1, "unseal") as pool, open(reading, "rb") as plain:  # closed early, it ends the work
        unsealing = pool.submit(work)
        while block := plain.read(BLOCK_BYTES):
            yield block
        unsealing.result()


def _unseal(
    store: ObjectStore, set_name: str, artifact: Artifact, identities: Sequence[Identity] | None, sink: ByteSink
) -> None:
    """Write an artifact's plaintext; see :func:`open_artifact` for what it raises."""
    if identities is None:
        raise SecretUnavailable(
            f"{set_name} cannot be opened: no age_identity is configured here. Run it on a worker that has one (verify_queue); "
            "on the command line, set ETCDKEEP_AGE_IDENTITY to the age identity file."
        )
    try:
        with store.open(f"{set_name}/{artifact.name}") as stored:
            facts = unseal(stored, sink, identities, size_limit=artifact.plaintext.size_bytes)
    except IdentityMismatch as err:
        raise SecretUnavailable(
            f"{set_name}/{artifact.name}, sealed to {', '.join(artifact.recipients)}: {err}"
        ) from err
    except SealError as err:
        raise VerificationFailed(
            f"{set_name}/{artifact.name} cannot be used; choose another set.", (str(err),)
        ) from err
    _compare(artifact, facts.plain_sha256)


def _compare(artifact: Artifact, sha256: str) -> None:
    if sha256 != artifact.plaintext.sha256:
        raise VerificationFailed(
            f"{artifact.name}: SHA-256 of the plaintext is {sha256}, the manifest says {artifact.plaintext.sha256}; do not use any of it. Choose another set (python -m etcdkeep list)."
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
