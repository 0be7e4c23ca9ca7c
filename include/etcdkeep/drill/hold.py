"""Keeping a set from being removed while a drill reads it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from etcdkeep.errors import EtcdkeepError
from etcdkeep.sets.pins import InUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.repository import Repository

log = logging.getLogger(__name__)


@contextmanager
def held(repository: Repository, found: BackupSet, by: str, time_limit_s: float) -> Iterator[None]:
    """
    Say beside a set that it is in use, until the block ends; a store or key that refuses that stops no drill.

    :param by: What uses it.
    :param time_limit_s: Seconds after which this counts no more, should nobody take it back.
    """
    name = _say(repository, found, by, time_limit_s) if found.manifest else None
    try:
        yield
    finally:
        if name is not None:
            try:
                repository.store.delete(name)
            except EtcdkeepError as err:
                log.warning("%s stays until its time is over: %s", name, err)


def _say(repository: Repository, found: BackupSet, by: str, time_limit_s: float) -> str | None:
    until = repository.records.now() + timedelta(seconds=time_limit_s)
    try:
        return repository.record_use(found, InUse(by=by, until=until))
    except EtcdkeepError as err:
        log.warning("backup %s is not marked as in use: %s", found.name, err)
        return None
