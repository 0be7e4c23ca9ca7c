"""deploy/rbac.yaml on the lab: a whole backup works with it, and without any part of it none does."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from etcdkeep.errors import AccessDenied
from lab.pki import Authority, kubeconfig
from lab.site import kubectl_path
from tests.backup_run import assert_one_good_set
from tests.deployed import DEPLOY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Site
    from tests.integration.conftest import StartRun

CLUSTER = "harbor"
ACCOUNT = "system:serviceaccount:kube-system:etcdkeep"
DOCUMENTS = list(yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text()))
GRANTS = [
    pytest.param(document["kind"], number, verb, id=f"{verb}-{rule['resources'][0].replace('/', '-')}")
    for document in DOCUMENTS
    for number, rule in enumerate(document.get("rules", ()))
    for verb in rule["verbs"]
]


def kubectl(site: Site, *args: str, documents: list[Any] | None = None) -> str:
    argv = [str(kubectl_path()), "--kubeconfig", str(site.clusters[CLUSTER].kubeconfig), *args]
    text = yaml.safe_dump_all(documents) if documents else None
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=True, timeout=60).stdout


@contextmanager
def applied(site: Site, documents: list[Any]) -> Iterator[None]:
    kubectl(site, "apply", "--validate=false", "-f", "-", documents=documents)
    try:
        yield
    finally:
        kubectl(site, "delete", "--ignore-not-found", "-f", "-", documents=documents)


@pytest.fixture
def account(site: Site, tmp_path: Path) -> Path:
    """A kubeconfig of the account."""
    path = tmp_path / "etcdkeep.kubeconfig"
    layout = site.layout.clusters[CLUSTER]
    kubeconfig(path, Authority(layout.nodes[0].pki / "ca", "kubernetes"), layout.server, CLUSTER, ACCOUNT)
    return path


def test_a_whole_backup_works_with_it(site: Site, start_run: StartRun, account: Path) -> None:
    with applied(site, DOCUMENTS):
        run = start_run(CLUSTER, discovered=False, kubeconfig={"path": str(account), "connection": None})
        run.whole()
        assert_one_good_set(run)
        run.task("rehearse")


@pytest.mark.parametrize(("kind", "number", "verb"), GRANTS)
def test_no_part_of_it_can_be_left_out(
    site: Site, start_run: StartRun, account: Path, kind: str, number: int, verb: str
) -> None:
    less = list(yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text()))
    (role,) = [document for document in less if document["kind"] == kind]
    role["rules"][number]["verbs"].remove(verb)
    with applied(site, less):
        by_node = {"copy_out": "node"} if (verb, role["rules"][number]["resources"]) == ("get", ["pods"]) else {}
        kubeconfig_ = {"path": str(account), "connection": None}
        run = start_run(CLUSTER, discovered=False, kubeconfig=kubeconfig_, **by_node)
        with pytest.raises(AccessDenied, match="403"):
            run.whole()
