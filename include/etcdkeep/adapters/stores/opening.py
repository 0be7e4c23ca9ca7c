"""Opening the store that a URL names, and copying between two of them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable
from urllib.parse import unquote, urlsplit

from etcdkeep.adapters.stores.copying import copy_bytes
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.errors import AccessDenied, ConfigError

if TYPE_CHECKING:
    from etcdkeep.adapters.stores.s3_account import AwsAccount
    from etcdkeep.config.google_account import GoogleAccount
    from etcdkeep.ports import ObjectStore

    Account = GoogleAccount | AwsAccount

EXPECTED = "expected gs://bucket/prefix, s3://bucket/prefix or file:///path"


@runtime_checkable
class CopiesItself(Protocol):
    """A store that copies from another of its kind without moving the bytes through this machine."""

    def copies_from(self, origin: Any, /) -> bool:
        """Say whether it can reach that store."""

    def copy_from(self, origin: Any, source: str, target: str, /) -> None: ...


def open_store(url: str, account: Account | None = None) -> ObjectStore:
    """
    Return the store of ``gs://bucket/prefix``, ``s3://bucket/prefix`` or ``file:///path``.

    :param account: Whose rights are used in a bucket, of its kind; None for the default credentials of where this runs.
    :raises ConfigError: when it is none of these.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ConfigError(f"store {url!r}: ? and # have no meaning in it; {EXPECTED}.")
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme == "gs" and parts.netloc:
        from etcdkeep.adapters.stores.gcs import open_gcs  # the client takes a second to import

        return open_gcs(parts.netloc, parts.path.strip("/"), cast("GoogleAccount | None", account))
    if parts.scheme == "s3" and parts.netloc:
        from etcdkeep.adapters.stores.s3 import open_s3  # as above

        return open_s3(parts.netloc, parts.path.strip("/"), cast("AwsAccount | None", account))
    raise ConfigError(f"store {url!r} is not usable: {EXPECTED}.")


def transfer(source: ObjectStore, source_name: str, target: ObjectStore, target_name: str) -> None:
    """
    Copy one object, create-only: by the store itself between stores of one kind, else through this machine.

    :raises ObjectExists: when the target is there.
    :raises NotFound: when the source is not.
    """
    if type(source) is type(target) and isinstance(target, CopiesItself) and target.copies_from(source):
        target.copy_from(source, source_name, target_name)
    else:
        copy_bytes(source, source_name, target, target_name)


def duplicate(source: ObjectStore, source_name: str, target: ObjectStore, target_name: str) -> None:
    """
    Copy one object into another repository, create-only: in a bucket's server where one account may do both, else through this
    machine. On a disk never by a link: two names of one file are damaged together.

    :raises ObjectExists: when the target is there.
    :raises NotFound: when the source is not.
    """
    if not isinstance(target, DirectoryStore):
        with suppress(AccessDenied):  # the account of the target may not read the source; that of the source may
            transfer(source, source_name, target, target_name)
            return
    copy_bytes(source, source_name, target, target_name)
