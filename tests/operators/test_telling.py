"""Gates, restores, housekeeping and secret URLs: what their callbacks tell, to a real server on loopback."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.api_fastapi.core_api.datamodels.dag_run import DAGRunResponse
from airflow.sdk import DAG
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.triggers.callback import CallbackTrigger

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.cli import main
from etcdkeep.config.loading import CONFIG_VARIABLE
from etcdkeep.config.notifications import UrlRef
from etcdkeep.errors import ConfigError, NeedsAttention, SecretUnavailable, StoreUnavailable
from etcdkeep_airflow.notifications import memory, telling
from etcdkeep_airflow.notifications.backups import _tell_late, backup_late
from etcdkeep_airflow.notifications.restores import GateWaits, restore_ended
from etcdkeep_airflow.operators.housekeeping import HousekeepingOperator, ReportOperator
from etcdkeep_airflow.operators.restore import RestoreApproval
from tests.builders import make_entry, make_file
from tests.fake_site import FakeSite
from tests.notifiers import Works
from tests.shelf import Shelf
from tests.web_hooks import hook_server

RUN = "manual__2026-11-27T03:00:00+00:00"
WALK = ("resolve_backup", "preflight", "approve", "approve_second", "stage", "restore_etcd", "swap", "verify", "fetch_kubeconfig")  # fmt: skip
WELL = {**dict.fromkeys(WALK, "success"), "rollback": "skipped"}
UNDONE = {**WELL, "swap": "failed", "verify": "upstream_failed", "fetch_kubeconfig": "upstream_failed", "rollback": "success"}  # fmt: skip


@pytest.fixture
def hooks(tmp_path, monkeypatch):
    """A server, and a configuration of one cluster that tells it everything."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.net/")
    with hook_server() as server:
        entry = make_entry(notifications=[{"name": "chat", "webhook": {"url": f"{server.url}/chat"}}])
        (tmp_path / "clusters.yaml").write_text(make_file(entry))
        monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "clusters.yaml"))
        yield server


@pytest.fixture(autouse=True)
def variables(monkeypatch) -> dict[str, str]:
    kept: dict[str, str] = {}
    fake = SimpleNamespace(
        get=lambda key, default=None: kept.get(key, default),
        set=lambda key, value, description=None: kept.__setitem__(key, value),
        delete=lambda key: kept.pop(key, None),
    )
    monkeypatch.setattr(memory, "Variable", fake)
    return kept


# --- gates ---------------------------------------------------------------------------------------------------------


def gate_context(try_number: int = 1) -> dict[str, Any]:
    with DAG(dag_id="restore", schedule=None):
        gate = RestoreApproval(task_id="approve", cluster="harbor")
    gate.subject = "Restore cluster harbor to backup x?"
    ti = SimpleNamespace(dag_id="restore", run_id=RUN, task_id="approve", map_index=-1, try_number=try_number)
    return {"task": gate, "ti": ti, "task_instance": ti, "run_id": RUN, "dag": gate.dag}


def test_a_gate_that_waits_is_told_with_the_link_to_it(hooks):
    context = gate_context()
    (notifier,) = context["task"].notifiers
    assert isinstance(notifier, GateWaits)
    notifier(context)
    (event,) = hooks.events()
    assert event["event"] == "approval_waiting"
    assert event["link"] == f"https://airflow.example.net/dags/restore/runs/{RUN}/tasks/approve/required_actions?map_index=-1"  # fmt: skip
    assert event["link"] in event["text"]
    assert "Restore cluster harbor to backup x?" in event["text"]
    assert event["facts"] == {"dag_id": "restore", "run_id": RUN, "gate": "approve"}


def test_a_gate_that_asks_again_says_that_the_answer_did_not_count(hooks):
    GateWaits()(gate_context(try_number=2))
    assert "once more: an earlier answer does not count" in hooks.events()[0]["subject"]


