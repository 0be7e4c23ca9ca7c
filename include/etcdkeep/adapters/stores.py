"""Opening the store that a URL names, and copying between two of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from etcdkeep.adapters.copying import copy_bytes
from etcdkeep.adapters.directory import DirectoryStore
from etcdkeep.errors import ConfigError

if TYPE_CHECKING:
    from etcdkeep.google_account import GoogleAccount
    from etcdkeep.ports import ObjectStore


@runtime_checkable
class CopiesItself(Protocol):
    """A store that copies from another of its kind without moving the bytes through this machine."""

    def copy_from(self, origin: Any, source: str, target: str, /) -> None: ...


def open_store(url: str, account: GoogleAccount | None = None) -> ObjectStore:
    """
    Return the store of ``gs://bucket/prefix`` or ``file:///path``.

    :param account: Whose rights are used in a bucket; None for the default credentials of where this runs.
    :raises ConfigError: when it is neither.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ConfigError(f"store {url!r}: ? and # have no meaning in it; expected gs://bucket/prefix or file:///path.")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "gs" and parts.netloc:
        from etcdkeep.adapters.gcs import open_gcs  # the client takes a second to import

        return open_gcs(parts.netloc, parts.path.strip("/"), account)
    raise ConfigError(f"store {url!r} is not usable: expected gs://bucket/prefix or file:///path.")


def transfer(source: ObjectStore, source_name: str, target: ObjectStore, target_name: str) -> None:
    """
    Copy one object, create-only: by the store itself between stores of one kind, else through this machine.

    :raises ObjectExists: when the target is there.
    :raises NotFound: when the source is not.
    """
    if type(source) is type(target) and isinstance(target, CopiesItself):
        target.copy_from(source, source_name, target_name)
    else:
        copy_bytes(source, source_name, target, target_name)
