"""What the API server adds on reading, and CRDs from the version they are stored in to the one that is served."""

from __future__ import annotations

import json
from typing import Any

import pytest

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects.decoding.decode import KubernetesObject, decode
from etcdkeep.objects.decoding.served import as_served
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
    with pytest.raises(ValueDamaged, match="not a CustomResourceDefinition"):
        served(**spec)


def of(api_version: str, kind: str, minor: int = 36, **content: Any) -> dict[str, Any]:
    """An object that an old API server stored, as one of this version gives it."""
    return as_served({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **content}, minor)


def test_claims_and_volumes_have_a_phase() -> None:
    for kind in ("PersistentVolumeClaim", "PersistentVolume"):
        assert of("v1", kind, spec={})["status"]["phase"] == "Pending"
        assert of("v1", kind, spec={}, status={"phase": "Bound"})["status"]["phase"] == "Bound"
    claims = of("apps/v1", "StatefulSet", spec={"volumeClaimTemplates": [{"spec": {}}]})["spec"]["volumeClaimTemplates"]
    assert claims[0]["status"] == {"phase": "Pending"}


def test_the_name_label_of_a_namespace_is_its_name_whatever_was_stored() -> None:
    for labels in ({"kubernetes.io/metadata.name": "other", "x": "y"}, {"x": "y"}):
        metadata = {"name": "a", "labels": labels}
        assert of("v1", "Namespace", metadata=metadata)["metadata"]["labels"] == {
            "kubernetes.io/metadata.name": "a",
            "x": "y",
        }


def test_csi_driver_that_an_old_server_stored() -> None:
    assert of("storage.k8s.io/v1", "CSIDriver", spec={"attachRequired": False})["spec"] == {
        "attachRequired": False,
        "podInfoOnMount": False,
        "storageCapacity": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "requiresRepublish": False,
        "volumeLifecycleModes": ["Persistent"],
        "seLinuxMount": False,
    }


def test_behavior_of_an_autoscaler_is_completed() -> None:
    metrics = [{"type": "Resource"}]
    spec = {"maxReplicas": 3, "metrics": metrics, "behavior": {"scaleDown": {"selectPolicy": "Min"}}}
    behavior = of("autoscaling/v2", "HorizontalPodAutoscaler", spec=spec)["spec"]["behavior"]
    percent = {"type": "Percent", "value": 100, "periodSeconds": 15}
    assert behavior == {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}, percent],
        },
        "scaleDown": {"selectPolicy": "Min", "policies": [percent]},
    }
    spec = {"maxReplicas": 3, "metrics": metrics}
    assert "behavior" not in of("autoscaling/v2", "HorizontalPodAutoscaler", spec=spec)["spec"]


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        pytest.param({}, ["Ingress"], id="nothing"),
        pytest.param({"egress": [{}]}, ["Ingress", "Egress"], id="egress"),
        pytest.param({"policyTypes": ["Egress"]}, ["Egress"], id="stored"),
    ],
)
def test_policy_types_of_an_old_network_policy(spec: dict[str, Any], types: list[str]) -> None:
    assert of("networking.k8s.io/v1", "NetworkPolicy", spec=spec)["spec"]["policyTypes"] == types


def test_an_empty_extra_of_a_signing_request_is_a_list() -> None:
    request = message("certificates.k8s.io/v1", "CertificateSigningRequest")
    request.f2.f6["scopes"].SetInParent()
    found = decoded(stored("certificates.k8s.io/v1", "CertificateSigningRequest", request))
    assert found.json["spec"]["extra"] == {"scopes": []}


@pytest.mark.parametrize(("minor", "shown"), [(33, False), (34, False), (35, True), (36, True)])
def test_a_taint_rule_has_a_status_since_a_version(minor: int, shown: bool) -> None:
    found = decoded(stored("resource.k8s.io/v1alpha3", "DeviceTaintRule"), minor)
    assert ("status" in found.json) is shown


@pytest.mark.parametrize(("minor", "policy"), [(28, None), (29, "TerminatingOrFailed")])
def test_a_job_that_ended_long_ago(minor: int, policy: str | None) -> None:
    spec = of("batch/v1", "Job", minor, spec={})["spec"]
    assert (spec["completionMode"], spec["suspend"], spec.get("podReplacementPolicy")) == ("NonIndexed", False, policy)


@pytest.mark.parametrize(("address", "family"), [("10.0.0.1", "IPv4"), ("fd00::1", "IPv6")])
def test_a_service_older_than_its_families(address: str, family: str) -> None:
    spec = of("v1", "Service", spec={"type": "ClusterIP", "clusterIP": address})["spec"]
    assert (spec["clusterIPs"], spec["ipFamilies"], spec["ipFamilyPolicy"]) == ([address], [family], "SingleStack")
