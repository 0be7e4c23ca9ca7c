"""Webhooks and pings to a real HTTP server on loopback, sound and not."""

from __future__ import annotations

import logging
import socket
import time

import pytest

from etcdkeep.adapters.web_hook import ping, post_json, signal_url
from etcdkeep.errors import PermanentError, Unreachable
from tests.web_hooks import hook_server

SECRET = "canary-5b1f"


@pytest.fixture
def hooks():
    with hook_server() as server:
        yield server


def test_a_document_arrives_as_json(hooks):
    post_json(f"{hooks.url}/hook/{SECRET}?a=b", {"event": "stale", "text": "zu alt: über 36 h"}, 5)
    assert hooks.paths() == [f"/hook/{SECRET}?a=b"]
    assert hooks.events() == [{"event": "stale", "text": "zu alt: über 36 h"}]


def test_pings_follow_the_convention(hooks):
    for signal in ("start", "success", "fail"):
        ping(f"{hooks.url}/{SECRET}/slug?create=1", signal, "run 1", 5)
    assert hooks.paths() == [f"/{SECRET}/slug/start?create=1", f"/{SECRET}/slug?create=1", f"/{SECRET}/slug/fail?create=1"]  # fmt: skip
    assert hooks.seen[0][1] == b"run 1"


def test_a_slash_at_the_end_is_not_doubled():
    assert signal_url("https://a.example.net/x/", "start") == "https://a.example.net/x/start"


@pytest.mark.parametrize("code", [400, 401, 404, 301, 302])
def test_a_refusal_is_final_and_names_no_more_than_the_host(hooks, code):
    hooks.answers["/"] = code
    with pytest.raises(PermanentError, match=rf"^127\.0\.0\.1 answered {code}, expected 2xx") as caught:
        post_json(f"{hooks.url}/{SECRET}", {}, 5)
    assert SECRET not in str(caught.value)
    assert len(hooks.seen) == 1, "no retry, and no redirect is followed"


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_in_trouble_is_asked_three_times(hooks, code):
    hooks.answers["/"] = code
    with pytest.raises(Unreachable, match=f"answered {code}"):
        post_json(f"{hooks.url}/{SECRET}", {}, 5)
    assert len(hooks.seen) == 3


def test_a_connection_that_is_cut_is_tried_again_and_may_succeed(hooks):
    hooks.answers["/"] = "cut"
    with pytest.raises(Unreachable) as caught:
        post_json(f"{hooks.url}/{SECRET}", {}, 5)
    assert len(hooks.seen) == 3
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "requests quotes the whole URL"


def test_a_server_that_hangs_is_not_waited_for_longer_than_the_time_out(hooks):
    hooks.answers["/"] = "hang"
    begun = time.monotonic()
    with pytest.raises(Unreachable, match=r"no answer from 127\.0\.0\.1 within 0\.6 s"):
        post_json(f"{hooks.url}/{SECRET}", {}, 0.6)
    assert time.monotonic() - begun < 2


def test_nobody_there(hooks):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable, match="Check the URL, the network and the proxy"):
        ping(f"http://127.0.0.1:{port}/{SECRET}", "success", "", 2)


def test_no_url_is_logged(hooks, caplog):
    caplog.set_level(logging.INFO)
    ping(f"{hooks.url}/{SECRET}", "start", "", 2)
    hooks.answers["/"] = 500
    with pytest.raises(Unreachable):
        ping(f"{hooks.url}/{SECRET}", "fail", "", 2)
    assert SECRET not in caplog.text
