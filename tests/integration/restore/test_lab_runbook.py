"""The runbook in the hands of a person, printed or read: a shell, stock ssh through the jump host, the files of ``unseal``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from etcdkeep.cli import cli
from lab.site import kubectl_path
from tests.integration.restore.lab_restore import AS_BACKED_UP, SPOILED, LabRestore
from tests.integration.test_lab_nodes import Ssh

if TYPE_CHECKING:
    from lab import Site
    from tests.integration.conftest import StartRun

PAGE_S = 300
PAGE = Path(__file__).parents[3] / "docs/runbook.md"
STOCK_TOOLS = ("age", "zstd", "ssh")
MISSING = [program for program in STOCK_TOOLS if shutil.which(program) is None]


def etcdkeep(*args: str) -> str:
    """Run the command line and return what it printed."""
    done = CliRunner().invoke(cli, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def paste(lines: str, folder: Path, site: Site) -> None:
    """Give the lines to a shell as a person does: through its input, one after the other."""
    path = f"{kubectl_path().parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "ADMIN_KUBECONFIG": str(site.clusters["harbor"].kubeconfig)}
    done = subprocess.run(
        ["bash"], input=lines.encode(), cwd=folder, env=environment, capture_output=True, timeout=PAGE_S
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]


def way_back(page: str) -> str:
    """Return what the page says to run when something failed: the functions, and the lines without their ``#``."""
    head, rest = page.split("# === 1.")
    undo = rest.split("# === Back to the state before")[1].splitlines()[1:]
    return "\n".join([head, *(line.removeprefix("#   ") for line in undo if line.startswith("#   "))])


@pytest.mark.parametrize(
    ("cluster", "options"),
    [
        pytest.param("harbor", (), id="one-member-through-the-jump-host"),
        pytest.param("fleet", ("--way", "manifests", "--what", "etcd"), id="three-members"),
        pytest.param("skiff", (), id="kubeception"),
    ],
)
def test_a_person_brings_a_ruined_cluster_back(
    start_run: StartRun, site: Site, tmp_path: Path, cluster: str, options: tuple[str, ...]
) -> None:
    restore = LabRestore(start_run(cluster, discovered=False))
    restore.ruin()
    etcdkeep("unseal", restore.found.name, "--to", str(tmp_path / "plain"))
    page = etcdkeep("runbook", cluster, restore.found.backup_id, *options)
    paste(page, tmp_path / "plain", site)
    restore.expect(AS_BACKED_UP)


def test_the_page_can_be_pasted_again_and_taken_back(start_run: StartRun, site: Site, tmp_path: Path) -> None:
    restore = LabRestore(start_run("harbor", discovered=False))
    etcdkeep("unseal", restore.found.name, "--to", str(tmp_path / "plain"))
    page = etcdkeep("runbook", "harbor", restore.found.backup_id, "--override")
    for _ in range(2):
        paste(page, tmp_path / "plain", site)
        restore.expect(AS_BACKED_UP)
    paste(way_back(page), tmp_path / "plain", site)
    restore.expect(SPOILED)


@pytest.mark.parametrize(
    ("cluster", "way", "what"),
    [
        pytest.param("harbor", "kubelet", ("etcd", "pki"), id="kubelet-through-the-jump-host"),
        pytest.param("fleet", "manifests", ("etcd",), id="manifests-of-three-members"),
        pytest.param("skiff", "kubelet", ("etcd",), id="kubeception"),
    ],
)
def test_the_script_of_what_remains_rolls_back(
    start_run: StartRun, site: Site, tmp_path: Path, cluster: str, way: str, what: tuple[str, ...]
) -> None:
    restore = LabRestore(start_run(cluster, discovered=False))
    etcdkeep("unseal", restore.found.name, "--to", str(tmp_path / "plain"))
    with restore.engine(restore.plan(way=way, what=what)) as engine:
        engine.walk(("stage", "restore_etcd", "stop", "swap_pki", "swap_etcd"))
        remaining = "\n".join(engine.remaining())
        for _ in range(2):
            paste(remaining, tmp_path / "plain", site)
            restore.expect(SPOILED)
        assert engine.remaining() == ()


def test_a_healthy_cluster_has_no_runbook_unless_overridden(start_run: StartRun) -> None:
    start_run("harbor", discovered=False)
    done = CliRunner().invoke(cli, ["runbook", "harbor"])
    assert done.exit_code == 1
    assert "no restore is needed" in str(done.exception)


def test_leftovers_are_listed_and_removed_only_when_asked(start_run: StartRun) -> None:
    restore = LabRestore(start_run("harbor", discovered=False))
    plan = restore.plan()
    with restore.engine(plan) as engine:
        engine.walk()
    listed = etcdkeep("restore-leftovers", "harbor")
    assert re.search(rf"{plan.run} +finished", listed)
    refused = CliRunner().invoke(cli, ["restore-leftovers", "harbor", "--remove", plan.run], input="n\n")
    assert refused.exit_code == 1
    assert plan.run in etcdkeep("restore-leftovers", "harbor")
    assert "removed" in etcdkeep("restore-leftovers", "harbor", "--remove", plan.run, "--yes")
    assert plan.run not in etcdkeep("restore-leftovers", "harbor")
    restore.expect(AS_BACKED_UP)


@pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt-get install age zstd openssh-client)"
)
def test_stock_tools_alone_bring_a_ruined_node_back(start_run: StartRun, site: Site, tmp_path: Path) -> None:
    restore, ssh = LabRestore(start_run("harbor", discovered=False)), Ssh(site, tmp_path)
    restore.ruin()
    node = restore.cluster.node
    sealed = Path(restore.run.cluster.repository.removeprefix("file://"), restore.found.name, "etcd.db.zst.age")
    identity = site.layout.keys / "age.txt"
    snapshot = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"age -d -i {identity} {sealed} | zstd -dq"], capture_output=True, check=True
    ).stdout
    flags = dict(re.findall(r"--(name|data-dir|initial-advertise-peer-urls)=(\S+)", etcd_manifest(ssh, site)))
    folder = f"{os.path.dirname(flags['data-dir'])}/by-hand"
    here = {
        "NAME": flags["name"],
        "URL": flags["initial-advertise-peer-urls"],
        "/var/lib/etcd": flags["data-dir"],
        "/var/lib/by-hand": folder,
    }
    block = re.sub("|".join(here), lambda found: here[found[0]], stock_tools_block())
    enter, rest = block.split("          # bring etcd.db here\n")
    ssh(node.ssh, "sudo -n sh -eu", stdin=enter.encode(), through_jump=True)
    ssh(node.ssh, f"sudo -n sh -c 'cat > {folder}/etcd.db'", stdin=snapshot, through_jump=True)
    ssh(node.ssh, "sudo -n sh -eu", stdin=f"cd {folder}\n{rest}".encode(), through_jump=True)
    restore.expect(AS_BACKED_UP)
    ssh(node.ssh, f"sudo -n rm -r {folder}")


def stock_tools_block() -> str:
    """Return what the page tells to type on the node."""
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE.read_text().split("## With stock tools alone")[1], re.DOTALL)
    assert block.startswith("# on the node, as root")
    return str(block)


def etcd_manifest(ssh: Ssh, site: Site) -> str:
    """Return the live ``etcd.yaml``, as a person reads it."""
    node = site.clusters["harbor"].node
    return ssh(node.ssh, f"sudo -n cat {node.view}/etc/kubernetes/manifests/etcd.yaml").stdout.decode()
