"""What goes out of an object before it is made anew, kind by kind, and that nothing else does."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.objects.resources import built_in
from etcdkeep.recover.clean import clean
from etcdkeep.recover.draft import Draft
from etcdkeep.recover.kinds import RULES, drop_node_ports
from tests.kubernetes_values import control_plane
from tests.live_api import config_map, definition, named, owned_by


class Nothing:
    """Surroundings in which nothing is."""

    def __init__(self, *, owners=(), volumes=()):
        self.owners = owners
        self.volumes = {each["metadata"]["name"]: each for each in volumes}

    def has_owner(self, reference, namespace):
        return reference["uid"] in self.owners

    def volume(self, name):
        return self.volumes.get(name)


def draft_of(content):
    metadata = content["metadata"]
    return Draft(
        plural="things",
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        manifest=copy.deepcopy(content),
    )


def cleaned(content, **surroundings):
    draft = draft_of(content)
    clean(draft, Nothing(**surroundings))
    return draft


POD = named(
    "Pod",
    "web",
    "shop",
    spec={
        "nodeName": "admin-cp-0",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
        "ephemeralContainers": [{"name": "debug"}],
        "serviceAccountName": "web",
        "containers": [
            {
                "name": "web",
                "image": "web:1",
                "volumeMounts": [
                    {"name": "kube-api-access-6wvct", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                    {"name": "data", "mountPath": "/data"},
                ],
            },
            {"name": "side", "volumeMounts": [{"name": "kube-api-access-6wvct", "mountPath": "/token"}]},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "kube-api-access-6wvct", "projected": {"sources": []}}],
    },
    status={"phase": "Running"},
)
OLD_POD = named(
    "Pod",
    "web",
    "shop",
    spec={
        "containers": [
            {
                "name": "web",
                "volumeMounts": [
                    {"name": "web-token-x2v9q", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                    {"name": "mine-token-abcde", "mountPath": "/mine"},
                ],
            }
        ],
        "volumes": [
            {"name": "web-token-x2v9q", "secret": {"secretName": "web-token-x2v9q"}},
            {"name": "mine-token-abcde", "secret": {"secretName": "mine-token-abcde"}},
        ],
    },
)
SERVICE = named(
    "Service",
    "web",
    "shop",
    spec={
        "type": "NodePort",
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"],
        "healthCheckNodePort": 30999,
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        "selector": {"app": "web"},
    },
    status={"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}},
)
LABELS = {"app": "m", "controller-uid": "u", "batch.kubernetes.io/job-name": "migrate"}
JOB = named(
    "Job",
    "migrate",
    "shop",
    "batch/v1",
    metadata={"labels": dict(LABELS)},
    spec={
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
        "template": {"metadata": {"labels": dict(LABELS), "creationTimestamp": None}, "spec": {"containers": []}},
    },
)
CLAIM = named(
    "PersistentVolumeClaim",
    "data",
    "shop",
    metadata={
        "annotations": {"pv.kubernetes.io/bind-completed": "yes", "mine": "stays"},
        "finalizers": ["kubernetes.io/pvc-protection"],
    },
    spec={"volumeName": "pv-1", "resources": {"requests": {"storage": "1Gi"}}},
)
VOLUME = named(
    "PersistentVolume",
    "pv-1",
    spec={
        "claimRef": {"namespace": "shop", "name": "data", "uid": "old", "resourceVersion": "5"},
        "persistentVolumeReclaimPolicy": "Delete",
    },
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(
            POD,
            {
                "serviceAccountName": "web",
                "containers": [
                    {"name": "web", "image": "web:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
                    {"name": "side"},
                ],
                "volumes": [{"name": "data", "emptyDir": {}}],
            },
            id="pod",
        ),
        pytest.param(
            OLD_POD,
            {
                "containers": [{"name": "web", "volumeMounts": [{"name": "mine-token-abcde", "mountPath": "/mine"}]}],
                "volumes": [{"name": "mine-token-abcde", "secret": {"secretName": "mine-token-abcde"}}],
            },
            id="pod-of-before-1.21",
        ),
        pytest.param(
            SERVICE,
            {
                "type": "NodePort",
                "healthCheckNodePort": 30999,
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
                "selector": {"app": "web"},
            },
            id="service",
        ),
        pytest.param(
            named("Service", "db", "shop", spec={"clusterIP": "None", "clusterIPs": ["None"]}),
            {"clusterIP": "None", "clusterIPs": ["None"]},
            id="headless-service",
        ),
        pytest.param(JOB, {"template": {"metadata": {"labels": {"app": "m"}}, "spec": {"containers": []}}}, id="job"),
        pytest.param(
            {**JOB, "spec": {**JOB["spec"], "manualSelector": True}},
            {
                "manualSelector": True,
                "selector": JOB["spec"]["selector"],
                "template": {"metadata": {"labels": LABELS}, "spec": {"containers": []}},
            },
            id="job-with-its-own-selector",
        ),
        pytest.param(CLAIM, {"resources": {"requests": {"storage": "1Gi"}}}, id="claim-whose-volume-is-gone"),
        pytest.param(
            VOLUME,
            {"claimRef": {"namespace": "shop", "name": "data"}, "persistentVolumeReclaimPolicy": "Delete"},
            id="volume",
        ),
        pytest.param(named("Namespace", "shop", spec={"finalizers": ["kubernetes"]}), None, id="namespace"),
        pytest.param(
            named(
                "StatefulSet",
                "db",
                "shop",
                "apps/v1",
                spec={
                    "template": {"metadata": {"creationTimestamp": None, "labels": {"app": "db"}}},
                    "volumeClaimTemplates": [
                        {
                            "kind": "PersistentVolumeClaim",
                            "metadata": {"name": "d", "creationTimestamp": None},
                            "spec": {},
                            "status": {"phase": "Pending"},
                        }
                    ],
                },
            ),
            {
                "template": {"metadata": {"labels": {"app": "db"}}},
                "volumeClaimTemplates": [{"kind": "PersistentVolumeClaim", "metadata": {"name": "d"}, "spec": {}}],
            },
            id="stateful-set",
        ),
        pytest.param(
            named(
                "CronJob",
                "nightly",
                "shop",
                "batch/v1",
                spec={
                    "jobTemplate": {
                        "metadata": {"creationTimestamp": None},
                        "spec": {"template": {"metadata": {"creationTimestamp": None}}},
                    }
                },
            ),
            {"jobTemplate": {"metadata": {}, "spec": {"template": {"metadata": {}}}}},
            id="cron-job",
        ),
    ],
)
def test_spec_of(content, expected):
    assert cleaned(content).manifest.get("spec") == expected


@pytest.mark.parametrize(
    ("content", "gone", "kept"),
    [
        pytest.param(
            named("Deployment", "web", "shop", "apps/v1", metadata={"annotations": {"deployment.kubernetes.io/revision": "4", "mine": "x"}}, spec={}),
            "metadata.annotations.deployment.kubernetes.io/revision", {"annotations": {"mine": "x"}}, id="revision-of-a-deployment",
        ),
        pytest.param(
            named("Endpoints", "outside", "shop", metadata={"annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "x"}}),
            "metadata.annotations.endpoints.kubernetes.io/last-change-trigger-time", {}, id="trigger-time-of-endpoints",
        ),
        pytest.param(
            named("ConfigMap", "lock", "shop", metadata={"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}),
            "metadata.annotations.control-plane.alpha.kubernetes.io/leader", {}, id="leader",
        ),
        pytest.param(
            named("ConfigMap", "a", "shop", metadata={"finalizers": ["example.com/x"], "labels": {"a": "b"}}),
            "metadata.finalizers (example.com/x)", {"labels": {"a": "b"}}, id="finalizer",
        ),
        pytest.param(
            named("ConfigMap", "a", "shop", metadata=owned_by(config_map("dead"))),
            "metadata.ownerReferences (ConfigMap dead)", {}, id="dead-owner",
        ),
    ],
)  # fmt: skip
def test_metadata_of(content, gone, kept):
    draft = cleaned(content)
    assert gone in draft.dropped
    assert draft.manifest["metadata"] == {"name": content["metadata"]["name"], "namespace": "shop", **kept}


def test_an_owner_that_will_be_there_stays():
    content = named("ConfigMap", "a", "shop", metadata=owned_by(config_map("alive")))
    draft = cleaned(content, owners=["uid-configmap-alive"])
    assert draft.manifest["metadata"]["ownerReferences"] == content["metadata"]["ownerReferences"]


def test_a_claim_keeps_its_volume_while_that_is_there():
    draft = cleaned(CLAIM, volumes=[VOLUME])
    assert draft.manifest["spec"]["volumeName"] == "pv-1"
    assert "kubectl patch pv pv-1" in draft.warnings[0]
    assert draft.manifest["metadata"]["annotations"] == {"mine": "stays"}


def test_a_claim_does_not_take_another_ones_volume():
    other = copy.deepcopy(VOLUME)
    other["spec"]["claimRef"]["name"] = "others"
    draft = cleaned(CLAIM, volumes=[other])
    assert "volumeName" not in draft.manifest["spec"]
    assert "not in etcd" in draft.warnings[0]


def test_a_claim_is_bound_again_to_a_volume_that_is_recovered_too():
    volume = cleaned(VOLUME)
    draft = cleaned(CLAIM, volumes=[volume.manifest])
    assert draft.manifest["spec"]["volumeName"] == "pv-1"
    assert draft.warnings == []
    assert "reclaim policy is Delete" in volume.warnings[0]


def test_secret_of_a_service_account_is_filled_anew():
    content = named(
        "Secret",
        "web-token",
        "shop",
        type="kubernetes.io/service-account-token",
        data={"token": "x", "ca.crt": "y", "namespace": "z"},
        metadata={
            "annotations": {"kubernetes.io/service-account.name": "web", "kubernetes.io/service-account.uid": "u"}
        },
    )
    draft = cleaned(content)
    assert "data" not in draft.manifest
    assert draft.manifest["metadata"]["annotations"] == {"kubernetes.io/service-account.name": "web"}
    assert "new token" in draft.warnings[0]


def test_other_secrets_stay_whole():
    content = named("Secret", "db", "shop", type="Opaque", data={"token": "x"})
    assert cleaned(content).manifest["data"] == {"token": "x"}


def test_service_account_loses_only_what_the_cluster_made():
    content = named(
        "ServiceAccount",
        "web",
        "shop",
        secrets=[{"name": "web-token-x2v9q"}],
        imagePullSecrets=[{"name": "registry"}, {"name": "web-dockercfg-abcde"}],
    )
    draft = cleaned(content)
    assert "secrets" not in draft.manifest
    assert draft.manifest["imagePullSecrets"] == [{"name": "registry"}]
    assert draft.dropped[-2:] == ["secrets (web-token-x2v9q)", "imagePullSecrets (web-dockercfg-abcde)"]


@pytest.mark.parametrize(("aggregated", "left"), [({"aggregationRule": {"x": 1}}, False), ({}, True)])
def test_rules_of_a_cluster_role_go_only_when_they_are_aggregated(aggregated, left):
    content = named(
        "ClusterRole", "r", api_version="rbac.authorization.k8s.io/v1", rules=[{"verbs": ["get"]}], **aggregated
    )
    assert ("rules" in cleaned(content).manifest) is left


def test_definition_that_kept_unknown_fields_says_so_in_the_words_of_v1():
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object"}, "list": {"type": "array", "items": {"type": "object"}}},
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    content = definition(
        "widgets", "Widget", preserveUnknownFields=True, versions=[version, {"name": "v0", "served": True}]
    )
    spec = cleaned(content).manifest["spec"]
    keep = {"x-kubernetes-preserve-unknown-fields": True}
    assert "preserveUnknownFields" not in spec
    assert [each["schema"]["openAPIV3Schema"] for each in spec["versions"]] == [
        {
            **keep,
            "type": "object",
            "properties": {
                "spec": {"type": "object", **keep},
                "list": {"type": "array", "items": {"type": "object", **keep}},
            },
        },
        {"type": "object", **keep},
    ]


def test_node_ports_are_left_to_the_cluster_when_they_are_taken():
    draft = cleaned(SERVICE)
    drop_node_ports(draft)
    assert draft.manifest["spec"]["ports"] == [{"name": "http", "port": 80}]
    assert {"spec.healthCheckNodePort", "spec.ports.nodePort (http)"} <= set(draft.dropped)


@pytest.mark.parametrize("kind", ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"])
def test_webhooks_come_with_a_warning(kind):
    assert cleaned(named(kind, "hook", api_version="admissionregistration.k8s.io/v1", webhooks=[])).warnings


WITHOUT_A_RULE = sorted(
    (each.resource.group, each.resource.kind) for each in built_in().values() if each.resource.names[::2] not in RULES
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from([*WITHOUT_A_RULE, ("example.com", "Widget")]),
    st.dictionaries(st.sampled_from(["spec", "data", "rules", "type"]), values, min_size=1),
)
def test_what_has_no_rule_keeps_everything_but_status_and_bookkeeping(names, content):
    group, kind = names
    metadata = {"generation": 3, "labels": {"a": "b"}, "managedFields": []}
    whole = named(kind, "a", "b", f"{group}/v1" if group else "v1", metadata=metadata, status={"x": 1}, **content)
    manifest = cleaned(whole).manifest
    kept = {"name": "a", "namespace": "b", "labels": {"a": "b"}}
    assert manifest == {"apiVersion": whole["apiVersion"], "kind": kind, "metadata": kept, **content}


@pytest.mark.parametrize(
    "each", [each for each in control_plane() if each.json], ids=lambda each: each.key.decode()[10:]
)
def test_recorded_objects_are_cleaned_once_and_for_all(each):
    first = cleaned(each.json)
    second = draft_of(first.manifest)
    clean(second, Nothing())
    assert second.manifest == first.manifest
    assert not {"uid", "resourceVersion", "managedFields", "ownerReferences"} & first.manifest["metadata"].keys()
