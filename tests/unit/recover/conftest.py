"""Recoveries planned and applied against an API in memory."""

from __future__ import annotations

import pytest

from etcdkeep.objects.selection import Selection
from etcdkeep.recover.gather import gather
from etcdkeep.recover.planning import plan_recovery
from tests.live_api import backup_of


@pytest.fixture
def plan():
    """Plan the recovery of a backup's objects; without a selection, of namespace shop."""

    def make(api, *objects, selection=None, overwrite=False, include_left_out=False):
        with backup_of(*objects) as source:
            return plan_recovery(
                api,
                gather(source, selection or Selection(namespaces=("shop",))),
                cluster="harbor",
                backup_id="20261123T023000Z-1f0c9a3e",
                recovery_id="20261123T093000Z-77ab01c2",
                reason="deleted by mistake",
                meant="namespace shop",
                overwrite=overwrite,
                include_left_out=include_left_out,
            )

    return make


@pytest.fixture
def actions():
    """Return what a plan does to each object, by label."""
    return lambda plan: {each.label: each.action for each in plan.objects}


@pytest.fixture
def one():
    """Return the object of a plan with that label."""

    def find(plan, label):
        (found,) = [each for each in plan.objects if each.label == label]
        return found

    return find
