"""Small documents in a store: read whole and bounded, written create-only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.errors import NotFound, ObjectDamaged, ObjectExists

if TYPE_CHECKING:
    from etcdkeep.ports import ObjectStore

MAX_DOCUMENT_BYTES = 64 * 2**20
"""No manifest, signature or record comes near it; a larger object is not ours."""


def read(store: ObjectStore, name: str) -> bytes:
    """
    Return a small document.

    :raises ObjectDamaged: when it is larger than any of ours.
    """
    with store.open(name) as stream:
        data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ObjectDamaged(f"{name} in {store.url} is larger than {MAX_DOCUMENT_BYTES} bytes: no document of ours.")
    return data


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
            raise ObjectExists(f"{name} in {store.url} is a folder or a link, no object. Remove it.") from err
        if not same:
            raise
