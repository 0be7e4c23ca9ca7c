"""``runbook --begun``: a restore that was broken off, and whose Airflow is gone, by its own plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.adapters.directory import DirectoryStore
from etcdkeep.cli import main
from etcdkeep.config_file import CONFIG_VARIABLE
from etcdkeep.restore.planning import Options
from etcdkeep.restore.plans import plan_restore
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.runbook import render_runbook
from tests.builders import make_entry, make_file
from tests.unit.restore.builders import PLANNED_AT, make_cluster, make_facts, make_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RESTORE = "restore-20261101T000000Z-00000001"


@pytest.fixture
def record(tmp_path: Path) -> RestoreRecord:
    return RestoreRecord(DirectoryStore(tmp_path / "repository"), "harbor", RESTORE)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    config = tmp_path / "clusters.yaml"
    config.write_text(make_file(make_entry(repository=f"file://{tmp_path}/repository")))
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))

    def invoke(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["runbook", *args])
        code = ended.value.code
        return (code if isinstance(code, int) else 0, *capsys.readouterr())

    return invoke


def test_a_restore_that_was_begun_is_printed_as_it_stands_on_record(
    run: Callable[..., Any], record: RestoreRecord
) -> None:
    cluster = make_cluster()
    plan = plan_restore(cluster, make_manifest(), [make_facts()], Options(RESTORE, PLANNED_AT))
    record.begin(record.keep_plan(plan, "what the approvers saw", PLANNED_AT))
    code, out, _ = run("harbor", "--begun", RESTORE)
    assert (code, out) == (0, render_runbook(plan, cluster.ssh))


def test_one_that_was_not_begun_is_not_made_up(run: Callable[..., Any], record: RestoreRecord) -> None:
    code, out, err = run("harbor", "--begun", record.restore)
    assert (code, out) == (1, "")
    assert "was begun" in err
