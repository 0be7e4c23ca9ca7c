"""The key that opens indexes must open nothing else, of the backups of before a rotation either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.errors import ConfigError
from etcdkeep.sealing.seal import opens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet


def refuse_whole_backups(found: BackupSet, identities: Sequence[Identity]) -> None:
    """
    Refuse a key for indexes that opens an artifact of this backup too: it may have been the age identity when that was made.

    :raises ConfigError: when one of the identities opens an artifact.
    """
    if found.manifest is None:
        return
    recipients = sorted({each for artifact in found.manifest.artifacts for each in artifact.recipients})
    if recipients and opens(identities, recipients):
        raise ConfigError(
            f"index_identity opens the whole backup {found.name}, not its index alone: one of the recipients in its manifest belongs "
            "to that key. Give the indexes a key of their own (python -m etcdkeep keygen), and its public half to index_recipients."
        )
