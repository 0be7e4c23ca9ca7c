"""
Tonight's answer to the question of the worst day: what a restore's preflight would say of this set, on this cluster, now.

Everything that preflight asks is asked, nothing is changed. That the cluster is healthy does not count.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from etcdkeep import naming
from etcdkeep.errors import TransientError
from etcdkeep.repository import Rehearsal
from etcdkeep.restore.form import WHAT
from etcdkeep.restore.planning import Options
from etcdkeep.restore.preflight import blocking
from etcdkeep.restore.prepare import look_round, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime

    from etcdkeep.age_keys import Identity
    from etcdkeep.config import Cluster
    from etcdkeep.ports import CommandRunner, KubeApi, ObjectStore
    from etcdkeep.repository import BackupSet
    from etcdkeep.restore.preflight import Objection


def rehearse(
    cluster: Cluster,
    found: BackupSet,
    store: ObjectStore,
    identities: Sequence[Identity] | None,
    *,
    open_node: Callable[[str], AbstractContextManager[CommandRunner]],
    open_api: Callable[[], KubeApi],
    now: datetime,
) -> Rehearsal:
    """
    Return whether a restore of this set could be planned now; storing the answer is the caller's act.

    :param identities: Private age keys; without them the answer is ``unknown``.
    """
    began = time.monotonic()
    what = WHAT["etcd+pki" if cluster.control_plane.has_nodes else "etcd"]
    options = Options(naming.restore_id(cluster.name, now, "rehearsal"), now, what)
    try:
        known = look_round(cluster, found, store, identities, open_api, now=now)
        ready = prepare(cluster, found, options, known, open_node=open_node, open_api=open_api, choose_way=True)
    except TransientError as err:
        return Rehearsal(at=now, restorable="unknown", reasons=(str(err),), seconds=_since(began))
    stops = needs_attention(ready.objections)
    unasked = [each for each in stops if each.topic == "unasked"]
    return Rehearsal(
        at=now,
        restorable="unknown" if unasked else "no" if stops else "yes",
        reasons=tuple(each.sentence for each in unasked or stops),
        warnings=tuple(each.sentence for each in ready.objections if each.severity == "warning"),
        seconds=_since(began),
    )


def needs_attention(objections: Sequence[Objection], *, override: bool = False) -> list[Objection]:
    """Return the blocking problems that would stop a restore on the day: all but that none is needed today."""
    return [each for each in blocking(objections, override=override) if each.topic != "healthy"]


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
