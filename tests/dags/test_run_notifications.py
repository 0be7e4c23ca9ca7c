"""Who is told of a run: the callbacks of the DAGs as they are read, with real servers on loopback."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.errors import NeedsAttention
from etcdkeep_airflow.notifications import memory, telling
from etcdkeep_airflow.notifications.runs import keep_error
from tests.builders import make_entry
from tests.notifiers import Works
from tests.web_hooks import HookServer, hook_server

if TYPE_CHECKING:
    from airflow.sdk import DAG

TOKEN = "canary-91c2e7"
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
TASKS = ("discover", "snapshot", "copy_out", "fetch_pki", "upload", "verify", "rehearse", "cleanup")
GOOD = dict.fromkeys(TASKS, "success")
BROKEN = {**dict.fromkeys(TASKS, "upstream_failed"), "discover": "success", "snapshot": "failed", "cleanup": "success"}
BAD = {**GOOD, "verify": "failed", "rehearse": "upstream_failed"}
NOT_RESTORABLE = {**GOOD, "rehearse": "failed"}


@pytest.fixture
def hooks():
    with hook_server() as server:
        yield server


@pytest.fixture
def variables(monkeypatch) -> dict[str, str]:
    """Airflow's Variables, as a dictionary."""
    kept: dict[str, str] = {}
    fake = SimpleNamespace(
        get=lambda key, default=None: kept.get(key, default),
        set=lambda key, value, description=None: kept.__setitem__(key, value),
        delete=lambda key: kept.pop(key, None),
    )
    monkeypatch.setattr(memory, "Variable", fake)
    return kept


@dataclass
class FakeTask:
    """A task instance as far as callbacks ask it."""

    states: dict[str, str]
    errors: dict[str, Any] = field(default_factory=dict)
    try_number: int = 1

    def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, dict[str, str]]:
        return {run_ids[0]: self.states}

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return self.errors.get(task_ids)


@dataclass
class Story:
    """A cluster whose runs end, one after the other."""

    hooks: HookServer
    dag: DAG
    monkeypatch: pytest.MonkeyPatch
    now: datetime = MONDAY

    def ends(self, states: dict[str, str], at: datetime | None = None, **errors: str) -> None:
        """Have a run end."""
        self.now = at or self.now
        self.monkeypatch.setattr(telling, "now", lambda: self.now)
        failed = "failed" in states.values()
        context = {
            "dag": self.dag,
            "run_id": f"scheduled__{self.now.isoformat()}",
            "reason": "task_failure" if failed else "success",
            "ti": FakeTask(states, errors),
        }
        (self.dag.on_failure_callback if failed else self.dag.on_success_callback)(context)

    def told(self, to: str = "/chat") -> list[str]:
        return [event["event"] for event in self.hooks.events(to)]


def notifications(hooks: HookServer) -> dict[str, Any]:
    chat = {"name": "chat", "webhook": {"url": f"{hooks.url}/chat/{TOKEN}/{{cluster}}"}}
    oncall = {"name": "oncall", "webhook": {"url": f"{hooks.url}/oncall"}, "timeout_s": 1}
    return {"notifications": [chat, oncall], "ping": {"url": f"{hooks.url}/ping/{{cluster}}", "timeout_s": 1}}


@pytest.fixture
def tell_story(read_dags, hooks, variables, monkeypatch):
    def make(file: str = "backup.py", **settings: Any) -> Story:
        bag = read_dags(make_entry(**notifications(hooks), **settings), file=file)
        assert bag.import_errors == {}
        (dag,) = bag.dags.values()
        return Story(hooks, dag, monkeypatch)

    return make


@pytest.fixture
def story(tell_story):
    return tell_story()


# --- once a day, not once a try ------------------------------------------------------------------------------------


def test_in_a_week_of_hourly_failures_everybody_is_told_once_a_day_and_of_the_end_once(story, variables):
    for hour in range(7 * 24):
        story.ends(BROKEN, MONDAY + timedelta(hours=hour), snapshot="no member can give a snapshot")
    for _ in range(3):
        story.ends(GOOD, MONDAY + timedelta(days=7))
    for person in ("/chat", "/oncall"):
        events = story.hooks.events(person)
        days = Counter(event["at"][:10] for event in events if event["event"] == "backup_failed")
        assert days == {f"2026-11-{23 + day}": 1 for day in range(7)}
        assert [event["event"] for event in events][7:] == ["recovered"]
    assert story.hooks.paths("/ping") == ["/ping/harbor/fail"] * 7 * 24, "the switch outside hears each"
    assert variables == {}


def test_a_failure_after_a_recovery_is_told_on_the_same_day(story):
    for states in (BROKEN, GOOD, BROKEN, BROKEN, GOOD, GOOD):
        story.ends(states)
    assert story.told() == ["backup_failed", "recovered"] * 2