def test_a_gate_does_not_fail_with_its_telling(hooks, monkeypatch, caplog):
    monkeypatch.setenv(CONFIG_VARIABLE, "/nowhere")
    GateWaits()(gate_context())
    assert "gate_waits: nobody was notified" in caplog.text


# --- the end of a restore ------------------------------------------------------------------------------------------


def end_restore(states: dict[str, str], rollback: Any = None, **params: Any) -> None:
    with DAG(dag_id="restore", schedule=None) as dag:
        pass
    errors = {"rollback": rollback}
    ti = SimpleNamespace(
        get_task_states=lambda dag_id, run_ids: {RUN: states},
        xcom_pull=lambda task_ids, key="return_value": errors.get(task_ids) if key == "return_value" else "why",
    )
    named = SimpleNamespace(dag_id=dag.dag_id, task_dict=dict.fromkeys((*WALK, "rollback")))
    restore_ended({"dag": named, "run_id": RUN, "ti": ti, "params": {"cluster": "harbor", "dry_run": False, **params}})


@pytest.mark.parametrize(
    ("states", "rollback", "outcome"),
    [
        pytest.param(WELL, None, "restored", id="restored"),
        pytest.param({**WELL, "fetch_kubeconfig": "failed"}, None, "restored", id="restored-without-kubeconfig"),
        pytest.param(UNDONE, {"kind": "rolled-back"}, "rolled-back", id="rolled-back"),
        pytest.param(UNDONE, {"kind": "held"}, "held", id="held"),
        pytest.param({**UNDONE, "rollback": "failed"}, None, "incomplete", id="rollback-failed"),
        pytest.param(UNDONE, "edited", "incomplete", id="rollback-says-nothing"),
        pytest.param({**dict.fromkeys(WALK, "upstream_failed"), "preflight": "failed", "rollback": "skipped"}, None, "failed", id="refused"),
        pytest.param({**dict.fromkeys(WALK, "skipped"), "preflight": "success", "approve": "success", "rollback": "skipped"}, None, "rejected", id="rejected"),
    ],
)  # fmt: skip
def test_how_a_restore_ended_is_told(hooks, states, rollback, outcome):
    end_restore(states, rollback)
    (event,) = hooks.events()
    assert (event["event"], event["facts"]["outcome"]) == ("restore_ended", outcome)
    assert all(f"Task {task}: why" in event["text"] for task, state in states.items() if state == "failed")


@pytest.mark.parametrize("states", [WELL, UNDONE, {**dict.fromkeys(WALK, "skipped"), "preflight": "failed"}])
def test_a_dry_run_tells_nobody(hooks, states):
    end_restore(states, dry_run=True)
    assert hooks.seen == []


# --- a run that hangs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "told"), [("running", ["backup_late"]), ("failed", []), ("success", [])])
def test_a_late_run_is_told_once_and_only_while_it_runs(hooks, state, told):
    for _ in range(2):
        _tell_late("harbor", {"dag_run": {"dag_id": "backup__harbor", "dag_run_id": RUN, "state": state}})
    assert [event["event"] for event in hooks.events()] == told


def test_airflows_deadline_trigger_calls_it_with_the_run(hooks):
    """As the triggerer does: the path of the DAG's deadline, its arguments, and the run that the scheduler puts beside them."""
    callback = AsyncCallback(backup_late, kwargs={"cluster": "harbor"})
    run = {"dag_id": "backup__harbor", "dag_run_id": RUN, "state": "running"}
    assert set(run) <= set(DAGRunResponse.model_fields)
    kwargs = {**callback.kwargs, "context": {"dag_run": run, "deadline": {"id": "x"}}}

    async def triggered() -> list[Any]:
        return [event.payload async for event in CallbackTrigger(callback.path, kwargs).run()]

    assert [payload["state"] for payload in asyncio.run(triggered())] == ["running", "success"]
    (event,) = hooks.events()
    assert (event["event"], event["facts"]["run_id"]) == ("backup_late", RUN)
    assert (
        event["subject"]
        == "etcdkeep: harbor: a backup has run for 3.0 h and has not ended. Check which task it waits for."
    )


