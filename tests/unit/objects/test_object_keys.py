"""What a key of the API server's storage stands for."""

from __future__ import annotations

import pytest

from etcdkeep.objects.keys import StorageKey, parse_key


@pytest.mark.parametrize(
    ("key", "group", "resource", "namespace", "name"),
    [
        ("/registry/pods/shop/web-0", "", "pods", "shop", "web-0"),
        ("/registry/namespaces/shop", "", "namespaces", "", "shop"),
        ("/registry/minions/cp-0", "", "nodes", "", "cp-0"),
        ("/registry/services/specs/shop/web", "", "services", "shop", "web"),
        ("/registry/services/endpoints/shop/web", "", "endpoints", "shop", "web"),
        ("/registry/controllers/shop/web", "", "replicationcontrollers", "shop", "web"),
        ("/registry/ingress/shop/web", "", "ingresses", "shop", "web"),
        ("/registry/podsecuritypolicy/restricted", "", "podsecuritypolicies", "", "restricted"),
        ("/registry/clusterroles/system:node", "", "clusterroles", "", "system:node"),
        ("/registry/ipaddresses/10.96.0.1", "", "ipaddresses", "", "10.96.0.1"),
        (
            "/registry/apiextensions.k8s.io/customresourcedefinitions/things.example.org",
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "",
            "things.example.org",
        ),
        ("/registry/cluster.k8s.io/clusters/default/admin", "cluster.k8s.io", "clusters", "default", "admin"),
        ("/registry/example.org/ranges/shop/a", "example.org", "ranges", "shop", "a"),
    ],
)
def test_object(key: str, group: str, resource: str, namespace: str, name: str) -> None:
    found = parse_key(key.encode())
    assert found == StorageKey(group, resource, namespace, name)
    assert found.holds_object


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("/registry/masterleases/10.0.0.1", "an API server that is alive"),
        ("/registry/peerserverleases/apiserver-x", "an API server that others reach"),
        ("/registry/ranges/servicenodeports", "service addresses or node ports"),
        ("compact_rev_key", "compacts to"),
        ("/registry/health", "not of the Kubernetes API"),
        ("/registry/pods/a/b/c", "not of the Kubernetes API"),
        ("/registry/pods//b", "not of the Kubernetes API"),
        ("/elsewhere/pods/a/b", "not of the Kubernetes API"),
        ("/registrypods/a/b", "not of the Kubernetes API"),
        ("", "not of the Kubernetes API"),
    ],
)
def test_other(key: str, other: str) -> None:
    found = parse_key(key.encode())
    assert not found.holds_object
    assert other in found.other


def test_other_prefix() -> None:
    assert parse_key(b"/kubernetes.io/pods/a/b", "/kubernetes.io/") == StorageKey("", "pods", "a", "b")


def test_key_that_is_no_utf_8() -> None:
    assert parse_key(b"/registry/pods/a/\xff").name == "\ufffd"
