"""Every step of a restore on the lab's real parts, and everything that may go wrong at it: restored, or as it was before."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest

from etcdkeep.errors import RollbackIncomplete, StepFailed, TransientError
from tests.backup_run import BackupRun, write_config
from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, LabRestore
from tests.integration.restore.struck_walk import StruckWalk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from etcdkeep.restore.steps import Plan
    from lab import Site
    from tests.integration.restore.struck_walk import FaultKind

pytestmark = pytest.mark.timeout(900)
FAULTS = [
    pytest.param("fails", "harbor", id="fails"),
    pytest.param("times-out", "skiff", id="times-out"),
    pytest.param("killed", "harbor", id="killed"),
    pytest.param("cut", "skiff", id="cut"),
    pytest.param("reboots", "harbor", id="reboots"),
]
"""Each kind of fault, where it differs most. tests/unit/restore/test_fault_matrix.py has every step, kind and plan on simulated parts."""
IDLE = ("remains", "partial", "keys-partial", "owner", "mode", "label", "data-folder", "gone")
"""Steps that may have nothing to do."""
PARKING = ("park-etcd", "gone", "unpark-etcd", "unstarted")
REBOOTED = ("snapshot", "keys-copy", "unpack", "stop-", "aside-", "place-", "start-", "unstarted", "etcd-serves")
"""Boots take their time: where files are made, and where the control plane is down."""
IN_BETWEEN = ("stop-containers", "place-keys", "aside-data", "place-data", "etcd-serves")


@pytest.fixture(scope="module")
def restores(lab_site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], LabRestore]]:
    """Give a cluster's backup, with the cluster spoiled since; every test leaves it so."""
    folder = tmp_path_factory.mktemp("matrix")
    write_config(folder / "clusters.yaml", lab_site, {"repository": f"file://{folder}/repository"})
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ETCDKEEP_CONFIG", str(folder / "clusters.yaml"))
        yield cache(lambda cluster: LabRestore(BackupRun(lab_site, cluster)))


@pytest.mark.parametrize(("fault", "cluster"), FAULTS)
@pytest.mark.usefixtures("site")
def test_every_step_struck_ends_restored_and_then_as_it_was(
    restores: Callable[[str], LabRestore], fault: FaultKind, cluster: str
) -> None:
    plan = restores(cluster).plan()
    steps = {step.name for step in (*plan.steps, *plan.after_rollback)}
    if fault == "reboots":
        steps = {name for name in steps if name.startswith(REBOOTED)}
    forth_and_back(StruckWalk(restores(cluster), plan, fault, steps))


@pytest.mark.parametrize(
    ("fault", "elsewhere"),
    [
        pytest.param(
            "fails", {"fleet-cp-0": "cut", "fleet-cp-2": "times-out"}, id="one-fails-one-is-cut-one-times-out"
        ),
        pytest.param("reboots", {}, id="all-reboot"),
    ],
)
@pytest.mark.usefixtures("site")
def test_parked_manifests_of_three_members_struck(
    restores: Callable[[str], LabRestore], fault: FaultKind, elsewhere: dict[str, FaultKind]
) -> None:
    plan = restores("fleet").plan(way="manifests", what=("etcd",))
    steps = {step.name for step in plan.steps if step.name.startswith(PARKING)}
    forth_and_back(StruckWalk(restores("fleet"), plan, fault, steps, elsewhere))


@pytest.mark.usefixtures("site")
def test_a_walk_that_ends_in_between_is_taken_back_from_there(restores: Callable[[str], LabRestore]) -> None:
    restore = restores("harbor")
    plan = restore.plan()
    for index, step in enumerate(IN_BETWEEN):
        StruckWalk(restore, plan, "killed" if index % 2 else "fails").up_to(f"{step}.harbor-cp-0")
        with restore.engine(plan) as engine:
            engine.roll_back()
        restore.expect(SPOILED)


def forth_and_back(walk: StruckWalk) -> None:
    restore, plan = walk.restore, walk.plan
    walk.forth()
    expect_all_struck(walk)
    expect_told(walk, StepFailed)
    restore.expect(AS_BACKED_UP)
    assert restore.report(plan).problems == ()
    expect_set_aside(restore, plan)
    walk.back()
    expect_told(walk, RollbackIncomplete)
    restore.expect(SPOILED)


def expect_all_struck(walk: StruckWalk) -> None:
    acting = {step.name for step in walk.plan.steps if step.action and not step.name.startswith(IDLE)}
    assert acting & walk.wanted <= {*walk.struck}


def expect_told(walk: StruckWalk, error: type[StepFailed | RollbackIncomplete]) -> None:
    """A failure for good ends the walk and says where. The same walk goes on after all else, or, where nobody answers for long, the next."""
    assert bool(walk.errors) or walk.fault != "fails"
    for each in walk.errors:
        assert isinstance(
            each, {"fails": (error, StepFailed), "reboots": (TransientError, RollbackIncomplete)}[walk.fault]
        )
        if isinstance(each, RollbackIncomplete):
            assert each.remaining
        elif isinstance(each, StepFailed):
            assert each.step in walk.struck
            assert each.step.startswith("after-rollback.") or error is StepFailed


def expect_set_aside(restore: LabRestore, plan: Plan) -> None:
    """Every member's old data lies in the run's folder, seen behind the product's back."""
    kept = [
        path for node in restore.cluster.nodes for path in node.root.glob(f"**/.etcdkeep/{plan.run}/old/member/snap/db")
    ]
    assert len(kept) == len(restore.cluster.members)
