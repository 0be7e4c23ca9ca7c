"""Where a run's artifacts wait, sealed, until they are published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from etcdkeep import naming
from etcdkeep.documents import Document, read, write
from etcdkeep.sealing.seal import seal
from etcdkeep.sets.manifest import Artifact, Plaintext, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from etcdkeep.ports import ObjectStore
    from etcdkeep.sealing.digest import Hasher


class Spool:
    """
    One run's folder in the spool store.

    An artifact is finished when its record stands beside it: a retry takes it as it is. One without a record is what
    a killed try left, and is written anew.
    """

    def __init__(self, store: ObjectStore, cluster: str, identifier: str, recipients: tuple[str, ...]) -> None:
        self.store = store
        self.identifier = identifier
        self.prefix = naming.set_prefix(cluster, identifier)
        self.recipients = recipients

    def finished(self, artifact: str) -> dict[str, Any] | None:
        """Return the record of a finished artifact, or None."""
        name = f"{self.prefix}{artifact}.json"
        if self.store.stat(name) is None:
            return None
        record: dict[str, Any] = json.loads(read(self.store, name))
        return record

    def finish(self, artifact: str, record: Document) -> None:
        """Record that an artifact is whole."""
        write(self.store, f"{self.prefix}{artifact}.json", record.model_dump_json().encode())

    def seal(
        self,
        artifact: str,
        kind: Literal["etcd", "control-plane", "access"],
        plaintext: Iterable[bytes],
        node: str | None = None,
        passed: Hasher | None = None,
    ) -> Artifact:
        """
        Seal a stream into the spool; nothing is left of it when the stream raises.

        :param passed: See :func:`~etcdkeep.sealing.seal.seal`.
        """
        if self.store.stat(self.prefix + artifact) is not None:  # a first attempt needs no right to delete
            self.store.delete(self.prefix + artifact)
        with self.store.create(self.prefix + artifact) as stored:
            facts = seal(plaintext, stored, self.recipients, passed=passed)
        return Artifact(
            name=artifact,
            kind=kind,
            node=node,
            plaintext=Plaintext(size_bytes=facts.plain_size_bytes, sha256=facts.plain_sha256),
            stored=Stored(size_bytes=facts.stored_size_bytes, sha256=facts.stored_sha256, crc32c=facts.stored_crc32c),
            recipients=self.recipients,
        )

    def purge(self) -> int:
        """Remove whatever the run left here, and return how many objects that were."""
        return self.store.purge(self.prefix)
