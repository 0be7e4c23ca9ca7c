"""
Tonight's answer to the question of the worst day: what a restore's preflight would say of this set, on this cluster, now.

Everything that preflight asks is asked, nothing is changed. That the cluster is healthy does not count.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.errors import TransientError
from etcdkeep.restore.form import WHAT
from etcdkeep.restore.judge.finding import needs_attention
from etcdkeep.restore.options import Options
from etcdkeep.restore.prepare import prepare_restore
from etcdkeep.sets.results import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from etcdkeep.restore.prepare import Access
    from etcdkeep.sealing.age_keys import Identity
    from etcdkeep.sets.backup_set import BackupSet


def rehearse(site: Access, found: BackupSet, identities: Sequence[Identity] | None, *, now: datetime) -> Rehearsal:
    """
    Return whether a restore of this set could be planned now; storing the answer is the caller's act.

    :param site: As for :func:`~etcdkeep.restore.prepare.prepare_restore`.
    :param identities: Private age keys; without them the answer is ``unknown``.
    """
    began, cluster = time.monotonic(), site.cluster
    what = WHAT["etcd+pki" if cluster.control_plane.has_nodes else "etcd"]
    options = Options(naming.restore_id(cluster.name, now, "rehearsal"), now, what)
    try:
        ready = prepare_restore(site, found, options, identities, now=now, choose_way=True)
    except TransientError as err:
        return Rehearsal(at=now, restorable="unknown", reasons=(str(err),), seconds=_since(began))
    stops = needs_attention(ready.findings)
    unasked = [each for each in stops if each.topic == "unasked"]
    return Rehearsal(
        at=now,
        restorable="unknown" if unasked else "no" if stops else "yes",
        reasons=tuple(each.sentence for each in unasked or stops),
        warnings=tuple(each.sentence for each in ready.findings if each.severity == "warning"),
        seconds=_since(began),
    )


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
