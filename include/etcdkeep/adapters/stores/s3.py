"""
A prefix of a bucket of S3, or of a server that speaks its protocol, as an object store.

Every write carries ``If-None-Match: *``, so that the server itself refuses to replace an object, and a CRC-32C, so that it
refuses damaged bytes. Large objects go up in parts, one of which is held in memory.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from etcdkeep.adapters.stores.object_names import check_folder, check_name
from etcdkeep.adapters.stores.s3_client import ATTEMPTS, s3_client
from etcdkeep.adapters.stores.s3_errors import RefusedAlone, code_of, refused_alone, status_of, translated
from etcdkeep.adapters.stores.s3_upload import Upload, copy_in_parts, crc32c_from, facts_of, is_of
from etcdkeep.errors import AccessDenied, ConfigError, NotFound, ObjectDamaged, ObjectExists, StoreUnavailable
from etcdkeep.ports import StoredObject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from typing_extensions import Buffer

    from etcdkeep.adapters.stores.s3_account import AwsAccount

PART_BYTES = 8 * 2**20
"""One request each. S3 takes 10,000 parts of 5 MiB or more: objects up to 80 GB."""

COPY_PART_BYTES = 512 * 2**20
"""Copied by the server in one request."""

HEADS_AT_ONCE = 16
VERSIONS_MAX = 100


def open_s3(bucket: str, prefix: str = "", account: AwsAccount | None = None) -> S3Store:
    """
    Return the store.

    :param account: Whose rights are used, and where; None for boto3's own chain.
    :raises AccessDenied: when there are no credentials.
    :raises ConfigError: when an endpoint, region or profile is not usable.
    """
    return S3Store(s3_client(account), bucket, prefix, account=account.name if account else "")


class S3Store:
    """
    An :class:`~etcdkeep.ports.ObjectStore` below a prefix of one bucket.

    A killed writer leaves an unfinished upload, which is in no listing; `purge` ends those of its folder.
    """

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str = "",
        *,
        account: str = "",
        part_bytes: int = PART_BYTES,
        copy_part_bytes: int = COPY_PART_BYTES,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client = client
        self._bucket = bucket
        self._prefix = check_folder(prefix) if prefix else ""
        self._account = account
        self._part_bytes = part_bytes
        self._copy_part_bytes = copy_part_bytes
        self._attempts = attempts

    @contextmanager
    def create(self, name: str, *, content_type: str = "application/octet-stream") -> Iterator[BinaryIO]:
        key = self._key(name)
        self._require_free(name, key)
        upload = Upload(self._client, self._bucket, key, content_type, self._part_bytes)
        try:
            yield cast("BinaryIO", _Sink(upload, lambda: self._translated(name)))
            with self._translated(name), self._told_by_its_mark(name, key, upload.facts):
                upload.finish()
        except BaseException:
            with suppress(Exception):  # the first error is what counts; a rule of the bucket ends what is left
                upload.abort()
            raise
        self._confirm(name, key, upload)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        key = self._key(name)
        found = self._head(name, key)
        if found is None:
            raise NotFound(f"{name} is not in {self.url}.")
        yield io.BufferedReader(_Source(self, name, key, found), self._part_bytes)

    def stat(self, name: str) -> StoredObject | None:
        return self._facts(name, self._key(name))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
            for page in self._pages(prefix):
                names = [each["Key"].removeprefix(self._prefix) for each in page]
                if self._locks:  # a listing does not tell until when an object is locked
                    facts = pool.map(lambda name, listed: self._facts(name, self._prefix + name, listed), names, page)
                    yield from (found for found in facts if found)
                else:
                    yield from map(_listed, names, page)

    def copy(self, source: str, target: str) -> None:
        self.copy_from(self, source, target)

    def copies_from(self, origin: S3Store) -> bool:
        """Say whether the server can copy from there: both have one server and one account."""
        here, there = self._client, origin._client
        return bool(here.meta.endpoint_url == there.meta.endpoint_url and self._account == origin._account)

    def copy_from(self, origin: S3Store, source: str, target: str) -> None:
        """Copy an object of another bucket or prefix on the server's side, create-only."""
        source_key, key = origin._key(source), self._key(target)
        found = origin._head(source, source_key)
        if found is None:
            raise NotFound(f"{source} is not in {origin.url}.")
        self._require_free(target, key)
        if not found["ContentLength"]:
            with self.create(target):
                return
        facts, place = facts_of(found.get("ContentType", "")), {"Bucket": self._bucket, "Key": key}
        with (
            self._translated(f"{target}, copied from {source} of {origin.url},"),
            self._told_by_its_mark(target, key, facts),
        ):
            copy_in_parts(self._client, (origin._bucket, source_key, found), place, facts, self._copy_part_bytes)

    def delete(self, name: str) -> None:
        key = self._key(name)
        for _ in range(VERSIONS_MAX):  # beneath the version that shows there may be others
            try:
                found = self._head(name, key)
            except RefusedAlone as err:
                found = self._newest_version(name, key, err)
            if found is None:
                return
            with suppress(NotFound), self._translated(name):
                self._client.delete_object(Bucket=self._bucket, Key=key, **_version(found))
            if "VersionId" not in found:
                return
        raise StoreUnavailable(f"{name} of {self.url} has more than {VERSIONS_MAX} versions; some are left. Run again.")

    def purge(self, prefix: str) -> int:
        folder = check_folder(prefix)
        removed = 0
        for found in list(self.list(folder)):
            self.delete(found.name)
            removed += 1
        return removed + self._abort_uploads(folder)

    def protect(self, name: str, until: datetime) -> bool:
        """
        Lock the object until then, in compliance mode: the time can be lengthened, but not shortened or removed by anybody.

        :raises ConfigError: when the bucket was made without object lock.
        """
        if until <= datetime.now(UTC):
            return True
        key = self._key(name)
        found = self._head(name, key)
        if found is None:
            raise NotFound(f"{name} is not in {self.url}.")
        kept_until = found.get("ObjectLockRetainUntilDate")
        if found.get("ObjectLockMode") == "COMPLIANCE" and kept_until is not None and kept_until >= until:
            return True
        with self._translated(name):
            try:
                self._client.put_object_retention(
                    Bucket=self._bucket,
                    Key=key,
                    Retention={"Mode": "COMPLIANCE", "RetainUntilDate": until},
                    **_version(found),
                )
            except ClientError as err:
                if status_of(err) != 400 or code_of(err) not in ("InvalidRequest", "MalformedXML", "InvalidArgument"):
                    raise
                raise ConfigError(
                    f"{self.url} refused to lock {name} until {until:%Y-%m-%d}: {err}. Object lock must be enabled when the "
                    "bucket is made (aws s3api create-bucket --object-lock-enabled-for-bucket). Or set immutable_days to 0."
                ) from err
        return True

    def refuses_to_replace(self, name: str) -> bool:
        """Send an object that exists, and say whether the server refuses it: a compatible one may ignore the condition."""
        upload = Upload(self._client, self._bucket, self._key(name), "application/octet-stream", self._part_bytes)
        try:
            with self._translated(name):
                upload.finish()
        except ObjectExists:
            return True
        return False

    def free_bytes(self) -> int | None:
        return None

    # --- inside --------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _translated(self, name: str) -> AbstractContextManager[None]:
        return translated(self.url, name, self._account)

    def _facts(self, name: str, key: str, listed: Mapping[str, Any] | None = None) -> StoredObject | None:
        """
        Return an object's facts, or None when there is none.

        Anybody who may write can store one with a key of his own, and the server then refuses its headers. It counts as not
        locked: the server decides when it is removed.
        """
        try:
            found = self._head(name, key)
        except RefusedAlone as err:
            listed = listed or err.listed
            if listed is None:
                raise
            return _listed(name, listed)
        return _stored(name, found) if found else None

    def _head(self, name: str, key: str) -> dict[str, Any] | None:
        """
        Return the headers of an object, or None when there is none.

        :raises RefusedAlone: when the server refuses them of this object, and answers otherwise.
        """
        try:
            with self._translated(name):
                try:
                    return cast(
                        "dict[str, Any]",
                        self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED"),
                    )
                except ClientError as err:
                    if status_of(err) in (400, 401, 403):  # such an answer has no body that would say why
                        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1)
                        listed = next((each for each in found.get("Contents", []) if each["Key"] == key), None)
                        raise refused_alone(err, f"{name} of {self.url}", self._account, listed) from err
                    raise
        except NotFound:
            return None

    def _newest_version(self, name: str, key: str, refused: RefusedAlone) -> dict[str, Any] | None:
        """
        Return which version of an object shows, of one that gives no headers: without a version, a bucket that keeps
        versions would hide it and keep it. None when it is gone.
        """
        try:
            with self._translated(name):
                found = self._client.list_object_versions(Bucket=self._bucket, Prefix=key, MaxKeys=1)
        except AccessDenied as err:
            raise refused from err
        return next((each for each in found.get("Versions", []) if each["Key"] == key and each["IsLatest"]), None)

    def _require_free(self, name: str, key: str) -> None:
        """Refuse a name that is taken before any byte is sent; the condition of the write is what decides."""
        if self._head(name, key) is not None:
            raise ObjectExists(f"{name} of {self.url} already exists; objects are never replaced.")

    @contextmanager
    def _told_by_its_mark(self, name: str, key: str, facts: dict[str, Any]) -> Iterator[None]:
        """
        Take an object with our mark for written: the client retries when an answer is lost, and then meets the object that its
        first attempt made.
        """
        try:
            yield
        except ClientError as err:
            if status_of(err) not in (404, 412):
                raise
            found = self._head(name, key)
            if found is None or not is_of(found, facts):
                raise

    def _confirm(self, name: str, key: str, upload: Upload) -> None:
        """Compare what the server stored with what was sent; a damaged object is deleted, that very version."""
        found = self._head(name, key)
        if found is None:
            raise StoreUnavailable(f"{name} of {self.url} was written and is gone. Write it again.")
        crc32c = crc32c_from(found)
        if found["ContentLength"] == upload.sent.size_bytes and crc32c in (None, upload.sent.digest().crc32c):
            return
        with self._translated(name):
            self._client.delete_object(Bucket=self._bucket, Key=key, IfMatch=found["ETag"], **_version(found))
        raise StoreUnavailable(
            f"{name} of {self.url} was damaged in transit: {upload.sent.size_bytes} bytes with CRC-32C "
            f"{upload.sent.digest().crc32c} were sent, the server stored {found['ContentLength']} and {crc32c}; it was "
            "deleted. Write it again."
        )

    def _pages(self, prefix: str) -> Iterator[Sequence[dict[str, Any]]]:
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                yield page.get("Contents", [])

    @cached_property
    def _locks(self) -> bool:
        """Whether objects of the bucket may be locked; true also where the account may not ask."""
        try:
            found = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as err:
            return status_of(err) == 403
        except BotoCoreError:
            return True
        return bool(found.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled")

    def _abort_uploads(self, folder: str) -> int:
        """End the uploads of a folder that nobody finished."""
        aborted = 0
        with self._translated(folder):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix + folder
            )
            for upload in [each for page in pages for each in page.get("Uploads", [])]:
                with suppress(NotFound), self._translated(folder):
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    aborted += 1
        return aborted


