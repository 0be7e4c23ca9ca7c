"""Small documents in a store: read whole and bounded, written create-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from etcdkeep.errors import NotFound, ObjectDamaged, ObjectExists

if TYPE_CHECKING:
    from etcdkeep.ports import ObjectStore


class Document(BaseModel):
    """A stored document, or a part of one: immutable; unknown keys of a later version are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


MAX_DOCUMENT_BYTES = 64 * 2**20
"""No manifest, signature or record comes near it; a larger object is not ours."""
_BLOCK_BYTES = 2**16
"""A read of so many bytes takes as much memory, however few there are; and many documents are read at once."""


def read(store: ObjectStore, name: str) -> bytes:
    """
    Return a small document.

    :raises ObjectDamaged: when it is larger than any of ours.
    """
    data = bytearray()
    with store.open(name) as stream:
        while len(data) <= MAX_DOCUMENT_BYTES and (block := stream.read(_BLOCK_BYTES)):
            data += block
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ObjectDamaged(
            f"{name} in {store.url} is larger than {MAX_DOCUMENT_BYTES} bytes, too large for a document of etcdkeep."
        )
    return bytes(data)


def write(store: ObjectStore, name: str, data: bytes) -> None:
    """
    Store a small document, create-only; one of the same bytes that is there already counts as stored.

    :raises ObjectExists: when there is another one.
    """
    try:
        with store.create(name, content_type="application/json") as stream:
            stream.write(data)
    except ObjectExists as err:
        try:
            same = read(store, name) == data
        except NotFound:
            raise ObjectExists(f"{name} in {store.url} is a folder or a link, not an object. Remove it.") from err
        if not same:
            raise
