"""Delivering within a bounded time."""

from __future__ import annotations

import threading
import time

from etcdkeep.errors import Unreachable
from etcdkeep.notifications.deliver import Delivery, deliver, public


def test_who_fails_or_hangs_keeps_neither_the_others_nor_the_caller_waiting(caplog):
    ended, got = threading.Event(), []

    def fail():
        raise RuntimeError("https://secret.example.net/canary")

    begun = time.monotonic()
    missed = deliver(
        [
            Delivery("hangs", 0.5, lambda: ended.wait(60), public),
            Delivery("fails", 5, fail, public),
            Delivery("works", 5, lambda: got.append("it"), public),
            Delivery("hangs too", 0.5, lambda: ended.wait(60), public),
        ]
    )
    took = time.monotonic() - begun
    ended.set()
    assert (missed, got) == (("hangs", "fails", "hangs too"), ["it"])
    assert 0.5 <= took < 1.0, "side by side, and no longer than the longest time-out of those that hang"
    assert "hangs could not be notified: did not finish within 0.5 s" in caplog.text
    assert "fails could not be notified: RuntimeError (its text is not shown: it may hold a secret)" in caplog.text
    assert "canary" not in caplog.text


def test_an_error_of_ours_is_shown_in_full():
    assert public(Unreachable("hooks.example.net answered 503")) == "hooks.example.net answered 503"


def test_nobody_to_tell_takes_no_time():
    assert deliver([]) == ()
