"""
What encryption at rest means for a server's start: with other keys than those of the data it cannot be ready.

The lab stores values as they are. In place of sealed values, one key of etcd says with which key they would be sealed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from lab.api.store import Store

SEALED_WITH = "/lab/sealed-with"


def sealing_keys(path: str | None) -> list[str]:
    """Return the keys of an EncryptionConfiguration, the one that seals first; :raises OSError: when it does not exist."""
    if path is None:
        return []
    document = yaml.safe_load(Path(path).read_bytes())
    providers = [provider for rule in document["resources"] for provider in rule["providers"]]
    keys = [key for provider in providers for body in provider.values() for key in body.get("keys", ())]
    return [f"{key['name']}:{hashlib.sha256(key['secret'].encode()).hexdigest()}" for key in keys]


async def can_read(store: Store, keys: list[str]) -> bool:
    """Say whether a server with these keys can read what etcd holds; from then on it is sealed with the first of them."""
    found = await store.get(SEALED_WITH)
    if found is not None and found.value.decode() not in keys:
        return False
    if keys and (found is None or found.value.decode() != keys[0]):
        await store.put(SEALED_WITH, keys[0].encode(), revision=found.revision if found else 0)
    return True
