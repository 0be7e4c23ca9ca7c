"""What the API server adds on reading, and CRDs from the version they are stored in to the one that is served."""

from __future__ import annotations

import json
from typing import Any

import pytest

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decode import KubernetesObject, decode
from etcdkeep.objects.served import as_served
from tests.kubernetes_values import message, stored

SCHEMA = {"openAPIV3Schema": {"type": "object"}}
COLUMN = {"name": "Age", "type": "date", "JSONPath": ".metadata.creationTimestamp"}
COLUMN_V1 = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


def decoded(value: bytes, minor: int = 36) -> KubernetesObject:
    return decode(b"/registry/things/b/a", value, mod_revision=7, kubernetes_minor=minor)


@pytest.mark.parametrize("api_version", ["apps/v1", "apps/v1beta1", "apps/v1beta2"])
def test_claims_of_a_stateful_set_name_their_kind(api_version: str) -> None:
    stateful_set = message(api_version, "StatefulSet")
    stateful_set.f2.f4.add().f1.f1 = "data"
    (claim,) = decoded(stored(api_version, "StatefulSet", stateful_set)).json["spec"]["volumeClaimTemplates"]
    assert (claim["apiVersion"], claim["kind"], claim["metadata"]) == ("v1", "PersistentVolumeClaim", {"name": "data"})


def test_namespace_older_than_its_name_label() -> None:
    assert decoded(stored("v1", "Namespace")).json["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}


@pytest.mark.parametrize(
    ("service_type", "policy"),
    [("ClusterIP", "Cluster"), ("NodePort", "Cluster"), ("LoadBalancer", "Cluster"), ("ExternalName", None)],
)
def test_service_older_than_internal_traffic_policy(service_type: str, policy: str | None) -> None:
    service = message("v1", "Service")
    service.f2.f4 = service_type
    assert decoded(stored("v1", "Service", service)).json["spec"].get("internalTrafficPolicy") == policy


def test_ingress_class_older_than_the_scope_of_its_parameters() -> None:
    ingress_class = message("networking.k8s.io/v1", "IngressClass")
    ingress_class.f2.f2.f3 = "settings"
    spec = decoded(stored("networking.k8s.io/v1", "IngressClass", ingress_class)).json["spec"]
    assert spec["parameters"]["scope"] == "Cluster"
    assert "parameters" not in decoded(stored("networking.k8s.io/v1", "IngressClass")).json["spec"]


@pytest.mark.parametrize(("minor", "shown"), [(26, False), (27, True)])
def test_csi_driver_older_than_selinux_mount(minor: int, shown: bool) -> None:
    assert ("seLinuxMount" in decoded(stored("storage.k8s.io/v1", "CSIDriver"), minor).json["spec"]) is shown


def crd(**spec: Any) -> dict[str, Any]:
    names = {"plural": "things", "kind": "Thing"}
    versions = [{"name": "v2", "served": True, "storage": True}, {"name": "v1", "served": True, "storage": False}]
    return {
        "apiVersion": "apiextensions.k8s.io/v1beta1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org",
            "names": names,
            "scope": "Cluster",
            "versions": versions,
            "preserveUnknownFields": False,
            **spec,
        },
        "status": {"conditions": [], "acceptedNames": names, "storedVersions": ["v2"]},
    }


def served(**spec: Any) -> Any:
    return as_served(crd(**spec), 36)["spec"]


def test_crd_is_shown_as_v1() -> None:
    found = decoded(json.dumps(crd()).encode())
    assert (found.api_version, found.stored_api_version) == ("apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1")
    assert found.json["spec"] == {
        "group": "example.org",
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
        "scope": "Cluster",
        "versions": crd()["spec"]["versions"],
        "conversion": {"strategy": "None"},
    }
    assert found.json["status"] == crd()["status"]


def test_crd_of_v1_passes_as_it_is() -> None:
    stored_crd = {**crd(), "apiVersion": "apiextensions.k8s.io/v1"}
    assert as_served(dict(stored_crd), 36) == stored_crd


def test_what_the_versions_share_goes_to_each() -> None:
    shared = {
        "validation": SCHEMA,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [COLUMN],
        "selectableFields": [{"jsonPath": ".spec.color"}],
    }
    for version in served(**shared)["versions"]:
        assert version["schema"] == SCHEMA
        assert version["subresources"] == {"status": {}}
        assert version["additionalPrinterColumns"] == [COLUMN_V1]
        assert version["selectableFields"] == [{"jsonPath": ".spec.color"}]


def test_what_each_version_has_of_its_own_stays() -> None:
    versions = [
        {"name": "v2", "served": True, "storage": True, "schema": SCHEMA, "additionalPrinterColumns": [COLUMN]},
        {"name": "v1", "served": False, "storage": False, "deprecated": True},
    ]
    assert served(versions=versions)["versions"] == [
        {"name": "v2", "served": True, "storage": True, "schema": SCHEMA, "additionalPrinterColumns": [COLUMN_V1]},
        {"name": "v1", "served": False, "storage": False, "deprecated": True},
    ]


def test_only_version_of_an_old_crd() -> None:
    assert served(version="v1", versions=[])["versions"] == [{"name": "v1", "served": True, "storage": True}]


def test_stored_versions_are_never_empty() -> None:
    old = crd()
    del old["status"]
    assert as_served(old, 36)["status"] == {
        "conditions": None,
        "storedVersions": ["v2"],
        "acceptedNames": {"plural": "", "kind": ""},
    }


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        pytest.param({"preserveUnknownFields": None}, True, id="unset"),
        pytest.param({"preserveUnknownFields": True}, True, id="on"),
        pytest.param({"preserveUnknownFields": False}, None, id="off"),
    ],
)
def test_preserve_unknown_fields(spec: dict[str, Any], shown: bool | None) -> None:
    assert served(**spec).get("preserveUnknownFields") is shown


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(
            {
                "strategy": "Webhook",
                "webhookClientConfig": {"service": {"namespace": "b", "name": "hook"}, "caBundle": "AA=="},
                "conversionReviewVersions": ["v1", "v1beta1"],
            },
            {
                "strategy": "Webhook",
                "webhook": {
                    "clientConfig": {"service": {"namespace": "b", "name": "hook", "port": 443}, "caBundle": "AA=="},
                    "conversionReviewVersions": ["v1", "v1beta1"],
                },
            },
            id="service",
        ),
        pytest.param(
            {"strategy": "Webhook", "webhookClientConfig": {"url": "https://hook"}},
            {
                "strategy": "Webhook",
                "webhook": {"clientConfig": {"url": "https://hook"}, "conversionReviewVersions": ["v1beta1"]},
            },
            id="url-without-review-versions",
        ),
        pytest.param({"strategy": "None"}, {"strategy": "None"}, id="none"),
    ],
)
def test_conversion(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert served(conversion=old)["conversion"] == new


@pytest.mark.parametrize(
    "spec",
    [{"names": None}, {"versions": [7]}, {"conversion": {"no": "strategy"}}, {"additionalPrinterColumns": [7]}],
    ids=str,
)
def test_broken_crd(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueDamaged, match="no CustomResourceDefinition"):
        served(**spec)
