"""The rehearsal of a restore, on the night of the backup."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException

from etcdkeep.errors import NeedsAttention, Unreachable
from etcdkeep_airflow.operators.rehearse import RehearseOperator
from tests.restore_site import RestoreSite

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RestoreSite:
    made = RestoreSite(tmp_path)
    made.install(monkeypatch)
    monkeypatch.setattr(RehearseOperator, "backup_id", lambda self, context: made.manifest.backup_id)
    return made


def rehearse(site: RestoreSite) -> Any:
    with DAG(dag_id="backup__prod", schedule=None):
        operator = RehearseOperator(task_id="rehearse", cluster="prod")
    return operator.execute({"dag_run": SimpleNamespace()})


def found(site: RestoreSite) -> Any:
    return site.repository.get("prod", site.manifest.backup_id)


def change(site: RestoreSite, **facts: Any) -> None:
    site.facts["cp-0"] = replace(site.facts["cp-0"], **facts)


def test_a_healthy_cluster_s_backup_is_restorable_though_no_restore_is_needed(site: RestoreSite) -> None:
    change(site, etcd_healthy=True)
    answer = rehearse(site)
    assert answer["restorable"] == "yes"
    assert (found(site).standing, found(site).restorable) == ("good", "yes")
    assert site.machines["10.0.0.1"].count == 0, "it only asks"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        pytest.param({"tools": ()}, "node cp-0", id="no-tool"),
        pytest.param({"free_bytes": 10}, "10 bytes are free", id="no-room"),
        pytest.param({"ca_sha256": "f" * 64}, "belongs to another cluster", id="another-cluster"),
    ],
)
def test_what_a_restore_would_stumble_over_is_said_the_same_night(
    site: RestoreSite, facts: dict[str, Any], said: str
) -> None:
    change(site, **facts)
    with pytest.raises(NeedsAttention, match=said):
        rehearse(site)
    assert found(site).state == "good", "the set stays"
    assert found(site).standing == "good, not restorable"
    assert any(said in reason for reason in found(site).rehearsal.body.reasons)


def test_a_node_that_does_not_answer_leaves_it_unknown(site: RestoreSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(address: str) -> Any:
        raise Unreachable("node ubuntu@10.0.0.1 could not be reached: timed out.")

    monkeypatch.setattr(site, "open_node", unreachable)
    with pytest.raises(AirflowSkipException, match=r"cannot tell whether .*cannot be reached"):
        rehearse(site)
    assert (found(site).standing, found(site).restorable) == ("good", "unknown")


def test_the_last_rehearsal_counts_and_a_forged_one_does_not(site: RestoreSite) -> None:
    change(site, free_bytes=10)
    with pytest.raises(NeedsAttention):
        rehearse(site)
    change(site, free_bytes=10**12)
    rehearse(site)
    assert found(site).restorable == "yes"
    name = f"prod/{site.manifest.backup_id}/rehearsal/29991231T000000.000000Z.json"
    with site.repository.store.create(name) as sink:
        sink.write(b'{"restorable": "no"}')
    assert found(site).restorable == "yes"
    assert [each.word for each in found(site).refused] == ["unsigned"]
