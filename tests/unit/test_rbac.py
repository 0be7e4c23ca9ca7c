"""What the account of deploy/rbac.yaml may do, as the lab's API server asks. That a backup works with it: tests/integration/test_rbac.py."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from lab.api.rbac import Question, check, verbs
from lab.api.status import ApiError
from tests.deployed import DEPLOY

ACCOUNT = "system:serviceaccount:kube-system:etcdkeep"


class Registry:
    """The roles and bindings of a file."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text()))

    async def resource(self, api_version: str, plural: str) -> str:
        return {"roles": "Role", "clusterroles": "ClusterRole", "rolebindings": "RoleBinding", "clusterrolebindings": "ClusterRoleBinding"}[plural]  # fmt: skip

    async def list(self, kind: str, namespace: str, listing: object) -> dict[str, Any]:
        found = [each for each in self.objects if each["kind"] == kind]
        return {"items": [each for each in found if each["metadata"].get("namespace", "") == namespace]}

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        page = await self.list(kind, namespace, SimpleNamespace())
        return next(each for each in page["items"] if each["metadata"]["name"] == name)


def may(user: str, verb: str, resource: str, namespace: str = "kube-system", name: str = "", group: str = "") -> bool:
    try:
        asyncio.run(check(Registry(), user, Question(verb, group, resource, namespace, name)))  # type: ignore[arg-type]
    except ApiError as err:
        return err.code != 403
    return True


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "name"),
    [
        ("get", "namespaces", "", "kube-system"),
        ("get", "nodes", "", "cp-0"),
        ("list", "pods", "kube-system", ""),
        ("get", "pods", "kube-system", "etcd-cp-0"),
        ("create", "pods/exec", "kube-system", "etcd-cp-0"),
        ("get", "pods/exec", "kube-system", "etcd-cp-0"),
        ("get", "secrets", "kube-system", "sshkeys"),
    ],
)
def test_what_it_may(verb: str, resource: str, namespace: str, name: str) -> None:
    assert may(ACCOUNT, verb, resource, namespace, name)
    assert not may("system:serviceaccount:kube-system:another", verb, resource, namespace, name)
    assert not may("system:serviceaccount:default:etcdkeep", verb, resource, namespace, name)


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "name"),
    [
        ("get", "namespaces", "", "shop"),
        ("list", "namespaces", "", ""),
        ("list", "nodes", "", ""),
        ("list", "secrets", "kube-system", ""),
        ("get", "secrets", "kube-system", "another"),
        ("get", "secrets", "shop", "sshkeys"),
        ("list", "pods", "shop", ""),
        ("create", "pods", "kube-system", ""),
        ("delete", "pods", "kube-system", "etcd-cp-0"),
        ("create", "pods/exec", "shop", "web-0"),
        ("patch", "nodes", "", "cp-0"),
    ],
)
def test_what_it_may_not(verb: str, resource: str, namespace: str, name: str) -> None:
    assert not may(ACCOUNT, verb, resource, namespace, name)


def test_people_are_not_asked() -> None:
    assert may("kubernetes-admin", "delete", "pods", name="etcd-cp-0")


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (("GET", "a", "", False), ("get",)),
        (("GET", "", "", False), ("list",)),
        (("GET", "", "", True), ("watch",)),
        (("POST", "", "", False), ("create",)),
        (("DELETE", "", "", False), ("deletecollection",)),
        (("DELETE", "a", "", False), ("delete",)),
        (("GET", "a", "exec", False), ("get", "create")),
    ],
)
def test_the_verbs_of_a_request(request_: tuple[str, str, str, bool], wanted: tuple[str, ...]) -> None:
    method, name, sub, watches = request_
    assert verbs(method, name, sub, watches=watches) == wanted
