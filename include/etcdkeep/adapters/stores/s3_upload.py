"""One object on its way up: a single request, or parts of which one is held in memory."""

from __future__ import annotations

import base64
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import google_crc32c
from botocore.exceptions import BotoCoreError, ClientError

from etcdkeep.sealing.digest import Hasher

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITER = "etcdkeep-writer"
"""Name of the metadata with which a writer knows its own object again."""


def crc32c_text(value: int) -> str:
    """Return a CRC-32C as headers have it."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def crc32c_from(found: Mapping[str, Any]) -> int | None:
    """Return the CRC-32C of a whole object; None where the server keeps none, or one made of those of its parts."""
    text = found.get("ChecksumCRC32C")
    if not text or "-" in text or found.get("ChecksumType") == "COMPOSITE":
        return None
    return int.from_bytes(base64.b64decode(text), "big")


def facts_of(content_type: str) -> dict[str, Any]:
    """Return type and metadata of a new object, with a mark by which its writer knows it again."""
    return {"ContentType": content_type, "Metadata": {WRITER: secrets.token_hex(16)}}


def is_of(found: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Say whether a stored object is the one that was made with these facts."""
    return bool(found.get("Metadata", {}).get(WRITER) == facts["Metadata"][WRITER])


class Upload:
    """Sends what is written; the object is there when `finish` has returned."""

    def __init__(self, client: Any, bucket: str, key: str, content_type: str, part_bytes: int) -> None:
        self.sent = Hasher()
        self._client = client
        self._object = {"Bucket": bucket, "Key": key}
        self.facts = facts_of(content_type)
        self._part_bytes = part_bytes
        self._held = bytearray()
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes) -> None:
        """Take bytes, and send each part that is complete."""
        self.sent.update(data)
        self._held += data
        while len(self._held) > self._part_bytes:
            self._send(bytes(self._held[: self._part_bytes]))
            del self._held[: self._part_bytes]

    def finish(self) -> None:
        """Publish the object, create-only."""
        if self._upload_id is None:
            self._client.put_object(
                **self._object,
                **self.facts,
                Body=bytes(self._held),
                ContentLength=len(self._held),
                ChecksumAlgorithm="CRC32C",
                ChecksumCRC32C=crc32c_text(self.sent.digest().crc32c),
                IfNoneMatch="*",
            )
            return
        if self._held:
            self._send(bytes(self._held))
            self._held.clear()
        complete(self._client, self._object, self._upload_id, self._parts, self.sent.digest().crc32c)

    def abort(self) -> None:
        """End the upload: what was sent of it is dropped."""
        if self._upload_id is not None:
            self._client.abort_multipart_upload(**self._object, UploadId=self._upload_id)

    def _send(self, part: bytes) -> None:
        if self._upload_id is None:
            self._upload_id = self._client.create_multipart_upload(
                **self._object, **self.facts, ChecksumAlgorithm="CRC32C", ChecksumType="FULL_OBJECT"
            )["UploadId"]
        number = len(self._parts) + 1
        checksum = crc32c_text(google_crc32c.value(part))
        answer = self._client.upload_part(
            **self._object,
            UploadId=self._upload_id,
            PartNumber=number,
            Body=part,
            ContentLength=len(part),
            ChecksumAlgorithm="CRC32C",
            ChecksumCRC32C=checksum,
        )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32C": checksum})


def complete(
    client: Any, target: Mapping[str, str], upload_id: str, parts: list[dict[str, Any]], crc32c: int | None
) -> None:
    """Publish an upload, create-only; the server compares the whole with the checksum."""
    checksum = {} if crc32c is None else {"ChecksumCRC32C": crc32c_text(crc32c), "ChecksumType": "FULL_OBJECT"}
    client.complete_multipart_upload(
        **target, UploadId=upload_id, MultipartUpload={"Parts": parts}, IfNoneMatch="*", **checksum
    )


def copy_in_parts(
    client: Any,
    source: tuple[str, str, Mapping[str, Any]],
    target: Mapping[str, str],
    facts: Mapping[str, Any],
    part_bytes: int,
) -> None:
    """
    Have the server copy an object, create-only: as an upload whose parts are ranges of it, since few servers know a condition
    on a plain copy.

    :param source: Bucket, key and headers of an object that is not empty.
    :param target: Bucket and key.
    :param facts: Type and metadata of the new object.
    """
    bucket, key, found = source
    version = {"VersionId": found["VersionId"]} if "VersionId" in found else {}
    crc32c, size = crc32c_from(found), int(found["ContentLength"])
    wanted = {} if crc32c is None else {"ChecksumAlgorithm": "CRC32C", "ChecksumType": "FULL_OBJECT"}
    upload_id = client.create_multipart_upload(**target, **facts, **wanted)["UploadId"]
    try:
        parts = []
        for number, start in enumerate(range(0, size, part_bytes), 1):
            result = client.upload_part_copy(
                **target,
                UploadId=upload_id,
                PartNumber=number,
                CopySource={"Bucket": bucket, "Key": key, **version},
                CopySourceIfMatch=found["ETag"],
                CopySourceRange=f"bytes={start}-{min(start + part_bytes, size) - 1}",
            )["CopyPartResult"]
            checksum = {"ChecksumCRC32C": result["ChecksumCRC32C"]} if "ChecksumCRC32C" in result else {}
            parts.append({"PartNumber": number, "ETag": result["ETag"], **checksum})
        complete(client, target, upload_id, parts, crc32c)
    except BaseException:
        with suppress(ClientError, BotoCoreError):  # the first error is what counts
            client.abort_multipart_upload(**target, UploadId=upload_id)
        raise
