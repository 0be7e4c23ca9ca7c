"""
A set in the repository, opened for ``objects`` commands.

What only a snapshot or encrypted values need is imported when they are read: a list from the index takes a second.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import IO, TYPE_CHECKING

from etcdkeep.cli.common import IDENTITY_VARIABLE, find_set, identities, manifest_of
from etcdkeep.cli.object_source import Source, kubernetes_minor
from etcdkeep.errors import NotFound, ObjectDamaged, SecretUnavailable, VerificationFailed
from etcdkeep.objects.index import IndexReader, open_index
from etcdkeep.private_file import private_file
from etcdkeep.seal import unseal
from etcdkeep.snapshot import Snapshot, open_snapshot

if TYPE_CHECKING:
    from contextlib import ExitStack

    from etcdkeep.adapters.site import Site
    from etcdkeep.age_keys import Identity
    from etcdkeep.encryption import EncryptionConfiguration
    from etcdkeep.manifest import Artifact

log = logging.getLogger(__name__)


class SetSource(Source):
    """
    Reads a set with the age identity that is at hand.

    :raises NotFound: when there is no such set.
    :raises VerificationFailed: when its manifest is not signed by a trusted key.
    """

    def __init__(
        self, stack: ExitStack, name: str, configurations: tuple[EncryptionConfiguration, ...], kubernetes: str | None
    ) -> None:
        self._site, found = find_set(name)
        self.name = found.name
        self._stack = stack
        self._found = found
        self._manifest = manifest_of(found)
        self._given = configurations
        self.kubernetes_minor = kubernetes_minor(kubernetes or self._manifest.versions.get("kubernetes"))
        if found.state == "bad":
            log.warning("backup %s did not verify: what it shows may not be what there was", found.name)

    @property
    def site(self) -> Site:
        return self._site

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
            return open_index(self.site.repository.store, self.name, index, self._identities, plain)
        except (NotFound, ObjectDamaged) as err:
            log.warning("the index cannot be used, reading the snapshot: %s", err)
            return None

    @cached_property
    def configurations(self) -> tuple[EncryptionConfiguration, ...]:
        from etcdkeep.archive import read_files
        from etcdkeep.encryption import EncryptionConfiguration, find_encryption_configurations
        from etcdkeep.verify import ARCHIVE_LIMIT_BYTES

        files: dict[str, bytes] = {}
        for artifact in self._manifest.artifacts:
            if artifact.kind == "control-plane":
                archived = read_files(self._plain(artifact), ARCHIVE_LIMIT_BYTES)
                files |= {f"{artifact.name}/{file.path}": file.data for file in archived}
        found = find_encryption_configurations(files).values()
        return (*self._given, *(each for each in found if isinstance(each, EncryptionConfiguration)))

    @cached_property
    def _identities(self) -> list[Identity]:
        keys = identities(self.site)
        if keys is None:
            raise SecretUnavailable(f"{self.name} cannot be opened: set {IDENTITY_VARIABLE} to the age identity file.")
        return keys

    def _plain(self, artifact: Artifact) -> IO[bytes]:
        """
        Open an artifact into a private file.

        :raises VerificationFailed: when it is not what the manifest says.
        """
        from etcdkeep.cli.output import progress

        plain = self._stack.enter_context(private_file(artifact.plaintext.size_bytes))
        with progress(artifact.name), self.site.repository.store.open(f"{self.name}/{artifact.name}") as stored:
            facts = unseal(stored, plain, self._identities, size_limit=artifact.plaintext.size_bytes)
        if facts.plain_sha256 != artifact.plaintext.sha256:
            raise VerificationFailed(
                f"{self.name}/{artifact.name}: SHA-256 of the plaintext is {facts.plain_sha256}, the manifest says "
                f"{artifact.plaintext.sha256}; choose another set (python -m etcdkeep list)."
            )
        plain.flush()
        plain.seek(0)
        return plain