def test_who_could_not_be_reached_is_told_at_the_next_failure_and_nobody_else(story):
    story.hooks.answers["/oncall"] = 400
    story.ends(BROKEN)
    story.hooks.answers["/oncall"] = 200
    for _ in range(3):
        story.ends(BROKEN)
    assert story.told("/chat") == ["backup_failed"]
    assert story.told("/oncall") == ["backup_failed"] * 2, "refused once, then told"


def test_another_trouble_on_the_same_day_is_told(story):
    for states in (NOT_RESTORABLE, BROKEN, NOT_RESTORABLE, GOOD):
        story.ends(states)
    assert story.told() == ["not_restorable", "backup_failed", "recovered", "recovered"]


def test_an_airflow_that_cannot_remember_tells_rather_twice_than_never(story, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise RuntimeError("canary")

    monkeypatch.setattr(memory, "Variable", SimpleNamespace(get=fail, set=fail, delete=fail))
    for _ in range(2):
        story.ends(BROKEN)
    assert story.told() == ["backup_failed"] * 2
    assert "cannot tell whether people were notified of backup" in caplog.text
    assert "canary" not in caplog.text


# --- what is told --------------------------------------------------------------------------------------------------


def test_what_is_said_of_a_failure(story):
    story.ends(BROKEN, snapshot="no member can give a snapshot. Check etcd.")
    event = story.hooks.events("/chat")[0]
    assert story.hooks.paths("/chat") == [f"/chat/{TOKEN}/harbor"]
    assert event["subject"] == "etcdkeep: harbor: the backup failed: there is no new good one."
    assert "Task snapshot: no member can give a snapshot. Check etcd." in event["text"]
    assert event["facts"] == {"dag_id": "backup__harbor", "run_id": f"scheduled__{MONDAY.isoformat()}", "failed_tasks": ["snapshot"]}  # fmt: skip


def test_a_bad_backup_is_a_failed_one(story):
    story.ends(BAD, verify="backup x is marked bad")
    assert story.told() == ["backup_failed"]
    assert story.hooks.paths("/ping") == ["/ping/harbor/fail"]


def test_a_good_backup_that_could_not_be_restored_is_another_event_and_no_failed_ping(story):
    story.ends(NOT_RESTORABLE, rehearse="correct the host key")
    (event,) = story.hooks.events("/chat")
    assert event["event"] == "not_restorable"
    assert "correct the host key" in event["text"]
    assert story.hooks.paths("/ping") == []


def test_a_run_that_failed_after_a_good_backup_says_so(story):
    story.ends({**GOOD, "cleanup": "failed"})
    (event,) = story.hooks.events("/chat")
    assert (event["event"], event["facts"]["failed_tasks"]) == ("backup_failed", ["cleanup"])
    assert "the backup is good, but its run failed" in event["subject"]
    assert story.hooks.paths("/ping") == []


def test_a_success_without_verification_is_no_recovery(story):
    story.ends(BROKEN)
    story.ends({**GOOD, "verify": "skipped", "rehearse": "skipped"})
    assert story.told() == ["backup_failed"]


def test_a_backup_whose_restorability_is_unknown_leaves_that_trouble_open(story):
    story.ends(NOT_RESTORABLE)
    story.ends({**GOOD, "rehearse": "skipped"})
    assert story.told() == ["not_restorable"]


def test_a_run_of_which_airflow_knows_nothing_is_told_all_the_same(story):
    story.dag.on_failure_callback({"dag": story.dag, "run_id": "x", "reason": "timed_out"})
    (event,) = story.hooks.events("/chat")
    assert (event["event"], "Airflow says: timed_out" in event["text"]) == ("backup_failed", True)
    assert story.hooks.paths("/ping") == ["/ping/harbor/fail"]


@pytest.mark.parametrize("question", ["get_task_states", "xcom_pull"])
def test_an_airflow_that_does_not_answer_silences_nobody(story, monkeypatch, question):
    def fail(*args, **kwargs):
        raise RuntimeError("503")

    monkeypatch.setattr(FakeTask, question, fail)
    story.ends(BROKEN)
    assert story.told() == ["backup_failed"]


def test_a_task_that_was_killed_where_nothing_can_be_kept_raises_nothing():
    def fail(key, value):
        raise RuntimeError("Unhandled request")

    keep_error({"ti": SimpleNamespace(xcom_push=fail)})


def test_a_drill_that_fails_is_told_once_a_day_and_its_recovery_once(tell_story):
    story = tell_story("drill.py", drill={"schedule": None})
    for hour in range(48):
        story.ends({"drill": "failed"}, MONDAY + timedelta(hours=hour), drill="does not restore")
    for _ in range(2):
        story.ends({"drill": "success"})
    assert story.told() == ["drill_failed", "drill_failed", "recovered"]
    assert "does not restore" in story.hooks.events("/chat")[0]["text"]


# --- what cannot harm a backup -------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [500, 404, "hang", "drip", "cut"])
def test_a_receiver_in_trouble_raises_nothing_and_keeps_nobody_waiting(story, answer, caplog):
    story.hooks.answers |= {"/oncall": answer, "/ping": answer}
    begun = time.monotonic()
    story.ends(BROKEN)
    assert time.monotonic() - begun < 3.5, "the time-outs of ping and notification, one second each"
    assert story.told() == ["backup_failed"]
    assert "oncall could not be notified" in caplog.text
    assert "dead-man switch (fail) could not be notified" in caplog.text


def test_a_notifier_that_raises_or_cannot_be_imported_raises_nothing(read_dags, hooks, variables, monkeypatch, caplog):
    entries = [
        {"name": "gone", "notifier": "airflow.providers.nowhere.Notifier"},
        {"name": "raises", "notifier": "tests.notifiers.Raises"},
        {"name": "works", "notifier": "tests.notifiers.Works", "arguments": {"text": "{{ etcdkeep.subject }}"}},
    ]  # fmt: skip
    (dag,) = read_dags(make_entry(notifications=entries), file="backup.py").dags.values()
    Works.got.clear()
    Story(hooks, dag, monkeypatch).ends(BROKEN)
    assert Works.got == ["etcdkeep: harbor: the backup failed: there is no new good one."]
    assert "gone could not be notified: airflow.providers.nowhere.Notifier: notifier 'airflow.providers.nowhere.Notifier' cannot be imported" in caplog.text  # fmt: skip
    assert "raises could not be notified: tests.notifiers.Raises: RuntimeError" in caplog.text


def test_a_configuration_that_became_unusable_raises_nothing(story, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("ETCDKEEP_CONFIG", str(tmp_path / "gone.yaml"))
    story.ends(BROKEN)
    assert "backup_failed: nobody was notified: configuration" in caplog.text


# --- how the DAGs are wired ----------------------------------------------------------------------------------------


def test_pings_are_sent_by_the_first_task_and_by_the_one_that_verifies(story):
    first, verify = story.dag.get_task("discover"), story.dag.get_task("verify")
    context = {"run_id": "r", "ti": FakeTask(GOOD)}
    first.on_execute_callback[0](context)
    verify.on_success_callback[0](context)
    assert story.hooks.paths() == ["/ping/harbor/start", "/ping/harbor"]
    others = [task for task in story.dag.tasks if task.task_id not in ("discover", "verify")]
    assert not any(task.on_execute_callback or task.on_success_callback for task in others)


def test_without_receivers_a_dag_has_no_callbacks(read_dags):
    (dag,) = read_dags(make_entry(), file="backup.py").dags.values()
    assert [dag.on_failure_callback, dag.on_success_callback, dag.deadline] == [None, None, None]
    assert not any(task.on_failure_callback or task.on_execute_callback for task in dag.tasks)


def test_a_late_run_has_a_deadline_where_somebody_wants_to_know(tell_story, read_dags, hooks):
    story = tell_story(limits={"run_s": 5400})
    (deadline,) = story.dag.deadline
    assert deadline.interval == timedelta(seconds=5400)
    assert deadline.callback.path == "etcdkeep_airflow.notifications.backups.backup_late"
    entry = {**notifications(hooks)["notifications"][0], "events": ["stale"]}
    (dag,) = read_dags(make_entry(notifications=[entry]), file="backup.py").dags.values()
    assert not dag.deadline


@pytest.mark.parametrize(
    ("err", "kept"),
    [
        pytest.param(NeedsAttention("could not:", ("host key",)), "could not: host key", id="ours"),
        pytest.param(RuntimeError("password=canary"), "RuntimeError; its log says more.", id="foreign"),
        pytest.param(None, "its process ended without an error; its log says more.", id="killed"),
    ],
)
def test_of_a_failed_task_is_kept_what_may_be_shown(err, kept):
    pushed = {}
    task = SimpleNamespace(xcom_push=lambda key, value: pushed.__setitem__(key, value))
    keep_error({"ti": task, "exception": err})
    assert pushed == {"error": kept}


def test_a_notifier_that_cannot_be_made_is_an_import_error(read_dags):
    entries = [
        {"name": "gone", "notifier": "airflow.providers.nowhere.Notifier"},
        {"name": "wrong", "notifier": "tests.notifiers.Works", "arguments": {"txt": "x"}},
        {"name": "other", "notifier": "collections.OrderedDict"},
        {"name": "misspelt", "notifier": "tests.notifiers.Werks"},
    ]
    bag = read_dags(make_entry(notifications=entries), file="configuration.py")
    (error,) = bag.import_errors.values()
    for said in (
        "harbor.notifications (gone): notifier 'airflow.providers.nowhere.Notifier' cannot be imported",
        "Install its provider on the workers and the DAG processor",
        "(wrong): notifier 'tests.notifiers.Works' does not take its arguments",
        "(other): notifier 'collections.OrderedDict' is not a subclass of airflow.sdk.BaseNotifier",
        "(misspelt): notifier 'tests.notifiers.Werks': module 'tests.notifiers' has no 'Werks'",
    ):
        assert said in error
    assert list(read_dags(make_entry(notifications=entries), file="backup.py").dags) == ["backup__harbor"]
