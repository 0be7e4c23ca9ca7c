"""Small HTTP calls to a webhook or a dead-man service. The URL is a secret: no message quotes it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from etcdkeep.errors import PermanentError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

Signal = Literal["start", "success", "fail"]
ATTEMPTS = 3
PAUSE_S = 0.5


def post_json(url: str, document: Mapping[str, Any], timeout_s: float) -> None:
    """
    Send a document.

    :raises PermanentError: for an answer other than 2xx, a redirect included.
    :raises Unreachable: when no answer came in time.
    """
    _post(url, json.dumps(document).encode(), "application/json", timeout_s)


def ping(url: str, signal: Signal, text: str, timeout_s: float) -> None:
    """
    Send a signal by the convention of healthchecks.io: ``URL/start``, ``URL``, ``URL/fail``.

    :param text: A few words for its log.
    :raises PermanentError: for an answer other than 2xx.
    :raises Unreachable: when no answer came in time.
    """
    _post(signal_url(url, signal), text.encode(), "text/plain; charset=utf-8", timeout_s)


def signal_url(url: str, signal: Signal) -> str:
    """Return the URL of a signal; a query stays behind the path."""
    if signal == "success":
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{signal}"))


def _post(url: str, body: bytes, content_type: str, timeout_s: float) -> None:
    """Send, and again where nobody answered or the server is in trouble, as long as time is left."""
    deadline = time.monotonic() + timeout_s
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _post_once(url, body, content_type, max(0.1, deadline - time.monotonic()))
        except Unreachable:
            if attempt == ATTEMPTS or time.monotonic() + PAUSE_S >= deadline:
                raise
            time.sleep(PAUSE_S)
    return None


def _post_once(url: str, body: bytes, content_type: str, timeout_s: float) -> None:
    import requests  # takes long to import: not at every parse

    headers = {"Content-Type": content_type, "User-Agent": "etcdkeep"}
    try:
        # The answer's body is not read: it may never end.
        with requests.post(url, data=body, headers=headers, timeout=timeout_s, allow_redirects=False, stream=True) as answer:  # fmt: skip
            code = answer.status_code
    except (requests.RequestException, ValueError, OSError) as err:
        raise Unreachable(
            f"no answer from {_host(url)} within {timeout_s:.1f} s: {type(err).__name__}. Check the URL, the network and the proxy."
        ) from None
    if code == 429 or code >= 500:
        raise Unreachable(f"{_host(url)} answered {code}, expected 2xx. Check that service.")
    if not 200 <= code < 300:
        raise PermanentError(f"{_host(url)} answered {code}, expected 2xx. Check the URL; redirects are not followed.")


def _host(url: str) -> str:
    """Return the only part of a URL that may be shown."""
    try:
        return urlsplit(url).hostname or "the webhook"
    except ValueError:
        return "the webhook"
