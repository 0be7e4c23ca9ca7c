"""The settings `notifications` and `ping`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from etcdkeep.config.loading import parse_config
from etcdkeep.config.notifications import EVENTS
from tests.builders import make_cluster, make_entry, make_file

HOOK = {"name": "chat", "webhook": {"url": "https://hooks.example.net/x"}}
MAIL = {"name": "mail", "notifier": "airflow.providers.smtp.notifications.smtp.SmtpNotifier", "arguments": {"to": "a"}}


def problems(**overrides):
    return parse_config(make_file(make_entry(**overrides)), "test").problems


def test_an_entry_is_told_everything_unless_it_names_events():
    chat, mail = make_cluster(notifications=[HOOK, {**MAIL, "events": ["stale"]}]).notifications
    assert chat.events == EVENTS
    assert mail.events == ("stale",)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        pytest.param({"name": "x"}, "give exactly one of notifier, webhook", id="neither"),
        pytest.param({**MAIL, "webhook": HOOK["webhook"]}, "give exactly one of notifier, webhook", id="both"),
        pytest.param({**HOOK, "arguments": {"to": "a"}}, "a webhook has none", id="arguments-of-a-webhook"),
        pytest.param({**HOOK, "webhook": {}}, "give exactly one of url, connection, path", id="no-url"),
        pytest.param({**HOOK, "webhook": {"url": "x", "path": "/x"}}, "begins with https://", id="not-a-url"),
        pytest.param({**HOOK, "events": ["backup_faild"]}, "'backup_failed'", id="event-misspelt"),
        pytest.param({**HOOK, "events": []}, "at least 1", id="no-event"),
        pytest.param({**HOOK, "timeout_s": 60}, "less than or equal to 15", id="longer-than-airflow-waits"),
        pytest.param({**MAIL, "notifier": "SmtpNotifier"}, "pattern", id="no-class-path"),
        pytest.param({**HOOK, "colour": "red"}, "unknown key", id="unknown-key"),
    ],
)
def test_a_wrong_entry_is_named(entry, said):
    (found,) = [each for each in problems(notifications=[entry]) if said in each]
    assert "(harbor).notifications[0]" in found


def test_names_are_unique():
    (found,) = problems(notifications=[HOOK, HOOK])
    assert "given twice: chat" in found


def test_a_ping_of_a_cluster_replaces_that_of_the_defaults_as_a_whole():
    text = make_file(make_entry(ping={"path": "/run/ping"}), make_entry(name="other"), defaults={"ping": {"url": "https://a.example.net", "timeout_s": 3}})  # fmt: skip
    config = parse_config(text, "test")
    assert config.problems == ()
    assert config.cluster("harbor").ping.model_dump() == {"url": None, "connection": None, "path": "/run/ping", "timeout_s": 5}  # fmt: skip
    assert config.cluster("other").ping.timeout_s == 3


def test_without_them_nobody_is_told():
    cluster = make_cluster()
    assert (cluster.notifications, cluster.ping) == ((), None)


def test_the_page_names_every_event():
    page = (Path(__file__).parents[3] / "docs/monitoring.md").read_text()
    table = page.partition("## Who is notified")[2].partition("## When it rings")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == EVENTS
