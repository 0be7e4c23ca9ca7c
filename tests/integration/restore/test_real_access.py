"""A whole restore as on a real node: OpenSSH through a jump host, and docker with the vendor's image; API, kubelet and etcd are the lab's."""

from __future__ import annotations

from datetime import UTC, datetime
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from etcdkeep.errors import StepFailed
from lab.waiting import wait_for
from tests.docker_engine import IMAGE, docker, imported
from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, LabRestore
from tests.integration.restore.real_access import RealAccess, docker_alone, reached_by_openssh
from tests.integration.restore.test_lab_runbook import etcdkeep, paste
from tests.openssh import needs_sshd
from tests.restore_ran import RestoreTasks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Site
    from tests.integration.conftest import StartRun

pytestmark = [needs_sshd, pytest.mark.usefixtures("etcd_util")]

CUT_ONCE = """#!/bin/sh
case $* in
*"--name etcdkeep-restore"*"snapshot restore"*)
  [ -e {folder}/cut ] || {{
    {docker} run --detach --name "$4" --network none {image} etcdctl --endpoints=http://127.0.0.1:1 --dial-timeout=1h get k
    touch {folder}/cut
    exec sleep 600
  }}
esac
exec {docker} "$@"
"""


@pytest.fixture
def access(site: Site, tmp_path: Path) -> Iterator[RealAccess]:
    with reached_by_openssh(site, site.clusters["harbor"].node, tmp_path) as access:
        yield access


@pytest.fixture
def client(site: Site) -> Iterator[Path]:
    """Where the docker client of the node lies."""
    with docker_alone(site.clusters["harbor"].node) as client:
        yield client


def approved(restore: LabRestore, **form: Any) -> RestoreTasks:
    """Return a run whose plan two people have approved."""
    tasks = RestoreTasks("harbor", restore.found.backup_id, datetime.now(UTC), **form)
    tasks.approve()
    return tasks


@pytest.mark.usefixtures("client")
def test_the_shipped_tasks_bring_a_ruined_cluster_back(start_run: StartRun, access: RealAccess) -> None:
    restore = LabRestore(start_run("harbor", discovered=False, **access.configuration))
    restore.ruin()
    tasks = approved(restore)
    assert f"in {IMAGE} by docker" in tasks.pushed["page"]
    assert "unpack.harbor-cp-0" in tasks.walk("stage", "restore_etcd")["steps"]
    assert tasks.walk("swap", "verify")["kind"] == "restored"
    restore.expect(AS_BACKED_UP)
    assert tasks.walk("fetch_kubeconfig")["kubeconfig"]
    assert access.jump.logins() == access.node.logins() > 0


@pytest.mark.usefixtures("client")
def test_the_shipped_tasks_roll_back_what_docker_cannot_do(start_run: StartRun, access: RealAccess) -> None:
    gone = IMAGE.replace(":TEST", ":GONE")
    changes = access.configuration | {"control_plane": {"restore_image": gone}}
    restore = LabRestore(start_run("harbor", discovered=False, **changes))
    with imported(gone, ["etcdutl"]):
        tasks = approved(restore, override=True)
    tasks.walk("stage")
    with pytest.raises(StepFailed, match="No such image"):
        tasks.walk("restore_etcd")
    assert tasks.walk("rollback")["kind"] == "rolled-back"
    restore.expect(SPOILED)


@pytest.mark.usefixtures("client")
def test_a_person_brings_it_back_by_the_printed_runbook(
    start_run: StartRun, site: Site, access: RealAccess, tmp_path: Path
) -> None:
    restore = LabRestore(start_run("harbor", discovered=False, **access.configuration))
    restore.ruin()
    etcdkeep("unseal", restore.found.name, "--to", str(tmp_path / "plain"))
    page = etcdkeep("runbook", "harbor", restore.found.backup_id)
    assert f"in {IMAGE} by docker" in page
    logins = access.node.logins()
    paste(page, tmp_path / "plain", site)
    restore.expect(AS_BACKED_UP)
    assert access.node.logins() > logins


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_connection_cut_while_the_container_runs_is_taken_up_again(
    start_run: StartRun, access: RealAccess, client: Path, tmp_path: Path
) -> None:
    restore = LabRestore(start_run("harbor", discovered=False, **access.configuration))
    plan = restore.plan()
    hangs = CUT_ONCE.format(docker=client.resolve(), folder=tmp_path, image=IMAGE)
    client.unlink()
    client.write_text(hangs)
    client.chmod(0o755)
    cutting = Thread(target=cut_when, args=(tmp_path / "cut", access), daemon=True)
    cutting.start()
    with restore.engine(plan) as engine:
        engine.walk(("stage", "restore_etcd"))
        cutting.join()
        remains = [event.state for event in restore.events if event.step == "remains.harbor-cp-0"]
        assert remains == ["already", "began", "done"], "the container that hung was ended before another was begun"
        assert docker("ps", "--all", "--quiet", "--filter", "name=^etcdkeep-").split() == []
        restore.expect(SPOILED)
        engine.walk()
    restore.expect(AS_BACKED_UP)


def cut_when(path: Path, access: RealAccess) -> None:
    """Cut the connections to the node when a file appears."""
    wait_for(path.exists, f"{path} to appear")
    access.node.cut()
