"""Backups from nodes whose logins talk or refuse (cases 10 and 11), and the facts of a restore asked there."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from etcdkeep.config.loading import load_cluster
from etcdkeep.errors import AccessDenied
from etcdkeep.restore.probe.nodes import gather_node
from etcdkeep.site.credentials import FileCredentials
from etcdkeep.site.site import Site
from tests.backup_run import assert_nothing_lost, assert_one_good_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.found.nodes import NodeFacts
    from lab.site import NodeHandle

ONLY_DOCUMENTED = """case $2 in cat | find | tar) ;; *)
  echo "Sorry, user ubuntu is not allowed to execute '$*' as root on cp-0." >&2; exit 1 ;;
esac
"""
WELCOME = 'echo "Welcome to cp-0"\n'
RUN = 'exec "$REAL" "$@"\n'
REFUSALS = [
    pytest.param("sudo: interactive authentication is required", id="sudo-rs"),
    pytest.param("sudo: Ein Passwort ist notwendig", id="german"),
    pytest.param("sudo: se requiere una contraseña", id="spanish"),
]


@contextmanager
def program(node: NodeHandle, name: str, script: str) -> Iterator[None]:
    """Put a script in the place of a node's program; REAL in it is the program."""
    path = node.root / "usr/bin" / name
    real = path.readlink()
    path.unlink()
    path.write_text(f"#!/bin/sh\nREAL={shlex.quote(str(real))}\n{script}")
    path.chmod(0o755)
    try:
        yield
    finally:
        path.unlink()
        path.symlink_to(real)


def gather(node: NodeHandle) -> NodeFacts:
    cluster = load_cluster("harbor")
    site = Site(cluster, FileCredentials())
    with site.open_node(cluster.ssh.addresses.get(node.name, node.address)) as shell:
        return gather_node(shell, cluster, node.name, node.address)


@pytest.mark.parametrize(
    "sudo",
    [
        pytest.param(WELCOME + RUN, id="any-command"),
        pytest.param(WELCOME + ONLY_DOCUMENTED + RUN, id="documented-lines"),
        pytest.param(ONLY_DOCUMENTED + RUN, id="documented-lines-in-silence"),
        pytest.param("date +%s%N\n" + RUN, id="other-words-each-time"),
    ],
)
def test_a_sudo_that_greets_does_no_harm(site, start_run, sudo):
    run = start_run("harbor")
    with program(site.clusters["harbor"].node, "sudo", sudo):
        run.whole()
    assert "pki" in assert_one_good_set(run).levels


def test_a_sudo_that_greets_does_no_harm_to_a_snapshot_read_on_the_node(site, start_run):
    run = start_run("harbor", copy_out="node")
    with program(site.clusters["harbor"].node, "sudo", WELCOME + RUN):
        run.whole()
    assert_one_good_set(run)


def test_a_sudo_that_greets_does_no_harm_to_the_facts_of_a_restore(site, start_run):
    start_run("harbor")
    node = site.clusters["harbor"].node
    quiet = gather(node)
    with program(node, "sudo", WELCOME + RUN):
        greeted = gather(node)
    for name in (
        "etcd",
        "apiserver",
        "manifests",
        "data",
        "member",
        "pki",
        "mount_points",
        "running",
        "ca_sha256",
        "tools",
    ):
        assert getattr(greeted, name) == getattr(quiet, name)
    assert (greeted.problems, greeted.unknown) == ((), ())


@pytest.mark.parametrize("words", REFUSALS)
def test_a_refused_sudo_is_called_that_in_any_language(site, start_run, words):
    run = start_run("harbor")
    node = site.clusters["harbor"].node
    with program(node, "sudo", f"echo {shlex.quote(words)} >&2\nexit 1\n"):
        with pytest.raises(AccessDenied) as caught:
            run.task("fetch_pki")
        with pytest.raises(AccessDenied, match=re.escape(words)):
            gather(node)
    assert words in str(caught.value)
    assert "NOPASSWD: /usr/bin/cat, /usr/bin/find, /usr/bin/tar" in str(caught.value)
    assert "does not exist" not in str(caught.value)
    assert_nothing_lost(run)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo 'FATA[0000] permission denied' >&2; exit 1\n", "exit code 1, 'FATA.*permission denied'", id="fails"),
        pytest.param("echo 'WARN[0000] runtime connect using default endpoints'\n" + RUN, "unexpected output", id="warns"),
        pytest.param("echo 'sudo: crictl: command not found' >&2; exit 1\n", "has no crictl", id="missing"),
    ],
)  # fmt: skip
def test_a_crictl_that_gives_no_list_has_its_own_sentence(site, start_run, script, said):
    start_run("harbor")
    node = site.clusters["harbor"].node
    with program(node, "crictl", script):
        facts = gather(node)
    assert facts.running is None
    assert re.search(said, facts.crictl_problem)
    assert "etcd" in facts.manifests[0]
    assert not any("does not exist" in problem for problem in facts.problems)


def test_a_crictl_that_warns_on_standard_error_is_fine(site, start_run):
    start_run("harbor")
    node = site.clusters["harbor"].node
    with program(node, "crictl", "echo 'WARN[0000] image connect using default endpoints' >&2\n" + RUN):
        facts = gather(node)
    assert "etcd" in (facts.running or ())
    assert facts.crictl_problem == ""
