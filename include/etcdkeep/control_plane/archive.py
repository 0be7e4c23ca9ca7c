"""
Reading a control-plane archive: into memory for the checks, onto disk for a person.

An archive is read as a stream and always to its end, so that whatever seals it is checked to the last byte. It may hold
files, folders, and links that stay inside; anything else is refused, and so is one that ends without tar's end mark.
Python's own extraction filter is not relied on: releases of 3.11 that are in use can be led out of the folder by long
chains of links. Here no name may pass through a link, and links are made last.
"""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import tarfile
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import dropwhile
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, cast

from etcdkeep.errors import ArchiveRefused, ObjectExists

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

CHUNK_BYTES = 256 * 1024
MAX_ENTRIES = 1_000_000
"""A node has some hundred; what a tar of any size may cost in memory has to end somewhere."""
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095
"""What Linux takes for one name, and for a whole path."""
MAX_LEVELS = 200
SHOWN_CHARS = 200
_IMPOSSIBLE = {errno.ENAMETOOLONG: "its path is too long there", errno.EMLINK: "a file has too many links"}
"""What the archive asks of a file system that no other disk would change."""


class Readable(Protocol):
    """What an archive is read from; it need not seek."""

    def read(self, size: int = ..., /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """
    One file of an archive.

    :param path: ``/``-separated, without ``.`` and ``..``.
    :param mode: Permission bits it had on the node.
    """

    path: str
    mode: int
    data: bytes


def read_archive(fileobj: Readable, limit_bytes: int) -> dict[str, bytes]:
    """
    Read a tar stream's files into memory: path → content.

    :param limit_bytes: Of the whole stream.
    :raises ArchiveRefused: when it is no sound tar, too large, or holds what it must not.
    """
    return {file.path: file.data for file in read_files(fileobj, limit_bytes)}


def read_files(fileobj: Readable, limit_bytes: int) -> tuple[ArchivedFile, ...]:
    """Read a tar stream's files into memory, as :func:`read_archive` does, modes included; a link to a file is one."""
    files: dict[str, ArchivedFile] = {}
    links: dict[str, str] = {}
    with _refusing_what_is_no_tar():
        for entry in _entries(fileobj, limit_bytes):
            if entry.content is not None:
                files[entry.path] = ArchivedFile(entry.path, entry.mode, entry.content.read())
            elif entry.linked_file:
                original = files[entry.linked_file]
                files[entry.path] = ArchivedFile(entry.path, original.mode, original.data)
            elif entry.symlink:
                links[entry.path] = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), entry.symlink))
    for path, target in links.items():
        if target in files:
            files[path] = ArchivedFile(path, files[target].mode, files[target].data)
    return tuple(files.values())


def extract_archive(fileobj: Readable, directory: Path, limit_bytes: int) -> tuple[Path, ...]:
    """
    Write a tar stream's files below a new folder: folders 0700, files 0600. On failure nothing is left of it.

    :param directory: Must not exist; its parent must.
    :param limit_bytes: Of the whole stream.
    :return: The files written.
    :raises ObjectExists: when `directory` is there already.
    :raises ArchiveRefused: as :func:`read_archive`.
    """
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError as err:
        raise ObjectExists(f"{directory} already exists; nothing was written. Give a new folder") from err
    try:
        with _refusing_what_is_no_tar():
            return _extract(fileobj, directory, limit_bytes)
    except BaseException:
        shutil.rmtree(directory)
        raise


def _extract(fileobj: Readable, directory: Path, limit_bytes: int) -> tuple[Path, ...]:
    written: list[Path] = []
    links: list[tuple[Path, str]] = []
    made = {""}
    for entry in _entries(fileobj, limit_bytes):
        target = directory / entry.path
        _make_folders(directory, entry.path if entry.is_folder else posixpath.dirname(entry.path), made)
        if entry.content is not None:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                shutil.copyfileobj(entry.content, file, CHUNK_BYTES)
            written.append(target)
        elif entry.linked_file:
            os.link(directory / entry.linked_file, target, follow_symlinks=False)
            written.append(target)
        elif entry.symlink:
            links.append((target, entry.symlink))
    for target, linkname in links:
        target.symlink_to(linkname)
    return tuple(written)


def _make_folders(directory: Path, path: str, made: set[str]) -> None:
    """Make a folder and those above it that are not among `made`."""
    if path in made:
        return
    for folder in reversed([path, *_above_until(path, made)]):
        (directory / folder).mkdir(mode=0o700, exist_ok=True)
        made.add(folder)


@dataclass(frozen=True, slots=True)
class _Entry:
    """
    One checked entry; exactly one of the last four says what it is.

    :param linked_file: Path of the file before it that it is a hard link to.
    :param symlink: Where it leads, as written.
    """

    path: str
    mode: int
    content: IO[bytes] | None = None
    is_folder: bool = False
    linked_file: str = ""
    symlink: str = ""


