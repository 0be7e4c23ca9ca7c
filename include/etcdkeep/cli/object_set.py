"""A set in the repository, opened for ``objects`` commands."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from etcdkeep.cli.common import IDENTITY_VARIABLE, find_set, identities
from etcdkeep.errors import SecretUnavailable
from etcdkeep.objects.stored_set import StoredSet

if TYPE_CHECKING:
    from contextlib import AbstractContextManager, ExitStack

    from etcdkeep.age_keys import Identity
    from etcdkeep.encryption import EncryptionConfiguration

log = logging.getLogger(__name__)


class SetSource(StoredSet):
    """
    Reads a set with the age identity that is at hand.

    :raises NotFound: when there is no such set.
    :raises VerificationFailed: when its manifest is not signed by a trusted key.
    """

    def __init__(
        self,
        stack: ExitStack,
        name: str,
        configurations: tuple[EncryptionConfiguration, ...],
        kubernetes: str | None,
        prefix: str | None,
    ) -> None:
        self.site, found = find_set(name)
        store = self.site.repository.store
        super().__init__(
            stack,
            store,
            found,
            self._keys,
            configurations=configurations,
            kubernetes=kubernetes,
            prefix=self.site.cluster.etcd_prefix if prefix is None else prefix,
            progress=_progress,
        )
        if found.state == "bad":
            log.warning("backup %s did not verify: what it shows may not be what there was", found.name)

    def _keys(self) -> list[Identity]:
        keys = identities(self.site)
        if keys is None:
            raise SecretUnavailable(f"{self.name} cannot be opened: set {IDENTITY_VARIABLE} to the age identity file.")
        return keys


def _progress(name: str) -> AbstractContextManager[object]:
    from etcdkeep.cli.output import progress

    return progress(name)