class _Sink(io.RawIOBase):
    """What is written to an upload: its errors are ours."""

    def __init__(self, upload: Upload, translated: Callable[[], AbstractContextManager[None]]) -> None:
        self._upload = upload
        self._translated = translated

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        block = bytes(data)
        with self._translated():
            self._upload.write(block)
        return len(block)


class _Source(io.RawIOBase):
    """One version of an object, read by range requests, so that a cut costs one range."""

    def __init__(self, store: S3Store, name: str, key: str, found: dict[str, Any]) -> None:
        self._store = store
        self._name = name
        self._key = key
        self._found = found
        self._size = int(found["ContentLength"])
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        end = min(self._at + view.nbytes, self._size)
        if self._at >= end:
            return 0
        data = self._range(self._at, end)
        if len(data) != end - self._at:
            raise ObjectDamaged(
                f"{self._name} of {self._store.url} gave {len(data)} bytes for {self._at} to {end} of {self._size}: it is shorter than recorded."
            )
        view[: len(data)] = data
        self._at = end
        return len(data)

    def readall(self) -> bytes:
        """Return the rest in one request; the inherited method would ask for 8 KiB at a time."""
        rest = bytearray(self._size - self._at)
        self.readinto(rest)
        return bytes(rest)

    def _range(self, start: int, end: int) -> bytes:
        store = self._store
        with store._translated(self._name):
            for attempt in range(1, store._attempts + 1):
                try:
                    return self._ask(start, end)
                except (BotoCoreError, HTTPError, OSError):  # cut in the body, which the client does not retry
                    if attempt == store._attempts:
                        raise
                except ClientError as err:
                    if status_of(err) == 412:
                        raise NotFound(f"{self._name} of {store.url} was replaced while it was read. Read it again.") from err  # fmt: skip
                    if status_of(err) == 400:
                        raise refused_alone(err, f"{self._name} of {store.url}", store._account) from err
                    raise
        raise StoreUnavailable(f"{self._name} of {store.url} was not read.")

    def _ask(self, start: int, end: int) -> bytes:
        answer = self._store._client.get_object(
            Bucket=self._store._bucket,
            Key=self._key,
            Range=f"bytes={start}-{end - 1}",
            IfMatch=self._found["ETag"],
            **_version(self._found),
        )
        return cast("bytes", answer["Body"].read())


def _version(found: dict[str, Any]) -> dict[str, str]:
    """Return the argument that names one version; none in a bucket without versions."""
    return {"VersionId": found["VersionId"]} if "VersionId" in found else {}


def _stored(name: str, found: dict[str, Any]) -> StoredObject:
    until = found.get("ObjectLockRetainUntilDate")
    if found.get("ObjectLockLegalHoldStatus") == "ON":  # ends at no time that is known
        until = datetime.max.replace(tzinfo=UTC)
    at = found["LastModified"].astimezone(UTC)
    return StoredObject(name, found["ContentLength"], at, crc32c_from(found), until, found.get("ETag", ""))


def _listed(name: str, found: Mapping[str, Any]) -> StoredObject:
    """Return what a listing tells."""
    return StoredObject(name, found["Size"], found["LastModified"].astimezone(UTC), version=found.get("ETag", ""))
