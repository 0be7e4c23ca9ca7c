"""What stands where SET does in ``objects`` commands: a set in the repository, or a plain snapshot file."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etcdkeep import naming
from etcdkeep.errors import ConfigError, EtcdkeepError, NotFound, ValueDamaged
from etcdkeep.objects.keys import OTHER_PREFIX
from etcdkeep.objects.selection import OTHER, RESOURCE
from etcdkeep.objects.source import Source, kubernetes_minor, unreadable
from etcdkeep.say import printable, say
from etcdkeep.snapshot import Snapshot, open_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from etcdkeep.cli.object_set import SetSource
    from etcdkeep.control_plane.encryption import EncryptionConfiguration
    from etcdkeep.objects.entries import Entry
    from etcdkeep.objects.selection import Selection


@contextmanager
def open_source(
    name: str, encryption_file: Path | None = None, kubernetes: str | None = None, prefix: str | None = None
) -> Iterator[FileSource | SetSource]:
    """
    Open ``CLUSTER/ID``, ``CLUSTER`` (its newest good set) or the path of a snapshot file.

    :param encryption_file: An EncryptionConfiguration; a set brings its own.
    :param kubernetes: The version of the API server, such as ``1.30``; a set names its own.
    :param prefix: The API server's ``--etcd-prefix``; a set or the snapshot itself tells it.
    """
    given = (_read_configuration(encryption_file),) if encryption_file else ()
    with ExitStack() as stack:
        path = Path(name)
        is_set_name = bool(re.fullmatch(r"[a-z0-9-]+/" + naming.BACKUP_ID.pattern, name))
        is_here = path.exists() and not path.is_dir()
        if not is_set_name and (is_here or "/" in name or "." in name):
            yield FileSource(stack, path, given, kubernetes_minor(kubernetes), prefix)
        else:
            # A plain file needs none of what a repository needs, and opens in half the time without it.
            from etcdkeep.cli.object_set import SetSource

            yield SetSource(stack, name, given, kubernetes, prefix)


class FileSource(Source):
    """Reads a plain snapshot file, which is of no configured cluster and has no index."""

    site = None
    index = None

    def __init__(
        self,
        stack: ExitStack,
        path: Path,
        configurations: tuple[EncryptionConfiguration, ...],
        minor: int,
        prefix: str | None,
    ) -> None:
        self.name = str(path)
        self.kubernetes_minor = minor
        self.given_prefix = prefix
        self._stack = stack
        self._path = path
        self._configurations = configurations

    @property
    def configurations(self) -> tuple[EncryptionConfiguration, ...]:
        return self._configurations

    @cached_property
    def snapshot(self) -> Snapshot:
        snapshot = self._stack.enter_context(open_snapshot(self._path))
        for problem in snapshot.length_problems():
            say(printable(f"warning: {self.name}: {problem}"), err=True)
        return snapshot


def _read_configuration(path: Path) -> EncryptionConfiguration:
    from etcdkeep.control_plane.encryption import parse_encryption_configuration

    try:
        data = path.read_bytes()
    except OSError as err:
        raise ConfigError(f"{path} cannot be read: {err.strerror}.") from err
    return parse_encryption_configuration(data, str(path))


_SHOWN_FAILURES = 1000
_SHOWN_KEYS = 3
_SHOWN_KEY_CHARS = 80


def tell_other_prefixes(source: Source, every: Sequence[Entry], *, must_have_some: bool) -> None:
    """
    Say on standard error which objects stand under another etcd prefix than the one that is read.

    :param every: All that there is.
    :raises NotFound: when there are keys, and none of an object; only if `must_have_some`.
    """
    others = [entry for entry in every if entry[OTHER] and not entry[RESOURCE]]
    is_empty = len(others) == len(every) and bool(every)
    prefixes = Counter(each.other.removeprefix(OTHER_PREFIX) for each in others if each.other.startswith(OTHER_PREFIX))
    found = ", ".join(f"{prefix or '/'} ({count})" for prefix, count in prefixes.most_common())
    if is_empty and must_have_some:
        keys = ", ".join(printable(entry.key[:_SHOWN_KEY_CHARS]) for entry in others[:_SHOWN_KEYS])
        where = f"objects are under {found}: give --prefix" if prefixes else "--other lists them"
        raise NotFound(
            f"{source.name} has no Kubernetes object under the etcd prefix {source.prefix or '/'}. It has {len(every)} "
            f"keys, such as {keys}; {where}."
        )
    if prefixes:
        say(printable(f"note: objects under other etcd prefixes are not shown: {found}; see --prefix"), err=True)


class Failures:
    """Values that could not be read: the rest is shown all the same, and the command fails in the end."""

    def __init__(self) -> None:
        self._errors: dict[str, EtcdkeepError] = {}

    def add(self, errors: Iterable[EtcdkeepError]) -> None:
        """Take in what went wrong elsewhere; what is said twice counts once."""
        for err in errors:
            self._errors.setdefault(str(err), err)

    def add_unreadable(self, found: Iterable[Entry]) -> None:
        """Take in what of some entries cannot be read, as their heads tell it."""
        self.add(unreadable(entry, entry.other) for entry in found if entry.other and entry.resource)

    def decoded(self, source: Source, found: Iterable[Entry]) -> Iterator[dict[str, Any]]:
        """Yield the objects that can be decoded."""
        for entry in found:
            if entry.holds_no_object:
                continue
            try:
                content = source.decode(entry)
            except ValueDamaged as err:
                self.add([err])
                continue
            for notice in content.notices:
                say(printable(f"note: {entry.key}: {notice}"), err=True)
            yield content.json

    def labelled(self, source: Source, found: Iterable[Entry], selection: Selection) -> Iterator[Entry]:
        """Yield what has labels that are meant."""
        for entry in found:
            try:
                if not selection.labels or (not entry.holds_no_object and selection.takes_labels(source.labels(entry))):
                    yield entry
            except ValueDamaged as err:
                self.add([err])

    def report(self) -> None:
        """
        Tell what was left out.

        :raises ValueDamaged: when values could not be read, for want of a key too: what was printed is not all there is.
        :raises EtcdkeepError: of the first one's kind where kinds of a live cluster could not be read.
        """
        errors = list(self._errors.values())
        for err in errors[:_SHOWN_FAILURES]:
            say(printable(f"not read: {err}"), err=True)
        if errors:
            values = [isinstance(err, ValueDamaged) for err in errors]
            kind = ValueDamaged if any(values) else type(errors[0])
            what = "values" if all(values) else "values or kinds"
            more = "" if len(errors) <= _SHOWN_FAILURES else f"; the first {_SHOWN_FAILURES} are named above"
            raise kind(f"the answer is incomplete: {len(errors)} {what} could not be read{more}.")
