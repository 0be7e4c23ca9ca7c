"""Copying an object's bytes through this machine, where no store can do it by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.errors import NotFound, ObjectDamaged
from etcdkeep.sealing.digest import Hasher

if TYPE_CHECKING:
    from etcdkeep.ports import ObjectStore

BLOCK_BYTES = 2**20


def copy_bytes(source: ObjectStore, source_name: str, target: ObjectStore, target_name: str) -> None:
    """
    Copy one object, create-only.

    :raises NotFound: when it is not there.
    :raises ObjectDamaged: when its bytes are not those that the source store announced; no target was made then.
    """
    announced = source.stat(source_name)
    if announced is None:
        raise NotFound(f"{source_name} is not in {source.url}.")
    passed = Hasher()
    with source.open(source_name) as reader, target.create(target_name) as writer:
        while block := reader.read(BLOCK_BYTES):
            passed.update(block)
            writer.write(block)
        found = passed.digest()
        if found.size_bytes != announced.size_bytes or announced.crc32c not in (None, found.crc32c):
            raise ObjectDamaged(
                f"{source_name} of {source.url} gave {found.size_bytes} bytes with CRC-32C {found.crc32c}, its store announced "
                f"{announced.size_bytes} and {announced.crc32c}; {target_name} was not made."
            )
