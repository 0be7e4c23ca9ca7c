"""
A backup set as a source of objects.

What only a snapshot or encrypted values need is imported when they are read: a list from the index takes a second.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cached_property
from typing import IO, TYPE_CHECKING

from etcdkeep.errors import NotFound, ObjectDamaged, VerificationFailed
from etcdkeep.objects.index import IndexReader, open_index
from etcdkeep.objects.prefix import archived_prefix
from etcdkeep.objects.source import Source, kubernetes_minor
from etcdkeep.sealing.private_file import private_file
from etcdkeep.sealing.seal import unseal
from etcdkeep.sets.choosing import manifest_of
from etcdkeep.snapshot import Snapshot, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager, ExitStack

    from etcdkeep.control_plane.encryption import EncryptionConfiguration
    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Artifact

log = logging.getLogger(__name__)


class StoredSet(Source):
    """
    Reads the objects of a set; its plaintext lies in private files that are gone with `stack`.

    :param identities: Gives the age identities; asked when something sealed is read.
    :param configurations: EncryptionConfigurations besides those in the set.
    :param kubernetes: Version of the API server, where it is not to be the set's own.
    :param prefix: The API server's ``--etcd-prefix``, where it is configured.
    :param progress: Shows that an artifact is being opened.
    :raises VerificationFailed: when its manifest is unreadable or not signed by a trusted key.
    """

    def __init__(
        self,
        stack: ExitStack,
        store: ObjectStore,
        found: BackupSet,
        identities: Callable[[], Sequence[Identity]],
        *,
        configurations: tuple[EncryptionConfiguration, ...] = (),
        kubernetes: str | None = None,
        prefix: str | None = None,
        progress: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.name = found.name
        self._manifest = manifest_of(found)
        self._stack = stack
        self._store = store
        self._found = found
        self.taken_at = self._manifest.taken_at
        self._identities = identities
        self._given = configurations
        self._progress = progress
        self.given_prefix = prefix
        self.kubernetes_minor = kubernetes_minor(kubernetes or self._manifest.versions.get("kubernetes"))

    @cached_property
    def snapshot(self) -> Snapshot:
        artifact = self._manifest.artifact("etcd")
        if artifact is None:
            raise VerificationFailed(f"backup {self.name} cannot be used; choose another set.", ("it has no snapshot",))
        return self._stack.enter_context(open_snapshot(self._plain(artifact).fileno()))

    @cached_property
    def index(self) -> IndexReader | None:
        index = self._found.index
        if index is None:
            log.info("backup %s has no index: reading its snapshot", self.name)
            return None
        plain = self._stack.enter_context(private_file(index.plaintext.size_bytes))
        try:
            return open_index(self._store, self.name, index, self._identities(), plain)
        except (NotFound, ObjectDamaged) as err:
            log.warning("the index cannot be used, reading the snapshot: %s", err)
            return None

    @cached_property
    def configurations(self) -> tuple[EncryptionConfiguration, ...]:
        from etcdkeep.control_plane.encryption import EncryptionConfiguration, find_encryption_configurations

        found = find_encryption_configurations(self._node_files).values()
        return (*self._given, *(each for each in found if isinstance(each, EncryptionConfiguration)))

    def _own_prefix(self) -> str | None:
        opened = self.__dict__.get("index")
        return archived_prefix(self._node_files) if opened is None else str(opened.prefix)

    @cached_property
    def _node_files(self) -> dict[str, bytes]:
        """The files of the control-plane nodes by artifact and path."""
        from etcdkeep.control_plane.archive import read_files
        from etcdkeep.sets.opening import ARCHIVE_LIMIT_BYTES

        files: dict[str, bytes] = {}
        for artifact in self._manifest.artifacts:
            if artifact.kind == "control-plane":
                archived = read_files(self._plain(artifact), ARCHIVE_LIMIT_BYTES)
                files |= {f"{artifact.name}/{file.path}": file.data for file in archived}
        return files

    def _plain(self, artifact: Artifact) -> IO[bytes]:
        """
        Open an artifact into a private file.

        :raises VerificationFailed: when it is not what the manifest says.
        """
        plain = self._stack.enter_context(private_file(artifact.plaintext.size_bytes))
        with self._progress(artifact.name), self._store.open(f"{self.name}/{artifact.name}") as stored:
            facts = unseal(stored, plain, self._identities(), size_limit=artifact.plaintext.size_bytes)
        if facts.plain_sha256 != artifact.plaintext.sha256:
            raise VerificationFailed(
                f"{self.name}/{artifact.name}: SHA-256 of the plaintext is {facts.plain_sha256}, the manifest says "
                f"{artifact.plaintext.sha256}; choose another set (python -m etcdkeep list)."
            )
        plain.flush()
        plain.seek(0)
        return plain
