"""Server-side apply: what is sent, and what each refusal becomes. The answers are those of a Kubernetes 1.36."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from etcdkeep.adapters.kube.client import KubeApiClient, open_kubeconfig, yaml_body
from etcdkeep.errors import AccessDenied, FieldsOwned, LiveChanged, NotFound, NotServed, ObjectRefused, Unreachable
from tests.exec_server import Certificates, ExecServer, http, running

PATH = "/api/v1/namespaces/shop/configmaps/settings"
SETTINGS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
ODD = '\U0001f600 é \u2028\u2029 \x7f \x80\x85\xa0 \ufeff \ufffe\uffff \\ud83d \t\r\n " \\'


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(ExecServer(Certificates(tmp_path_factory.mktemp("pki")), answer=lambda peer: b"")) as started:
        yield started


@pytest.fixture
def api(server) -> KubeApiClient:
    return KubeApiClient(open_kubeconfig(server.certificates.kubeconfig(server.url)))


def status(code, message="", causes=None, **details):
    body = {
        "kind": "Status",
        "status": "Failure",
        "message": message,
        "details": {**details, "causes": causes},
        "code": code,
    }
    return http(code, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ({}, {"fieldManager": ["etcdkeep"]}),
        ({"force": True}, {"fieldManager": ["etcdkeep"], "force": ["true"]}),
        ({"dry_run": True}, {"fieldManager": ["etcdkeep"], "dryRun": ["All"]}),
    ],
    ids=["plain", "force", "dry-run"],
)
def test_what_is_asked(server, api, options, query):
    server.peers.clear()
    server.answer = lambda peer: http(201, json.dumps({**SETTINGS, "path": peer.path}).encode())
    found = api.apply(PATH, SETTINGS, **options)
    target = urlsplit(found["path"])
    assert (target.path, parse_qs(target.query)) == (PATH, query)
    assert server.peers[-1].headers["content-type"] == "application/apply-patch+yaml"


def owned(*fields):
    return [
        {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl-patch" using v1 at 2026-11-23T09:00:00Z', "field": field}
        for field in fields
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        pytest.param(status(409, "Apply failed with 1 conflict", owned(".data.a")), FieldsOwned, "Apply failed", id="owned"),
        pytest.param(status(409, "the object has been modified", name="settings"), LiveChanged, "has been modified", id="other-version"),
        pytest.param(status(409, "uid mismatch: …, and no existing object was found", name="settings"), LiveChanged, "uid mismatch", id="deleted"),
        pytest.param(status(422, "field is immutable", [{"field": "metadata.uid"}]), LiveChanged, "recreated", id="made-anew"),
        pytest.param(status(422, "data: Invalid value", [{"field": "data"}]), ObjectRefused, "Invalid value", id="invalid"),
        pytest.param(status(400, "error decoding YAML"), ObjectRefused, "error decoding YAML", id="no-yaml"),
        pytest.param(status(500, "failed to create typed patch object (…): .spec.foo: field not declared in schema"), ObjectRefused, "not declared", id="other-schema"),
        pytest.param(status(500, 'Internal error occurred: failed calling webhook "x.example.com": connection refused'), ObjectRefused, "webhook", id="webhook-is-down"),
        pytest.param(status(403, 'admission webhook "x.example.com" denied the request: no'), ObjectRefused, "denied the request", id="denied-by-a-webhook"),
        pytest.param(status(403, 'pods "a" is forbidden: exceeded quota: quota'), ObjectRefused, "exceeded quota", id="quota"),
        pytest.param(status(403, 'configmaps "a" is forbidden: User "x" cannot patch resource "configmaps" in API group ""'), AccessDenied, "patch and create", id="no-permission"),
        pytest.param(status(404, 'namespaces "shop" not found', name="shop", kind="namespaces"), NotFound, "shop", id="no-namespace"),
        pytest.param(status(404, "the server could not find the requested resource"), NotServed, "does not serve", id="no-kind"),
        pytest.param(http(404, b"404 page not found\n", "text/plain"), NotServed, "does not serve", id="no-group"),
        pytest.param(status(503, "try again"), Unreachable, "Retry", id="overloaded"),
        pytest.param(status(500, "etcdserver: request timed out"), Unreachable, "timed out", id="etcd-is-slow"),
        pytest.param(http(200, b"<html>"), Unreachable, "not JSON", id="proxy"),
    ],
)  # fmt: skip
def test_refusals(server, api, answer, error, said):
    server.answer = lambda peer: answer
    with pytest.raises(error, match=said) as caught:
        api.apply(PATH, SETTINGS)
    assert type(caught.value) is error


def test_who_owns_which_fields(server, api):
    server.answer = lambda peer: status(409, "Apply failed with 2 conflicts", owned(".data.a", ".data.b"))
    with pytest.raises(FieldsOwned) as caught:
        api.apply(PATH, SETTINGS)
    assert caught.value.managers == ("kubectl-patch",)
    assert caught.value.fields == (".data.a", ".data.b")


@pytest.mark.parametrize(
    ("message", "by_admission"), [('admission webhook "x" denied the request', True), ("data: Invalid", False)]
)
def test_a_denial_is_told_from_an_invalid_object(server, api, message, by_admission):
    server.answer = lambda peer: status(422, message, [{"field": "spec.ports[0].nodePort"}])
    with pytest.raises(ObjectRefused) as caught:
        api.apply(PATH, SETTINGS)
    assert caught.value.by_admission is by_admission
    assert caught.value.fields == ("spec.ports[0].nodePort",)


def test_any_text_reads_the_same_as_yaml():
    body = yaml_body({"data": {ODD: ODD}})
    assert yaml.safe_load(body) == {"data": {ODD: ODD}}
    assert json.loads(body) == {"data": {ODD: ODD}}


def test_half_a_surrogate_pair_becomes_what_go_makes_of_it():
    assert json.loads(yaml_body({"a": "x\ud83d"})) == {"a": "x\ufffd"}


def test_the_lab_takes_and_refuses_as_the_real_one_does(site):
    cluster = site.clusters["harbor"]
    live = KubeApiClient(open_kubeconfig(cluster.kubeconfig.read_bytes()))
    name = "applied-by-a-test"
    path = f"/api/v1/namespaces/default/configmaps/{name}"
    content = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"odd": ODD},
    }
    try:
        assert live.apply(path, content, dry_run=True)["data"] == {"odd": ODD}
        with pytest.raises(NotFound):
            live.get(path)
        made = live.apply(path, content)
        assert live.get(path)["data"] == {"odd": ODD}
        assert live.apply(path, content)["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

        cluster.kubectl("-n", "default", "patch", "configmap", name, "--type=merge", "-p", '{"data":{"odd":"even"}}')
        with pytest.raises(FieldsOwned) as caught:
            live.apply(path, content)
        assert caught.value.fields == (".data.odd",)
        assert live.get(path)["data"] == {"odd": "even"}

        now = live.get(path)["metadata"]
        for stale in ({"uid": "another"}, {"uid": now["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}):
            with pytest.raises(LiveChanged):
                live.apply(path, {**content, "metadata": {**content["metadata"], **stale}}, force=True)
        precondition = {"uid": now["uid"], "resourceVersion": now["resourceVersion"]}
        live.apply(path, {**content, "metadata": {**content["metadata"], **precondition}}, force=True)
        assert live.get(path)["data"] == {"odd": ODD}
    finally:
        live.delete(path)
    with pytest.raises(LiveChanged, match="no existing object"):
        live.apply(path, {**content, "metadata": {**content["metadata"], "uid": now["uid"]}})
    with pytest.raises(NotServed):
        live.apply(
            "/apis/none.example.com/v1/namespaces/default/nones/x", {**content, "apiVersion": "none.example.com/v1"}
        )
    with pytest.raises(NotFound, match="namespaces"):
        live.apply(
            path.replace("/default/", "/nowhere/"), {**content, "metadata": {"name": name, "namespace": "nowhere"}}
        )
