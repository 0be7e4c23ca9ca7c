"""
A prefix of a Google Cloud Storage bucket as an object store.

Every write carries ``ifGenerationMatch=0``, so that the server itself refuses to replace an object. Uploads are
resumable and chunked; what the server reports having stored is compared with what was sent.
"""

from __future__ import annotations

import base64
import io
import os
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, BinaryIO, cast

from google.api_core.exceptions import BadRequest, GoogleAPICallError, PreconditionFailed, RetryError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.fileio import BlobWriter
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from etcdkeep.adapters.stores.gcs_account import credentials_of, limited
from etcdkeep.adapters.stores.object_names import check_folder, check_name
from etcdkeep.errors import (
    AccessDenied,
    ConfigError,
    EtcdkeepError,
    NotFound,
    ObjectDamaged,
    ObjectExists,
    StoreUnavailable,
)
from etcdkeep.ports import StoredObject
from etcdkeep.sealing.digest import Hasher
from etcdkeep.side_by_side import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from google.api_core.retry import Retry
    from typing_extensions import Buffer

    from etcdkeep.config.google_account import GoogleAccount

CHUNK_BYTES = 8 * 2**20
"""One request each; one is held in memory while it is sent. GCS wants multiples of 256 KiB and advises 8 MiB or more."""

RETRY = DEFAULT_RETRY.with_timeout(120.0)
"""What the client does about passing trouble before it is raised, per request."""

