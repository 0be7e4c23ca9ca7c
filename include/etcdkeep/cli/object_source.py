"""What stands where SET does in ``objects`` commands: a set in the repository, or a plain snapshot file."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from etcdkeep import naming
from etcdkeep.cli.object_output import printable
from etcdkeep.errors import ConfigError, EtcdkeepError, SecretUnavailable, ValueDamaged
from etcdkeep.objects.compare import value_digest
from etcdkeep.objects.decode import NEWEST_KUBERNETES_MINOR, KubernetesObject, decode
from etcdkeep.objects.decrypt import ENCRYPTED_MARK, AtRestDecrypter
from etcdkeep.objects.entries import Entry, entries, entries_and_values
from etcdkeep.objects.labels import labels_of
from etcdkeep.snapshot import Snapshot, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from etcdkeep.adapters.site import Site
    from etcdkeep.encryption import EncryptionConfiguration
    from etcdkeep.objects.index import IndexReader
    from etcdkeep.objects.selection import Selection


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
    def site(self) -> Site | None:
        """The configured cluster it is of; None for a plain file."""

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
            return (entry for entry, _ in index)
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


@contextmanager
def open_source(name: str, encryption_file: Path | None = None, kubernetes: str | None = None) -> Iterator[Source]:
    """
    Open ``CLUSTER/ID``, ``CLUSTER`` (its newest good set) or the path of a snapshot file.

    :param encryption_file: An EncryptionConfiguration; a set brings its own.
    :param kubernetes: The version of the API server, such as ``1.30``; a set names its own.
    """
    given = (_read_configuration(encryption_file),) if encryption_file else ()
    with ExitStack() as stack:
        path = Path(name)
        is_set_name = bool(re.fullmatch(r"[a-z0-9-]+/" + naming.BACKUP_ID.pattern, name))
        if not is_set_name and (path.is_file() or "/" in name or "." in name):
            yield _FileSource(stack, path, given, kubernetes_minor(kubernetes))
        else:
            # A plain file needs none of what a repository needs, and opens in half the time without it.
            from etcdkeep.cli.object_set import SetSource

            yield SetSource(stack, name, given, kubernetes)


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


class _FileSource(Source):
    site = None
    index = None

    def __init__(
        self, stack: ExitStack, path: Path, configurations: tuple[EncryptionConfiguration, ...], minor: int
    ) -> None:
        self.name = str(path)
        self.kubernetes_minor = minor
        self._stack = stack
        self._path = path
        self._configurations = configurations

    @property
    def configurations(self) -> tuple[EncryptionConfiguration, ...]:
        return self._configurations

    @cached_property
    def snapshot(self) -> Snapshot:
        return self._stack.enter_context(open_snapshot(self._path))


def _read_configuration(path: Path) -> EncryptionConfiguration:
    from etcdkeep.encryption import parse_encryption_configuration

    try:
        data = path.read_bytes()
    except OSError as err:
        raise ConfigError(f"{path} cannot be read: {err.strerror}.") from err
    return parse_encryption_configuration(data, str(path))


_SHOWN_FAILURES = 10


class Failures:
    """Values that could not be read: the rest is shown all the same, and the command fails in the end."""

    def __init__(self) -> None:
        self._errors: list[EtcdkeepError] = []

    def add(self, errors: Iterable[EtcdkeepError]) -> None:
        """Take in what went wrong elsewhere."""
        self._errors += errors

    def decoded(self, source: Source, found: Iterable[Entry]) -> Iterator[dict[str, Any]]:
        """Yield the objects that can be decoded."""
        for entry in found:
            if entry.other:
                continue
            try:
                content = source.decode(entry)
            except (ValueDamaged, SecretUnavailable) as err:
                self._errors.append(err)
                continue
            for notice in content.notices:
                click.echo(f"note: {printable(entry.key)}: {notice}", err=True)
            yield content.json

    def labelled(self, source: Source, found: Iterable[Entry], selection: Selection) -> Iterator[Entry]:
        """Yield what has labels that are meant."""
        for entry in found:
            try:
                if not selection.labels or (not entry.other and selection.takes_labels(source.labels(entry))):
                    yield entry
            except (ValueDamaged, SecretUnavailable) as err:
                self._errors.append(err)

    def report(self) -> None:
        """
        Tell what was left out.

        :raises EtcdkeepError: of the first one's kind, but of a damaged value's where there is one.
        """
        for err in self._errors[:_SHOWN_FAILURES]:
            click.echo(f"not read: {err}", err=True)
        if self._errors:
            kinds = [type(err) for err in self._errors]
            kind = ValueDamaged if ValueDamaged in kinds else kinds[0]
            raise kind(
                f"the answer is not whole: {len(self._errors)} thing(s) could not be read, the first are named above."
            )
