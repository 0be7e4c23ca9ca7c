"""What the steps of a backup hand to each other by XCom, which others can edit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from airflow.sdk import DAG

from etcdkeep.errors import EtcdkeepError, RecordRefused
from etcdkeep_airflow.operators.backup import (
    CleanupOperator,
    CopyOutOperator,
    DiscoverOperator,
    SnapshotOperator,
    UploadOperator,
)


def execute(kind: Any, context: Any, **arguments: Any) -> Any:
    with DAG(dag_id="backup__harbor", schedule=None):
        operator = kind(task_id="task", cluster="harbor", **arguments)
    return operator.execute(context)


def edited(value: dict[str, Any], **fields: Any) -> dict[str, Any]:
    changed = copy.deepcopy(value)
    changed.update(fields)
    return changed


def test_an_edited_hand_over_fails_the_step(opened: Any, make_context: Any) -> None:
    """A path edited in XCom would have been read out of the pod, and removed."""
    found = execute(DiscoverOperator, make_context())
    saved = execute(SnapshotOperator, make_context(), discovery=found)
    forged = edited(saved, signed=saved["signed"].replace(saved["path"], "/etc/kubernetes/pki/etcd/ca.key"))
    with pytest.raises(RecordRefused, match="was altered, or is signed by a key that is not trusted"):
        execute(CopyOutOperator, make_context(), discovery=found, snapshot=forged)


@pytest.mark.parametrize("value", [None, "text", {}, {"path": "/tmp/x"}, {"signed": 7}, {"signed": "{}"}])
def test_a_step_that_was_only_marked_as_done_hands_over_nothing(opened: Any, make_context: Any, value: Any) -> None:
    with pytest.raises(RecordRefused):
        execute(SnapshotOperator, make_context(), discovery=value)


def test_what_is_shown_beside_it_decides_nothing(opened: Any, make_context: Any) -> None:
    found = execute(DiscoverOperator, make_context())
    saved = execute(SnapshotOperator, make_context(), discovery=edited(found, members=[]))
    copied = execute(CopyOutOperator, make_context(), discovery=found, snapshot=edited(saved, path="/etc/shadow"))
    assert copied["artifact"]["name"] == "etcd.db.zst.age"


def test_another_run_s_hand_over_is_refused(opened: Any, make_context: Any) -> None:
    found = execute(DiscoverOperator, make_context(run_id="manual__another"))
    with pytest.raises(RecordRefused, match="was copied here"):
        execute(SnapshotOperator, make_context(), discovery=found)


def test_cleanup_clears_what_it_can_and_says_so(opened: Any, make_context: Any) -> None:
    with pytest.raises(RecordRefused):
        execute(CleanupOperator, make_context(), discovery={"signed": "{}"})
    assert opened.leftovers() == []


def test_a_set_without_its_node_files_is_not_published(opened: Any, make_context: Any) -> None:
    """`fetch_pki` was marked as done, or its XCom emptied."""
    found = execute(DiscoverOperator, make_context())
    saved = execute(SnapshotOperator, make_context(), discovery=found)
    copied = execute(CopyOutOperator, make_context(), discovery=found, snapshot=saved)
    with pytest.raises(EtcdkeepError, match=r"the node files of run .* is missing"):
        execute(UploadOperator, make_context(), discovery=found, copied=copied, node_files=None)