REQUEST_TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two bytes."""

PASSING_STATUS = frozenset({408, 409, 410, 429})

# For tracing that we do not use, the client would read the bucket's settings in a thread of its own, at every first use.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")


def open_gcs(bucket: str, prefix: str = "", account: GoogleAccount | None = None) -> GcsStore:
    """
    Return the store, with the application default credentials; anonymous where ``STORAGE_EMULATOR_HOST`` is set.

    :param account: Whose rights are used in place of these.
    :raises AccessDenied: when there are no credentials.
    :raises ConfigError: when the account's key is none.
    """
    if account is not None and (account.key or account.chain or not os.environ.get("STORAGE_EMULATOR_HOST")):
        client = _pooled(storage.Client(project=account.project, credentials=credentials_of(account)))
        return GcsStore(client, bucket, prefix, retry=limited(RETRY, account.retries), account=account.name)
    try:
        client = _pooled(storage.Client(project=None))
    except DefaultCredentialsError as err:
        raise AccessDenied(
            f"gs://{bucket}: no Google credentials here. Give the worker a service account (workload identity), set "
            "GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`."
        ) from err
    if account is not None:
        return GcsStore(client, bucket, prefix, retry=limited(RETRY, account.retries), account=account.name)
    return GcsStore(client, bucket, prefix)


def _pooled(client: storage.Client) -> storage.Client:
    """Return the client with a connection for each of those that read side by side; it would keep ten."""
    client._http.mount("https://", HTTPAdapter(pool_maxsize=AT_ONCE))
    client._http.mount("http://", HTTPAdapter(pool_maxsize=AT_ONCE))
    return client


class GcsStore:
    """
    An :class:`~etcdkeep.ports.ObjectStore` below a prefix of one bucket.

    A killed writer leaves an upload session, which shows nowhere and which the server drops after a week.
    """

    def __init__(
        self,
        client: storage.Client,
        bucket: str,
        prefix: str = "",
        *,
        retry: Retry = RETRY,
        chunk_bytes: int = CHUNK_BYTES,
        account: str = "",
    ) -> None:
        self._account = account
        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._client = client
        self._bucket = client.bucket(bucket)
        self._prefix = check_folder(prefix) if prefix else ""
        self._retry = retry
        self._chunk_bytes = chunk_bytes

    @contextmanager
    def create(self, name: str, *, content_type: str = "application/octet-stream") -> Iterator[BinaryIO]:
        blob = self._blob(name)
        sent = Hasher()
        upload = _Upload(
            blob,
            chunk_size=self._chunk_bytes,
            retry=self._retry,
            timeout=REQUEST_TIMEOUT_S,
            content_type=content_type,
            checksum="crc32c",
            if_generation_match=0,
        )
        try:
            yield cast("BinaryIO", _Sink(upload, sent, lambda: self._translated(name)))
            with self._translated(name), suppress(DataCorruption):  # _confirm says so, and removes the object
                upload.close()
        except BaseException:
            with suppress(Exception):  # the session dies by itself after a week; the first error is what counts
                upload.terminate()
            raise
        self._confirm(blob, name, sent)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with self._translated(name):
            blob = self._bucket.get_blob(self._key(name), retry=self._retry, timeout=REQUEST_TIMEOUT_S)
        if blob is None:
            raise NotFound(f"{name} is not in {self.url}.")
        source = _Source(blob, self._retry, lambda: self._translated(name, of_bytes=True))
        yield io.BufferedReader(source, self._chunk_bytes)

    def stat(self, name: str) -> StoredObject | None:
        with self._translated(name):
            blob = self._bucket.get_blob(self._key(name), retry=self._retry, timeout=REQUEST_TIMEOUT_S)
        return blob and self._stored(blob)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        with self._translated(prefix):
            for blob in self._client.list_blobs(
                self._bucket, prefix=self._prefix + prefix, retry=self._retry, timeout=REQUEST_TIMEOUT_S
            ):
                yield self._stored(blob)

    def copy(self, source: str, target: str) -> None:
        self.copy_from(self, source, target)

    def copies_from(self, origin: GcsStore) -> bool:
        """Say whether the server can copy from there: all buckets have one server."""
        return True

    def copy_from(self, origin: GcsStore, source: str, target: str) -> None:
        """Copy an object of another bucket or prefix on the server's side, create-only."""
        found, blob = origin._blob(source), self._blob(target)
        with self._translated(f"{target}, copied from {source} of {origin.url},"):
            token = None
            while True:
                token, _, _ = blob.rewrite(
                    found, token=token, if_generation_match=0, retry=self._retry, timeout=REQUEST_TIMEOUT_S
                )
                if token is None:
                    return

    def delete(self, name: str) -> None:
        with suppress(NotFound), self._translated(name):
            self._blob(name).delete(retry=self._retry, timeout=REQUEST_TIMEOUT_S)

    def purge(self, prefix: str) -> int:
        removed = 0
        for found in self.list(check_folder(prefix)):
            self.delete(found.name)
            removed += 1
        return removed

    def protect(self, name: str, until: datetime) -> bool:
        """
        Lock the object until then; a locked retention can be lengthened, but not shortened or removed by anybody.

        :raises ConfigError: when the bucket was made without object retention.
        """
        if until <= datetime.now(UTC):
            return True
        blob = self._blob(name)
        with self._translated(name):
            blob.reload(retry=self._retry, timeout=REQUEST_TIMEOUT_S)
            kept_until = blob.retention.retain_until_time
            if blob.retention.mode == "Locked" and kept_until is not None and kept_until >= until:
                return True
            blob.retention.mode = "Locked"
            blob.retention.retain_until_time = until
            try:
                blob.patch(retry=self._retry, timeout=REQUEST_TIMEOUT_S)
            except (BadRequest, PreconditionFailed) as err:
                raise ConfigError(
                    f"{self.url} refused to lock {name} until {until:%Y-%m-%d}: {err.message} Object retention must be enabled "
                    "on the bucket: when it is made (`gcloud storage buckets create --enable-per-object-retention`), later in the "
                    "Google Cloud console (Protection). Or set immutable_days to 0."
                ) from err
        return bool(blob.retention.mode == "Locked")

    def free_bytes(self) -> int | None:
        return None

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _blob(self, name: str) -> storage.Blob:
        return self._bucket.blob(self._key(name))

    def _stored(self, blob: storage.Blob) -> StoredObject:
        name = blob.name.removeprefix(self._prefix)
        # Not `updated`: a lock that is extended changes that, and with it the order of records.
        return StoredObject(
            name, blob.size, blob.time_created, _crc32c(blob), _locked_until(blob), str(blob.generation)
        )

    def _confirm(self, blob: storage.Blob, name: str, sent: Hasher) -> None:
        """Compare what the server stored with what was sent; a damaged object is deleted, that very generation."""
        with self._translated(name):
            blob.reload(retry=self._retry, timeout=REQUEST_TIMEOUT_S)
        digest = sent.digest()
        if (blob.size, _crc32c(blob)) == (digest.size_bytes, digest.crc32c):
            return
        with self._translated(name):
            blob.delete(if_generation_match=blob.generation, retry=self._retry, timeout=REQUEST_TIMEOUT_S)
        raise StoreUnavailable(
            f"{name} of {self.url} was damaged in transit: {digest.size_bytes} bytes with CRC-32C {digest.crc32c} were sent, "
            f"the server stored {blob.size} and {_crc32c(blob)}; it was deleted. Write it again."
        )

    @contextmanager
    def _translated(self, name: str, *, of_bytes: bool = False) -> Iterator[None]:
        """
        Raise the errors of the block as ours.

        :param of_bytes: Whether it asks for the bytes of an object, which may be encrypted with a key of its writer.
        """
        try:
            yield
        except GoogleAPICallError as err:
            if of_bytes and err.code == 400:
                raise self._refused_alone(name, err.message) from err
            raise self._refusal(name, err.code, err.message) from err
        except InvalidResponse as err:
            if of_bytes and err.response.status_code == 400:
                raise self._refused_alone(name, err.response.text[:500]) from err
            raise self._refusal(
                name, err.response.status_code, f"{err.response.reason}: {err.response.text[:500]}"
            ) from err
        except GoogleAuthError as err:
            if err.retryable:
                raise self._unavailable(name, err) from err
            whose = f" of {self._account}" if self._account else ""
            raise AccessDenied(
                f"{self.url}: the Google credentials{whose} were not accepted: {_first_words(err)}. Renew them."
            ) from err
        except (RetryError, DataCorruption, OSError, HTTPException, HTTPError, ValueError) as err:
            # ValueError is the client's word for an upload that is out of step with the server.
            raise self._unavailable(name, err) from err

    def _refusal(self, name: str, status: int | None, reason: str | None) -> EtcdkeepError:
        where = f"{name or 'the listing'} of {self.url}"
        if status == 412:
            return ObjectExists(f"{where} already exists; objects are never replaced.")
        if status == 404:
            return NotFound(f"{where} was not found ({reason}); check bucket and prefix.")
        if status in (401, 403):
            return AccessDenied(
                f"{where}: {status} {reason}. {self._account or 'The service account'} needs roles/storage.objectUser on the bucket (objectAdmin for immutable_days); "
                "a locked object cannot be deleted."
            )
        if status is None or status in PASSING_STATUS or status >= 500:
            return self._unavailable(name, f"{status} {reason}")
        if "crc32c" in (reason or "").lower():
            return self._unavailable(name, f"the bytes were damaged in transit ({status} {reason})")
        if "customer-supplied encryption key" in (reason or "").lower():
            return self._refused_alone(name, reason)
        return ConfigError(
            f"{where}: the server refused the request: {status} {reason}. Check the bucket's name and settings."
        )

    def _refused_alone(self, name: str, reason: str | None) -> AccessDenied:
        """Return the error for one object whose bytes the server refuses as a bad request, after it answered others."""
        return AccessDenied(
            f"{name} of {self.url}: the server refuses this object and no other (400 {reason}): it may be encrypted with a key of "
            "its writer (CSEK). Find out who wrote it, and remove it."
        )

    def _unavailable(self, name: str, reason: object) -> StoreUnavailable:
        return StoreUnavailable(f"{name or 'the listing'} of {self.url}: no usable answer from the server: {reason}.")


