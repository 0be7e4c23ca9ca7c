"""Variables, fields and mounts as the kubelet resolves them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.control_plane.pod_spec import UNKNOWN, Container, Downward, containers, downward_of, expand

POD: dict[str, Any] = {
    "metadata": {"name": "etcd", "namespace": "kube-system", "labels": {"tier": "control-plane"}, "annotations": {"a/b": "c"}},
    "spec": {"containers": [{"name": "etcd", "command": ["etcd", "--name=$(V)"]}]},
}  # fmt: skip


def first(known: Downward, *env: dict[str, Any], **body: Any) -> Container:
    container = {**POD["spec"]["containers"][0], "env": list(env), **body}
    return containers({**POD, "spec": {"containers": [container]}}, known)[0]


def field(path: str) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)$(B)y", "x12y"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$", "$$"),
        ("$(C)", "$(C)"),
        ("$(A", "$(A"),
        ("$A ${A}", "$A ${A}"),
        ("$($(A))", "$(1)"),
        ("$", "$"),
    ],
)
def test_references_are_expanded(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="$()AB x"))
def test_expansion_never_fails_and_leaves_text_without_dollars_alone(text: str) -> None:
    assert expand(text.replace("$", ""), {"A": "1"}) == text.replace("$", "")
    assert isinstance(expand(text, {"A": "1"}), str)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("spec.nodeName", "CP-1"),
        ("metadata.name", "etcd-cp-1"),
        ("metadata.namespace", "kube-system"),
        ("metadata.labels['tier']", "control-plane"),
        ("metadata.annotations['a/b']", "c"),
        ("metadata.labels['none']", ""),
        ("status.hostIP", "10.0.0.11"),
        ("status.hostIPs", "10.0.0.11,fd00::11"),
        ("status.podIP", "10.0.0.11"),
        ("status.podIPs", "10.0.0.11,fd00::11"),
        ("metadata.uid", UNKNOWN),
        ("spec.serviceAccountName", UNKNOWN),
    ],
)
def test_fields_are_those_of_the_node_and_the_manifest(path: str, expected: str) -> None:
    assert first(Downward("CP-1", ("10.0.0.11", "fd00::11")), field(path)).last("name") == expected


def test_a_pod_with_an_address_of_its_own_has_that() -> None:
    assert first(Downward("cp-1", ("10.0.0.11",), ("172.16.0.5",)), field("status.podIP")).last("name") == "172.16.0.5"


def test_variables_use_those_before_them_and_the_last_of_a_name_wins() -> None:
    env = [
        {"name": "W", "value": "$(V)"},
        {"name": "V", "value": "1"},
        {"name": "V", "value": "$(V)$(W)$$(V)"},
    ]
    assert first(Downward(), *env).last("name") == "1$(V)$(V)"


def test_what_a_secret_may_define_is_not_known() -> None:
    assert first(Downward(), envFrom=[{"secretRef": {"name": "s"}}]).last("name") == UNKNOWN
    assert (
        first(Downward(), {"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}).last("name")
        == UNKNOWN
    )


def test_a_mount_may_take_its_folder_from_a_variable() -> None:
    pod = {
        "metadata": {"name": "etcd"},
        "spec": {
            "volumes": [{"name": "d", "hostPath": {"path": "/srv"}}],
            "containers": [
                {"name": "e", "env": [field("spec.nodeName")],
                 "volumeMounts": [{"name": "d", "mountPath": "/data", "subPathExpr": "$(V)/etcd"}]}
            ],
        },
    }  # fmt: skip
    assert containers(pod, Downward("cp-1"))[0].host_path("/data/x") == "/srv/cp-1/etcd/x"
    assert containers(pod, Downward())[0].host_path("/data/x") is None


def test_a_pod_of_the_api_tells_its_own_name_and_addresses() -> None:
    pod = {
        "metadata": {"name": "etcd-cp-1"},
        "spec": {"nodeName": "cp-1"},
        "status": {"hostIP": "10.0.0.11", "podIPs": [{"ip": "172.16.0.5"}, {"ip": "fd00::5"}], "podIP": "172.16.0.5"},
    }
    assert downward_of(pod) == Downward("cp-1", ("10.0.0.11",), ("172.16.0.5", "fd00::5"), "etcd-cp-1")


def test_a_pod_of_any_shape_gives_no_error() -> None:
    for spec in (
        {},
        {"containers": None},
        {"containers": [{}]},
        {"containers": [{"command": "etcd", "env": 1, "args": None}]},
    ):
        containers({"spec": spec}, Downward())
