"""
A directory as an object store: a local disk or an NFS mount.

An object is written to a file of another name, synced, and given its own name by a hard link, which never replaces
what is there. Every path is walked one folder at a time from the root, without following symbolic links.
"""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO, cast

from etcdkeep.adapters.stores.copying import copy_bytes
from etcdkeep.adapters.stores.object_names import PART_SUFFIX, check_folder, check_name, is_part
from etcdkeep.errors import AccessDenied, EtcdkeepError, NoSpace, NotFound, ObjectExists, StoreUnavailable, UnsafeName
from etcdkeep.plain_text import one_line
from etcdkeep.ports import StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Buffer

log = logging.getLogger(__name__)

READ_AHEAD_BYTES = 2**20
TOKEN_BYTES = 4
MAX_DEPTH = 32
"""Of folders that are listed: ours are nested half a dozen deep, and each level costs an open file."""
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
LINK_IMPOSSIBLE = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM})
"""Another file system, too many links, a file of another user: then the bytes are copied."""


LAST_TIME = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""The last day that a date can be of."""


class DirectoryStore:
    """
    An :class:`~etcdkeep.ports.ObjectStore` in one directory, made when it is not there: files 0600, folders 0700.

    A killed writer leaves a hidden ``.NAME.TOKEN.part`` file, which no method shows; the next `create` in its folder
    removes it, and so does `purge`. Living writers hold a lock on theirs, which keeps it, unless the same name is begun
    anew: then the token keeps the earlier writer from publishing its successor's half-written file, it finds its own gone.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = root.as_uri()

    @contextmanager
    def create(self, name: str, *, content_type: str = "application/octet-stream") -> Iterator[BinaryIO]:
        folder, leaf = _split(name)
        with self._folder(folder, make=True) as directory:
            with self._translated(name):
                if _regular(leaf, directory):
                    raise self._exists(name)
                _sweep(leaf, directory)
                part, descriptor = _new_part(leaf, directory)
            try:
                with _File(descriptor, "wb", lambda: self._translated(name)) as file:
                    yield cast("BinaryIO", file)
                    with self._translated(name):
                        os.fsync(descriptor)
                        self._publish(part, leaf, directory, name)
            finally:
                with suppress(OSError):
                    os.unlink(part, dir_fd=directory)
            with self._translated(name):
                os.fsync(directory)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        if self.stat(name) is None:
            raise NotFound(f"{name} is not in {self.url}.")
        folder, leaf = _split(name)
        with self._folder(folder) as directory, self._translated(name):
            descriptor = os.open(leaf, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
        with _File(descriptor, "rb", lambda: self._translated(name)) as file:
            yield io.BufferedReader(file, READ_AHEAD_BYTES)

    def stat(self, name: str) -> StoredObject | None:
        folder, leaf = _split(name)
        try:
            with self._folder(folder) as directory, self._translated(name):
                found = _regular(leaf, directory)
        except (NotFound, UnsafeName):
            return None
        return found and _stored(name, found)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        try:
            with self._folder("") as directory, self._translated(prefix):
                yield from _walk(directory, "", prefix)
        except NotFound:
            return

    def copy(self, source: str, target: str) -> None:
        self.copy_from(self, source, target)

    def copies_from(self, origin: DirectoryStore) -> bool:
        """Say whether it can reach that directory: this process can reach both."""
        return True

    def copy_from(self, origin: DirectoryStore, source: str, target: str) -> None:
        """Copy an object of another directory, create-only; a hard link where one is possible, as objects never change."""
        if origin.stat(source) is None:
            raise NotFound(f"{source} is not in {origin.url}.")
        source_folder, source_leaf = _split(source)
        target_folder, target_leaf = _split(target)
        with origin._folder(source_folder) as here, self._folder(target_folder, make=True) as there:
            try:
                os.link(source_leaf, target_leaf, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
                os.fsync(there)
            except OSError as err:
                if err.errno not in LINK_IMPOSSIBLE:
                    raise self._translation(target, err) from err
            else:
                return
        copy_bytes(origin, source, self, target)

    def delete(self, name: str) -> None:
        folder, leaf = _split(name)
        with suppress(NotFound), self._folder(folder) as directory, self._translated(name):
            os.unlink(leaf, dir_fd=directory)

    def purge(self, prefix: str) -> int:
        folder = check_folder(prefix).removesuffix("/")
        parent, _, leaf = folder.rpartition("/")
        try:
            with self._folder(parent) as directory, self._translated(prefix):
                return _remove(leaf, directory)
        except NotFound:
            return 0

    def protect(self, name: str, until: datetime) -> bool:
        return False

    def free_bytes(self) -> int | None:
        with self._folder("", make=True) as directory, self._translated(""):
            found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize

    @contextmanager
    def _folder(self, folder: str, *, make: bool = False) -> Iterator[int]:
        """Open a folder below the root, one segment after the other; the root itself may be a symbolic link."""
        with self._translated(folder):
            if make:
                self.root.mkdir(0o700, parents=True, exist_ok=True)
            directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with self._translated(folder):
                for segment in filter(None, folder.split("/")):
                    if make:
                        with suppress(FileExistsError):
                            os.mkdir(segment, 0o700, dir_fd=directory)
                            os.fsync(directory)
                    parent, directory = directory, os.open(segment, FOLDER_FLAGS, dir_fd=directory)
                    os.close(parent)
            yield directory
        finally:
            os.close(directory)

    def _publish(self, part: str, leaf: str, directory: int, name: str) -> None:
        try:
            os.link(part, leaf, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError as err:
            raise StoreUnavailable(
                f"{name} of {self.url} was removed or rewritten by another process while it was being written."
            ) from err
        except OSError as err:
            if err.errno not in (errno.EPERM, errno.EOPNOTSUPP):
                raise
            raise AccessDenied(
                f"{self.url}: the file system cannot make hard links ({err.strerror}), which keep {name} from replacing another file. Use a file system with hard links, or a bucket."
            ) from err

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise self._translation(name, err) from err

    def _translation(self, name: str, err: OSError) -> EtcdkeepError:
        where = f"{name or 'the repository'} of {self.url}"
        if isinstance(err, FileExistsError):
            return self._exists(name)
        if isinstance(err, FileNotFoundError):
            return NotFound(f"{where} does not exist.")
        if err.errno in (errno.ENOTDIR, errno.ELOOP):
            return UnsafeName(
                f"{where}: part of the path is a file or a symbolic link. Symbolic links are never followed."
            )
        if err.errno in FULL:
            return NoSpace(f"{where}: {err.strerror}; the incomplete object was removed. Free space, then retry.")
        if err.errno in DENIED:
            return AccessDenied(
                f"{where}: {err.strerror} for user id {os.geteuid()}. Check owner, mode and mount options."
            )
        return StoreUnavailable(f"{where}: {err.strerror or err}. Check the disk or the mount.")

    def _exists(self, name: str) -> ObjectExists:
        return ObjectExists(f"{name} already exists in {self.url}; objects are never replaced.")


class _File(io.FileIO):
    """An open file whose errors are ours, and which writes all that it is given."""

    def __init__(self, descriptor: int, mode: str, translated: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(descriptor, mode)
        self._translated = translated

    def write(self, data: Buffer, /) -> int:
        rest = memoryview(data)
        size = rest.nbytes
        with self._translated():
            while rest:
                rest = rest[super().write(rest) :]
        return size

    def readinto(self, buffer: Buffer, /) -> int:
        with self._translated():
            return super().readinto(buffer) or 0

    def readall(self) -> bytes:
        with self._translated():
            return super().readall() or b""


def _split(name: str) -> tuple[str, str]:
    folder, _, leaf = check_name(name).rpartition("/")
    return folder, leaf


def _regular(leaf: str, directory: int) -> os.stat_result | None:
    """Return the facts of a regular file, or None when there is none of that name."""
    try:
        found = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _stored(name: str, found: os.stat_result) -> StoredObject:
    mtime = min(max(found.st_mtime, 0.0), LAST_TIME)  # a file can be given any time
    version = f"{found.st_ino}-{found.st_ctime_ns}"  # unlike the time of its change, this one cannot be set
    return StoredObject(name, found.st_size, datetime.fromtimestamp(mtime, UTC), version=version)


def _new_part(leaf: str, directory: int) -> tuple[str, int]:
    """Make a part and hold its lock, where the file system has locks; return its name and the open file."""
    while True:
        part = f".{leaf}.{secrets.token_hex(TOKEN_BYTES)}{PART_SUFFIX}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)  # before it was locked, another writer swept it up


def _sweep(leaf: str, directory: int) -> None:
    """
    Remove what killed writers left in a folder.

    Of the same name, living writers' files as well: the one whose file is gone fails, and cannot publish.
    """
    length = len(f".{leaf}.{PART_SUFFIX}") + 2 * TOKEN_BYTES
    for found in filter(is_part, os.listdir(directory)):
        same_name = len(found) == length and found.startswith(f".{leaf}.")
        with suppress(FileNotFoundError):
            if same_name or _writer_is_gone(found, directory):
                os.unlink(found, dir_fd=directory)


def _writer_is_gone(part: str, directory: int) -> bool:
    """Tell whether nobody holds a part's lock; False where that cannot be told, as on a file system without locks."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW, dir_fd=directory)
    except OSError:
        return False
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed, however that happens; False when it is locked already, or cannot be."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _entries(directory: int) -> list[os.DirEntry[str]]:
    """Return a folder's entries in the order of the full names below it: ``a.b`` comes before ``a/b``."""
    with os.scandir(directory) as entries:
        return sorted(entries, key=lambda entry: entry.name + "/" * entry.is_dir(follow_symlinks=False))


def _walk(directory: int, path: str, prefix: str) -> Iterator[StoredObject]:
    for entry in _entries(directory):
        name = path + entry.name
        if entry.is_dir(follow_symlinks=False):
            folder = f"{name}/"
            if folder.count("/") > MAX_DEPTH:
                log.warning("%s: folders this deep are not listed", one_line(folder))
            elif folder.startswith(prefix) or prefix.startswith(folder):
                with suppress(FileNotFoundError), _opened(entry.name, directory) as below:
                    yield from _walk(below, folder, prefix)
        elif name.startswith(prefix) and not is_part(entry.name) and (found := _regular(entry.name, directory)):
            yield _stored(name, found)


def _remove(leaf: str, directory: int) -> int:
    """Remove a folder with all that is in it, and return the number of files."""
    removed = 0
    with _opened(leaf, directory) as below:
        for entry in _entries(below):
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    removed += _remove(entry.name, below)
                else:
                    os.unlink(entry.name, dir_fd=below)
                    removed += 1
    os.rmdir(leaf, dir_fd=directory)
    return removed


@contextmanager
def _opened(leaf: str, directory: int) -> Iterator[int]:
    descriptor = os.open(leaf, FOLDER_FLAGS, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
