"""The unit tier: no network, whatever a test does."""

from __future__ import annotations

import socket

import pytest
import urllib3  # looks for IPv6 when it is imported

from tests.site_fixtures import database, make_site, site

__all__ = ["database", "make_site", "site", "urllib3"]


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        pytest.fail(f"a unit test used the network: {args[1:]}")

    for method in ("bind", "connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, refuse)
