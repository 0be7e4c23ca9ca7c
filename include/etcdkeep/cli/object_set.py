"""A set in the repository, opened for ``objects`` commands."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from etcdkeep.cli.common import IDENTITY_VARIABLE, find_set
from etcdkeep.errors import SecretUnavailable
from etcdkeep.objects.stored_set import StoredSet
from etcdkeep.sets.choosing import previous_set

if TYPE_CHECKING:
    from contextlib import AbstractContextManager, ExitStack

    from etcdkeep.control_plane.encryption import EncryptionConfiguration
    from etcdkeep.sealing.age_keys import Identity

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
            log.warning(
                "backup %s failed its verification: its objects may differ from what the cluster held", found.name
            )

    def previous(self) -> str:
        """
        Return the name of the good set that was taken before this one.

        :raises NotFound: when there is none.
        """
        return previous_set(self.site.repository.from_newest(self._found.cluster), self._found).name

    def _keys(self) -> list[Identity]:
        keys = self.site.identities()
        if keys is None:
            raise SecretUnavailable(f"{self.name} cannot be opened: set {IDENTITY_VARIABLE} to the age identity file.")
        return keys


def _progress(name: str) -> AbstractContextManager[object]:
    from etcdkeep.cli.output import progress

    return progress(name)
