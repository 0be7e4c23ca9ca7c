"""What objects are read from: a snapshot, with its index and the keys of values encrypted at rest where there are some."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError
from etcdkeep.objects.compare import value_digest
from etcdkeep.objects.decode import NEWEST_KUBERNETES_MINOR, KubernetesObject, decode
from etcdkeep.objects.decrypt import ENCRYPTED_MARK, AtRestDecrypter
from etcdkeep.objects.entries import Entry, entries, entries_and_values
from etcdkeep.objects.labels import labels_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from etcdkeep.encryption import EncryptionConfiguration
    from etcdkeep.objects.index import IndexReader
    from etcdkeep.snapshot import Snapshot


class Source(ABC):
    """
    Objects to look into, opened as far as they are asked for.

    :ivar name: For messages.
    """

    name: str
    kubernetes_minor: int

    @property
    @abstractmethod
    def snapshot(self) -> Snapshot:
        """The snapshot."""

    @property
    @abstractmethod
    def index(self) -> IndexReader | None:
        """The index, where there is one that is right."""

    @property
    @abstractmethod
    def configurations(self) -> tuple[EncryptionConfiguration, ...]:
        """The EncryptionConfigurations at hand, read when a value needs them."""

    def entries(self, revision: int | None = None, *, with_values: bool = False) -> Iterator[Entry]:
        """
        Yield what exists at a revision.

        :param with_values: Whether the values will be read too; else the index will do where it can.
        """
        index = None if with_values else self.index
        if index is not None and revision in (None, index.header.revision):
            return index.entries()
        return entries(self.snapshot, revision)

    def digests(self, *, with_values: bool = False) -> Iterator[tuple[Entry, str]]:
        """Yield what exists at the snapshot's revision, each with the digest of its value."""
        index = None if with_values else self.index
        if index is not None:
            return iter(index)
        return ((entry, value_digest(value)) for entry, value in entries_and_values(self.snapshot))

    def decode(self, entry: Entry) -> KubernetesObject:
        """
        Return an object.

        :param entry: Read with its value.
        :raises ValueDamaged: when it is none.
        :raises SecretUnavailable: when it is encrypted and its key is not at hand.
        """
        value = self._value(entry)
        return decode(
            entry.key_bytes,
            value,
            mod_revision=entry.revision,
            kubernetes_minor=self.kubernetes_minor,
            decrypter=self._decrypter if value.startswith(ENCRYPTED_MARK) else None,
        )

    def labels(self, entry: Entry) -> Mapping[str, str]:
        """Return an object's labels, without decoding the rest of it; otherwise as :meth:`decode`."""
        value = self._value(entry)
        if value.startswith(ENCRYPTED_MARK):
            value = self._decrypter.decrypt(entry.key_bytes, value)
        return labels_of(value)

    def _value(self, entry: Entry) -> bytes:
        return self.snapshot.value_at(entry.value_start, entry.size_bytes)

    @cached_property
    def _decrypter(self) -> AtRestDecrypter:
        return AtRestDecrypter(*self.configurations)


def kubernetes_minor(version: str | None) -> int:
    """
    Return 30 for ``1.30``, ``v1.30.4-gke.100``; the newest known where there is none.

    :raises ConfigError: when it is no version of Kubernetes.
    """
    if version is None:
        return NEWEST_KUBERNETES_MINOR
    match = re.match(r"v?1\.(\d{1,3})", version)
    if match is None:
        raise ConfigError(f"{version!r} is no version of Kubernetes; expected one such as 1.30.")
    return int(match[1])
