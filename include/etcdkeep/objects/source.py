"""What objects are read from: a snapshot, with its index and the keys of values encrypted at rest where there are some."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError, ValueDamaged
from etcdkeep.objects.compare import value_digest
from etcdkeep.objects.decoding.decode import NEWEST_KUBERNETES_MINOR, KubernetesObject, decode
from etcdkeep.objects.decoding.decrypt import ENCRYPTED_MARK, AtRestDecrypter
from etcdkeep.objects.entries import Entry, entries, entries_and_values
from etcdkeep.objects.find import find_object
from etcdkeep.objects.keys import clean_prefix
from etcdkeep.objects.labels import labels_of
from etcdkeep.objects.prefix import choose_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from etcdkeep.control_plane.encryption import EncryptionConfiguration
    from etcdkeep.objects.index import IndexReader
    from etcdkeep.snapshot import Snapshot


class Source(ABC):
    """
    Objects to look into, opened as far as they are asked for.

    :ivar name: For messages.
    """

    name: str
    kubernetes_minor: int
    taken_at: datetime | None = None
    """When the snapshot was taken, where that is known."""
    given_prefix: str | None = None
    """The API server's ``--etcd-prefix`` where somebody said it."""

    @cached_property
    def prefix(self) -> str:
        """
        The API server's ``--etcd-prefix``: as given, else as the source tells it, else as the snapshot shows it.

        :raises ConfigError: when there are objects under several prefixes.
        """
        if self.given_prefix is not None:
            return clean_prefix(self.given_prefix)
        own = self._own_prefix()
        return choose_prefix(self.snapshot, self.name) if own is None else own

    def _own_prefix(self) -> str | None:
        """Return what the source knows of the prefix without looking at the objects."""
        return None

    @property
    def _right_index(self) -> IndexReader | None:
        """The index, where it is of the prefix that is meant."""
        index = self.index
        if index is None or self.given_prefix is None or clean_prefix(self.given_prefix) == index.prefix:
            return index
        return None

    def find(self, kind: str, namespace: str, name: str, revision: int | None = None) -> Entry:
        """Return one object, as :func:`~etcdkeep.objects.find.find_object` does."""
        return find_object(self.snapshot, kind, namespace, name, revision, prefix=self.prefix)

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
        index = None if with_values else self._right_index
        if index is not None and revision in (None, index.header.revision):
            return index.entries()
        return entries(self.snapshot, revision, self.prefix)

    def digests(self, *, with_values: bool = False) -> Iterator[tuple[Entry, str]]:
        """Yield what exists at the snapshot's revision, each with the digest of its value."""
        index = None if with_values else self._right_index
        if index is not None:
            return iter(index)
        return ((entry, value_digest(value)) for entry, value in entries_and_values(self.snapshot, self.prefix))

    def decode(self, entry: Entry, *, any_shape: bool = False) -> KubernetesObject:
        """
        Return an object.

        :param entry: Read with its value.
        :param any_shape: As for :func:`~etcdkeep.objects.decoding.decode.decode`.
        :raises ValueDamaged: when it is none.
        :raises ValueEncrypted: when it is encrypted and its key is not at hand.
        """
        self._check(entry)
        value = self._value(entry)
        return decode(
            entry.key_bytes,
            value,
            mod_revision=entry.revision,
            kubernetes_minor=self.kubernetes_minor,
            decrypter=self._decrypter if value.startswith(ENCRYPTED_MARK) else None,
            any_shape=any_shape,
        )

    def labels(self, entry: Entry) -> Mapping[str, str]:
        """Return an object's labels, without decoding the rest of it; otherwise as :meth:`decode`."""
        self._check(entry)
        value = self._value(entry)
        if value.startswith(ENCRYPTED_MARK):
            value = self._decrypter.decrypt(entry.key_bytes, value)
        try:
            return labels_of(value)
        except ValueDamaged as err:
            raise unreadable(entry, str(err)) from err

    def _check(self, entry: Entry) -> None:
        if entry.unreadable:
            raise unreadable(entry, entry.unreadable)

    def _value(self, entry: Entry) -> bytes:
        return self.snapshot.value_at(entry.value_start, entry.size_bytes)

    @cached_property
    def _decrypter(self) -> AtRestDecrypter:
        return AtRestDecrypter(*self.configurations)


def unreadable(entry: Entry, why: str) -> ValueDamaged:
    """Return the error that names an object whose value cannot be read."""
    return ValueDamaged(f"value of {entry.key!r} at revision {entry.revision} cannot be read: {why}")


def kubernetes_minor(version: str | None) -> int:
    """
    Return 30 for ``1.30``, ``v1.30.4-gke.100``; the newest known where there is none.

    :raises ConfigError: when it is no version of Kubernetes.
    """
    if version is None:
        return NEWEST_KUBERNETES_MINOR
    match = re.match(r"v?1\.(\d{1,3})", version)
    if match is None:
        raise ConfigError(f"{version!r} is not a version of Kubernetes; expected one such as 1.30.")
    return int(match[1])
