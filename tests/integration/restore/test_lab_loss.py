"""What a restore would undo, counted in the data directories of the lab's nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from etcdkeep.restore.loss import Loss, Losses, find_losses
from lab.waiting import wait_for
from tests.integration.restore.lab_restore import LabRestore

if TYPE_CHECKING:
    from tests.integration.conftest import StartRun


@pytest.mark.parametrize("cluster", ["harbor", "fleet"])
def test_what_was_written_since_the_backup_stands_in_the_newest_data_directory(
    start_run: StartRun, cluster: str
) -> None:
    restore = LabRestore(start_run(cluster, discovered=False))
    nodes = restore.prepare().facts
    assert isinstance(nodes, tuple)
    site = restore.site

    def counted() -> Losses:
        return find_losses(restore.found, site.repository.store, site.identities(), None, site.open_node, nodes)

    spoiled = Loss("configmaps", "shop", created=1, changed=1, deleted=0)
    wait_for(lambda: spoiled in counted().rows, "etcd to have committed what was written")
    assert "counted in the data directory of node" in counted().notes[0]
    restore.ruin()
    assert len(counted().unknown.split("snap/db of node")) == len(nodes) + 1
    with restore.engine(restore.plan()) as engine:
        engine.walk()
    restored = counted()
    assert not restored.unknown
    assert not [row for row in restored.rows if (row.kind, row.namespace) == ("configmaps", "shop")]
