"""An API server that ends as a real one does: late."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from lab.waiting import wait_for

if TYPE_CHECKING:
    from lab import Site


def test_it_is_not_ready_any_more_and_yet_there(site: Site) -> None:
    harbor = site.clusters["harbor"]
    late = site.layout.clusters["harbor"].node(harbor.node.name).api_ends_late
    before = harbor.node.container("kube-apiserver")

    def is_ready() -> bool:
        return not harbor.kubectl("get", "--raw=/readyz", check=False).returncode

    late.touch()
    try:
        os.kill(before.pid, signal.SIGTERM)
        wait_for(lambda: not is_ready(), "the API server to say that it ends")
        now = harbor.node.container("kube-apiserver")
        assert (now.id, now.running) == (before.id, True)
    finally:
        late.unlink()
        os.kill(before.pid, signal.SIGKILL)
        wait_for(is_ready, "its successor")