class _Upload(BlobWriter):  # type: ignore[misc]
    """An upload that is published by `close` alone, and can be cancelled."""

    def __del__(self) -> None:
        """Do nothing: the inherited finalizer closes, and so would publish what was written before a failure."""

    def terminate(self) -> None:
        """Cancel the session at its own address; the inherited method asks at that of the bucket (3.17)."""
        if self._upload_and_transport:
            upload, transport = self._upload_and_transport
            transport.delete(upload.resumable_url, timeout=REQUEST_TIMEOUT_S)


class _Sink(io.RawIOBase):
    """What is written to an upload: its errors are ours, its digest is kept."""

    def __init__(
        self, upload: BlobWriter, sent: Hasher, translated: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._upload = upload
        self._sent = sent
        self._translated = translated

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        block = bytes(data)
        with self._translated():
            self._upload.write(block)
        self._sent.update(block)
        return len(block)


class _Source(io.RawIOBase):
    """One generation of an object, read by range requests, so that a cut costs one range."""

    def __init__(
        self, found: storage.Blob, retry: Retry, translated: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._found = found
        self._retry = retry
        self._translated = translated
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        end = min(self._at + view.nbytes, self._found.size)
        if self._at >= end:
            return 0
        # A new handle each time: a download makes the client forget which generation it is for.
        blob = self._found.bucket.blob(self._found.name, generation=self._found.generation)
        with self._translated():
            data = blob.download_as_bytes(
                start=self._at,
                end=end - 1,
                raw_download=True,
                checksum=None,
                retry=self._retry,
                timeout=REQUEST_TIMEOUT_S,
            )
        if len(data) != end - self._at:
            raise ObjectDamaged(
                f"{self._found.name} in bucket {self._found.bucket.name} gave {len(data)} bytes for {self._at} to {end} of "
                f"{self._found.size}: it is shorter than recorded."
            )
        view[: len(data)] = data
        self._at = end
        return len(data)

    def readall(self) -> bytes:
        """Return the rest in one request; the inherited method would ask for 8 KiB at a time."""
        rest = bytearray(self._found.size - self._at)
        self.readinto(rest)
        return bytes(rest)


def _first_words(err: GoogleAuthError) -> str:
    """Return what an error says, without the server's whole answer that comes after it."""
    return str(err.args[0] if err.args else err).rstrip(".")


def _locked_until(blob: storage.Blob) -> datetime | None:
    """Return the latest of its own retention, the bucket's, and a hold, which ends at no time that is known."""
    if blob.temporary_hold or blob.event_based_hold:
        return datetime.max.replace(tzinfo=UTC)
    known = (blob.retention.retain_until_time, blob.retention_expiration_time)
    return max((time for time in known if time is not None), default=None)


def _crc32c(blob: storage.Blob) -> int | None:
    return int.from_bytes(base64.b64decode(blob.crc32c), "big") if blob.crc32c else None