def _entries(fileobj: Readable, limit_bytes: int) -> Iterator[_Entry]:
    """Yield the entries in order; a content is to be read before the next entry is asked for."""
    stream = _Limited(fileobj, limit_bytes)
    files: set[str] = set()
    symlinks: set[str] = set()
    folders = {""}
    count = 0
    with tarfile.open(fileobj=cast("Any", stream), mode="r|", tarinfo=_StrictTarInfo) as tar:
        while (member := tar.next()) is not None:
            cast("Any", tar).members.clear()  # tarfile keeps every header it has read; nothing here goes back
            count += 1
            if count > MAX_ENTRIES:
                raise ArchiveRefused(f"the archive has more than {MAX_ENTRIES} entries; nothing was extracted")
            path = _normalised(member.name)
            if not path and member.isdir():
                continue
            entry = _checked(tar, member, path, files)
            above = list(_above_until(path, folders))
            leaves = (each for each in (path, *above) if each in files or each in symlinks)
            if next(leaves, None) is not None or (path in folders and not entry.is_folder):
                raise ArchiveRefused(f"archive entry {_named(path)} takes the place of another entry")
            folders.update(above)
            (folders if entry.is_folder else symlinks if entry.symlink else files).add(path)
            yield entry
    while stream.read(CHUNK_BYTES):
        pass


def _checked(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str, files: set[str]) -> _Entry:
    mode = member.mode & 0o7777
    if member.isdir():
        return _Entry(path, mode, is_folder=True)
    if not path:
        raise ArchiveRefused("archive entry '.' is not a folder")
    if member.isreg() and not member.issparse() and member.size >= 0:
        return _Entry(path, mode, content=tar.extractfile(member))
    if member.islnk():
        if (linked := _normalised(member.linkname)) not in files:
            raise ArchiveRefused(
                f"archive entry {_named(path)} is a hard link to {_named(member.linkname)}, which does not come before it"
            )
        return _Entry(path, mode, linked_file=linked)
    if member.issym():
        _check_symlink(path, member.linkname)
        return _Entry(path, mode, symlink=member.linkname)
    raise ArchiveRefused(f"archive entry {_named(path)} is neither file, folder nor link (tar type {member.type!r})")


def _normalised(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ArchiveRefused(f"archive entry {_named(name)} points outside the archive")
    path = "/".join(parts)
    _check_length(path, parts)
    return path


def _check_length(path: str, parts: list[str]) -> None:
    """Refuse what no file system takes, before anything of it is made."""
    if len(parts) > MAX_LEVELS:
        raise ArchiveRefused(f"archive entry {_named(path)} is {len(parts)} levels deep, at most {MAX_LEVELS} are read")
    longest_bytes = max((len(os.fsencode(part)) for part in parts), default=0)
    if longest_bytes > MAX_NAME_BYTES:
        raise ArchiveRefused(
            f"archive entry {_named(path)} has a name of {longest_bytes} bytes, a file system allows {MAX_NAME_BYTES}"
        )
    if (size_bytes := len(os.fsencode(path))) > MAX_PATH_BYTES:
        raise ArchiveRefused(
            f"archive entry {_named(path)} has a path of {size_bytes} bytes, a file system allows {MAX_PATH_BYTES}"
        )


def _named(path: str) -> str:
    """Return a name for a message: quoted, and cut where it is long."""
    return repr(path) if len(path) <= SHOWN_CHARS else f"{path[:SHOWN_CHARS]!r}…"


def _above_until(path: str, known: Collection[str]) -> Iterator[str]:
    """Yield the folders that `path` stands in, nearest first, up to the first known one: above that, all are known."""
    while (path := posixpath.dirname(path)) not in known:
        yield path


def _check_symlink(path: str, linkname: str) -> None:
    # A ".." after a name is refused too: if that name is a link, the text no longer tells where it leads.
    up = linkname.split("/").count("..")
    if (
        not linkname
        or linkname.startswith("/")
        or "\0" in linkname
        or up > path.count("/")
        or ".." in _from_name(linkname)
    ):
        raise ArchiveRefused(
            f"archive entry {_named(path)} is a link to {_named(linkname)}, which points outside the archive"
        )
    _check_length(linkname, linkname.split("/"))


def _from_name(linkname: str) -> list[str]:
    return list(dropwhile(lambda part: part in ("", ".", ".."), linkname.split("/")))


class _Limited:
    """A reader that ends the archive when it gives more than it may."""

    def __init__(self, fileobj: Readable, limit_bytes: int) -> None:
        self._fileobj = fileobj
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    def read(self, size: int) -> bytes:
        data = self._fileobj.read(size)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise ArchiveRefused(
                f"the archive is larger than {self._limit_bytes} bytes; raise the limit if that is right"
            )
        return data


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a broken header, or none at all, for the end of the archive; only the end mark is."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as err:
            if buf == bytes(tarfile.BLOCKSIZE):
                raise
            raise tarfile.ReadError(f"{err} where a header or the end mark should be") from err


@contextmanager
def _refusing_what_is_no_tar() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, ValueError, OverflowError) as err:
        raise ArchiveRefused(f"the archive is not a valid tar: {err}; it was truncated or altered") from err
    except RecursionError as err:  # tarfile reads each extended header inside the one before it
        raise ArchiveRefused("the archive is not a valid tar: too many extended headers before one entry") from err
    except OSError as err:
        if err.errno not in _IMPOSSIBLE:
            raise
        name = _named(str(err.filename2 or err.filename))
        raise ArchiveRefused(f"archive entry {name} cannot be written: {_IMPOSSIBLE[err.errno]}") from err