# --- housekeeping --------------------------------------------------------------------------------------------------


def housekeeping_context() -> dict[str, Any]:
    return {"run_id": RUN, "ti": SimpleNamespace(dag_id="housekeeping")}


def report(*answers: dict[str, Any]) -> None:
    with DAG(dag_id="housekeeping", schedule=None):
        operator = ReportOperator(task_id="report", clusters=["harbor"], results=[list(answers)])
    operator.execute(housekeeping_context())


FRESH = {"cluster": "harbor", "status": "OK", "retention": "none", "alarms": []}
STALE = {**FRESH, "status": "CRITICAL", "alarms": ["CRITICAL: newest good backup is 3 d old"]}


def test_stale_backups_are_told_once_a_day_and_fresh_ones_once(hooks, monkeypatch, variables):
    begun = datetime(2026, 11, 23, tzinfo=UTC)
    for hour in range(7 * 24):
        monkeypatch.setattr(telling, "now", lambda at=begun + timedelta(hours=hour): at)
        with pytest.raises(NeedsAttention):
            report(STALE)
    report(FRESH)
    report(FRESH)
    events = hooks.events()
    assert [event["event"] for event in events] == ["stale"] * 7 + ["recovered"]
    assert [event["at"][8:10] for event in events[:7]] == ["23", "24", "25", "26", "27", "28", "29"]
    assert "CRITICAL: newest good backup is 3 d old" in events[0]["text"]
    assert variables == {}


def test_a_cluster_whose_housekeeping_failed_is_told(hooks):
    with pytest.raises(NeedsAttention):
        report()
    assert "its housekeeping failed" in hooks.events()[0]["text"]


def test_a_backup_that_is_a_little_late_is_told_and_fails_no_report(hooks, tmp_path, monkeypatch, make_context):
    shelf = Shelf(tmp_path, rehearse=False, schedule="@hourly", freshness={"warn_after": "1h", "fail_after": "90000d"})
    shelf.add(5)
    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda name: FakeSite(tmp_path, shelf.cluster))
    with DAG(dag_id="housekeeping", schedule=None):
        operator = HousekeepingOperator(task_id="housekeeping", cluster="harbor")
    answer = operator.execute(make_context())
    assert answer["status"] == "WARNING"
    report(answer)
    (event,) = hooks.events()
    assert event["event"] == "stale"
    assert "newest good backup" in event["text"]


def test_a_repository_that_does_not_answer_ends_as_a_told_cluster(hooks, tmp_path, monkeypatch, make_context):
    shelf = Shelf(tmp_path, rehearse=False)

    def fail(self, prefix=""):
        raise StoreUnavailable("503")

    monkeypatch.setattr(DirectoryStore, "list", fail)
    monkeypatch.setattr("etcdkeep_airflow.hooks.open_site", lambda name: FakeSite(tmp_path, shelf.cluster))
    with DAG(dag_id="housekeeping", schedule=None):
        operator = HousekeepingOperator(task_id="housekeeping", cluster="harbor")
    with pytest.raises(StoreUnavailable):
        operator.execute(make_context())
    with pytest.raises(NeedsAttention):
        report()
    assert [event["event"] for event in hooks.events()] == ["stale"]


# --- config check --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notifier", "code", "said"),
    [
        pytest.param({"notifier": "airflow.providers.smtp.notifications.smtp.SmtpNotifier", "arguments": {"to": "a"}}, 0, "1 cluster(s), no problem", id="installed"),
        pytest.param({"notifier": "airflow.providers.nowhere.Notifier"}, 2, "Install its provider", id="not-installed"),
        pytest.param({"notifier": "airflow.providers.smtp.notifications.smtp.SmtpNotifier"}, 2, "does not take its arguments: missing a required argument: 'to'", id="argument-missing"),
    ],
)  # fmt: skip
def test_config_check_names_a_notifier_that_cannot_be_used(tmp_path, capsys, notifier, code, said):
    (tmp_path / "clusters.yaml").write_text(make_file(make_entry(notifications=[{"name": "mail", **notifier}])))
    with pytest.raises(SystemExit) as ended:
        main(["config", "check", str(tmp_path / "clusters.yaml")])
    out, err = capsys.readouterr()
    assert (ended.value.code or 0) == code
    assert said in out + err
    assert code == 0 or "harbor.notifications (mail)" in err


