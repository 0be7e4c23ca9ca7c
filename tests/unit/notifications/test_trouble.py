"""Once a day and not once a try."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.notifications.events import make_event
from etcdkeep.notifications.trouble import Trouble, read_trouble, whom_to_tell

TODAY = date(2026, 11, 27)
ALL = ("oncall", "chat")


def test_everybody_is_told_at_first():
    assert whom_to_tell(None, TODAY, ALL) == ALL


def test_nobody_is_told_twice_a_day_and_everybody_the_day_after():
    known = Trouble("2026-11-27")
    assert whom_to_tell(known, TODAY, ALL) == ()
    assert whom_to_tell(known, TODAY + timedelta(days=1), ALL) == ALL


def test_who_was_missed_is_told_the_next_time():
    assert whom_to_tell(Trouble("2026-11-27", ("chat",)), TODAY, ALL) == ("chat",)
    assert whom_to_tell(Trouble("2026-11-27", ("left the list",)), TODAY, ALL) == ()


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"day": null, "missed": 3}', "\0", '{"day": "2026-11-27", "missed": 3}'])  # fmt: skip
def test_a_memory_that_cannot_be_read_silences_nobody(text):
    assert whom_to_tell(read_trouble(text), TODAY, ALL) == ALL


def test_a_memory_is_read_as_it_was_written():
    known = Trouble("2026-11-27", ("chat",))
    assert read_trouble(known.to_text()) == known
    assert read_trouble(None) is None


@given(st.lists(st.integers(0, 7 * 24 * 60 - 1), min_size=1, max_size=300))
def test_whatever_the_failures_each_day_is_told_once(minutes):
    begun = datetime(2026, 11, 23, tzinfo=UTC)
    known, told = None, Counter()
    moments = [begun + timedelta(minutes=minute) for minute in sorted(minutes)]
    for moment in moments:
        if whom_to_tell(known, moment.date(), ALL):
            told[moment.date()] += 1
            known = Trouble(moment.date().isoformat())
    assert told == Counter({moment.date(): 1 for moment in moments})


def test_an_event_obeys_no_terminal_and_no_mail():
    at = datetime(2026, 11, 27, 2, 30, tzinfo=UTC)
    event = make_event("backup_failed", "harbor", at, "it failed\r\nBcc: x\x1b[31m", details=("Task a: \x1b]0;b\x07c",), topic="backup", run_id="r", missing=None)  # fmt: skip
    assert event.subject == "etcdkeep: harbor: it failed Bcc: x"
    assert "\x1b" not in event.text
    assert event.as_json() == {
        "event": "backup_failed",
        "cluster": "harbor",
        "at": "2026-11-27T02:30:00+00:00",
        "subject": event.subject,
        "text": event.text,
        "key": "etcdkeep/harbor/backup",
        "link": "",
        "facts": {"run_id": "r"},
    }