def test_config_check_without_airflow_says_that_notifiers_were_not_checked(tmp_path, capsys, monkeypatch):
    notifier = {"name": "mail", "notifier": "airflow.providers.nowhere.Notifier"}
    (tmp_path / "clusters.yaml").write_text(make_file(make_entry(notifications=[notifier])))
    monkeypatch.setitem(sys.modules, "etcdkeep_airflow.notifications.notifiers", None)
    with pytest.raises(SystemExit) as ended:
        main(["config", "check", str(tmp_path / "clusters.yaml")])
    assert not ended.value.code
    assert "notifiers were not checked: no Airflow here" in capsys.readouterr().err


# --- a test message ------------------------------------------------------------------------------------------------


def notify_command(capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["config", "notify", "harbor"])
    return ended.value.code or 0, capsys.readouterr().out


def test_a_test_message_reaches_everybody_or_says_whom_it_did_not(tmp_path, monkeypatch, capsys, caplog):
    with hook_server() as server:
        entries = [
            {"name": "chat", "webhook": {"url": f"{server.url}/chat"}, "events": ["stale"]},
            {"name": "mail", "notifier": "tests.notifiers.Works", "arguments": {"text": "{{ etcdkeep.subject }}"}},
        ]
        (tmp_path / "clusters.yaml").write_text(make_file(make_entry(notifications=entries)))
        monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "clusters.yaml"))
        monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # and unset again: the command sets it
        Works.got.clear()
        assert notify_command(capsys) == (0, "chat: ok\nmail: ok\n")
        assert [event["event"] for event in server.events()] == ["test"]
        assert Works.got == ["etcdkeep: harbor: this is a test message. Nothing has happened."]
        server.answers["/chat"] = 404
        assert notify_command(capsys) == (1, "chat: failed\nmail: ok\n")
        assert "127.0.0.1 answered 404, expected 2xx" in caplog.text


# --- where URLs are kept -------------------------------------------------------------------------------------------


@pytest.fixture
def masked(monkeypatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(telling, "mask_secret", found.extend)
    return found


URL = "https://hc.example.net/canary-key/{cluster}?x=canary-query"


@pytest.mark.parametrize("place", ["url", "file", "password", "extra"])
def test_a_url_comes_from_each_place_and_is_masked(place, tmp_path, monkeypatch, masked):
    (tmp_path / "url").write_text(f"{URL}\n")
    (tmp_path / "url").chmod(0o600)
    monkeypatch.setenv("AIRFLOW_CONN_PASSWORD", f'{{"conn_type": "generic", "password": "{URL}"}}')
    monkeypatch.setenv("AIRFLOW_CONN_EXTRA", f'{{"conn_type": "http", "extra": {{"url": "{URL}"}}}}')
    places = {"url": {"url": URL}, "file": {"path": str(tmp_path / "url")}}
    ref = UrlRef.model_validate(places.get(place) or {"connection": place})
    expected = "https://hc.example.net/canary-key/harbor?x=canary-query"
    assert telling.read_url(ref, "harbor") == expected
    assert masked == [expected, "/canary-key/harbor", "x=canary-query"], "a library may log the path alone"


def test_a_place_without_a_url_is_named_and_not_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", '{"conn_type": "generic", "password": "canary"}')
    with pytest.raises(ConfigError, match=r"^connection 'empty' holds no URL") as caught:
        telling.read_url(UrlRef(connection="empty"), "harbor")
    assert "canary" not in str(caught.value)
    with pytest.raises(SecretUnavailable):
        telling.read_url(UrlRef(path=str(tmp_path / "none")), "harbor")
