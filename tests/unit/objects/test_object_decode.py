"""Stored values to objects: recorded ones of real servers first, then the corners they do not show."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from etcdkeep.errors import ValueDamaged, ValueEncrypted
from etcdkeep.objects.decoding import go_json, schema
from etcdkeep.objects.decoding.decode import MAX_VALUE_BYTES, KubernetesObject, decode
from etcdkeep.objects.keys import parse_key
from tests.kubernetes_values import Recorded, control_plane, envelope, message, stored, vectors, wire_field

KEY = b"/registry/things/b/a"

# Fields that are always there today, and that an older server did not know.
YOUNGER_FIELDS = {
    ("v1.31.0", "ResourceClaim"): ("status", "allocation", "devices", "results", 0, "adminAccess"),
    ("v1.33.0", "DeviceTaintRule"): ("status",),
    ("v1.34.0", "DeviceTaintRule"): ("status",),
    ("v1.35.0", "PodCertificateRequest"): ("spec", "stubPKCS10Request"),
}


def decoded(value: bytes, key: bytes = KEY, **options: Any) -> KubernetesObject:
    return decode(key, value, mod_revision=7, **options)


@pytest.mark.parametrize("recorded", control_plane(), ids=lambda recorded: recorded.key.decode())
def test_real_control_plane(recorded: Recorded) -> None:
    place = parse_key(recorded.key)
    if recorded.json is None:
        assert not place.holds_object
        return
    found = decode(recorded.key, recorded.stored, mod_revision=recorded.mod_revision)
    assert found.json == recorded.json
    assert (found.api_version, found.kind) == (recorded.json["apiVersion"], recorded.json["kind"])
    assert (found.namespace, found.name) == (place.namespace, place.name)
    assert found.notices == ()


def vector_id(recorded: Recorded) -> str:
    return f"{recorded.release}-{recorded.json['apiVersion']}-{recorded.json['kind']}"


@pytest.mark.parametrize("recorded", vectors(), ids=vector_id)
def test_published_vector(recorded: Recorded) -> None:
    want = dict(recorded.json)
    api_version, kind = want.pop("apiVersion"), want.pop("kind")
    younger = YOUNGER_FIELDS.get((recorded.release, kind))
    if younger and api_version not in ("resource.k8s.io/v1beta1", "certificates.k8s.io/v1alpha1"):
        *path, last = younger
        owner = want
        for step in path:
            owner = owner[step]
        owner.setdefault(last, {} if last == "status" else None)
    name = schema.kinds()[f"{api_version} {kind}"]
    unknown: Any = schema.message_class("runtime.Unknown")()
    unknown.ParseFromString(recorded.stored[4:])
    parsed = schema.message_class(name)()
    parsed.ParseFromString(unknown.f2)
    assert go_json.to_json(parsed, name, 36) == want


@pytest.mark.parametrize("recorded", vectors(), ids=vector_id)
def test_published_vector_has_no_unknown_field(recorded: Recorded) -> None:
    found = decoded(recorded.stored)
    assert found.unknown_fields == ()
    assert found.notices == ()


def test_resource_version_is_the_record_s_revision() -> None:
    assert decoded(stored("v1", "ConfigMap")).json["metadata"]["resourceVersion"] == "7"


@pytest.mark.parametrize(
    ("minor", "template_metadata"),
    [
        pytest.param(33, {"creationTimestamp": None}, id="1.33 prints null"),
        pytest.param(34, {}, id="1.34 leaves it out"),
    ],
)
def test_unset_creation_timestamp(minor: int, template_metadata: dict[str, Any]) -> None:
    found = decoded(stored("apps/v1", "Deployment"), kubernetes_minor=minor)
    assert found.json["spec"]["template"]["metadata"] == template_metadata


def test_unset_and_empty_differ_only_where_go_tells_them_apart() -> None:
    job = message("batch/v1", "Job")
    job.f2.f1 = 0
    job.f2.f6.f2.f6 = ""
    spec = decoded(stored("batch/v1", "Job", job)).json["spec"]
    assert spec["parallelism"] == 0
    assert "completions" not in spec
    assert spec["template"]["spec"] == {"containers": None}


def test_bytes_that_are_no_utf_8_show_as_in_go() -> None:
    config_map = wire_field(1, wire_field(1, b"a")) + wire_field(2, wire_field(1, b"k") + wire_field(2, b"\xe2\x82x"))
    found = decoded(envelope("v1", "ConfigMap", config_map))
    assert found.json["data"] == {"k": "\ufffd\ufffdx"}


@pytest.mark.parametrize("unknown", [b"", wire_field(99, b"x")], ids=["known", "beside an unknown field"])
def test_map_key_that_is_no_utf_8(unknown: bytes) -> None:
    limits = wire_field(1, b"\xff") + wire_field(2, wire_field(1, b"1"))
    node = wire_field(3, wire_field(1, limits)) + unknown
    with pytest.raises(ValueDamaged, match="a key that is not UTF-8"):
        decoded(envelope("v1", "Node", node))


def test_unknown_field_is_kept_and_reported_without_its_value() -> None:
    container = wire_field(1, b"main") + wire_field(99, b"from the future")
    pod = wire_field(1, wire_field(1, b"a") + wire_field(77, 5)) + wire_field(2, wire_field(2, container))
    found = decoded(envelope("v1", "Pod", pod))
    assert found.json["spec"]["containers"][0]["name"] == "main"
    assert [(entry.path, entry.number, entry.data) for entry in found.unknown_fields] == [
        ("metadata", 77, 5),
        ("spec.containers[0]", 99, b"from the future"),
    ]
    assert "spec.containers[0] has a field number 99 (15 bytes)" in found.notices[1]
    assert "future" not in repr(found)


def test_field_of_another_wire_type_is_reported() -> None:
    found = decoded(envelope("v1", "ConfigMap", wire_field(1, wire_field(1, b"a") + wire_field(3, 5))))
    assert [(entry.path, entry.number, entry.data) for entry in found.unknown_fields] == [("metadata", 3, 5)]


def test_unknown_kind_shows_metadata_and_keeps_its_bytes() -> None:
    raw = wire_field(1, wire_field(1, b"a") + wire_field(3, b"b")) + wire_field(2, b"whatever")
    found = decoded(envelope("resource.k8s.io/v1alpha2", "ResourceClass", raw))
    assert found.json == {
        "apiVersion": "resource.k8s.io/v1alpha2",
        "kind": "ResourceClass",
        "metadata": {"name": "a", "namespace": "b", "resourceVersion": "7"},
    }
    assert found.raw == raw
    assert "not in this version's schema" in found.notices[0]


@pytest.mark.parametrize("raw", [b"\xff", wire_field(1, b"text"), wire_field(1, wire_field(1, b"other"))])
def test_unknown_kind_without_metadata_to_trust(raw: bytes) -> None:
    found = decoded(envelope("example.org/v1", "Thing", raw))
    assert found.json["metadata"] == {"resourceVersion": "7"}
    assert found.raw == raw


def test_custom_resource_passes_as_it_is() -> None:
    found = decoded(b'{"apiVersion":"example.org/v1","kind":"Thing","metadata":{"name":"a"},"spec":{"share":1.50}}')
    assert found.json["spec"] == {"share": 1.5}
    assert (found.namespace, found.name, found.api_version) == ("", "a", "example.org/v1")


def test_cbor_custom_resource() -> None:
    import cbor2

    content = {
        b"apiVersion": b"example.org/v1",
        b"kind": "Thing",
        b"metadata": {b"name": b"a"},
        b"spec": {b"blob": cbor2.CBORTag(22, b"\x00\xff"), b"share": 1.5, b"many": [1, True, None]},
    }
    found = decoded(b"\xd9\xd9\xf7" + cbor2.dumps(content))
    assert found.json["spec"] == {"blob": "AP8=", "share": 1.5, "many": [1, True, None]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(b"", "holds no Kubernetes object", id="empty"),
        pytest.param(b"0", "holds no Kubernetes object", id="compact-revision"),
        pytest.param(b"k8s\x00", "names no kind", id="no-envelope"),
        pytest.param(b"k8s\x00\xff\xff", "not a valid runtime.Unknown", id="broken-envelope"),
        pytest.param(stored("v1", "Pod")[:-9], "not a valid runtime.Unknown", id="truncated"),
        pytest.param(envelope("v1", "Pod", b"\x0a\x7f"), "not a valid core.v1.Pod", id="length-that-lies"),
        pytest.param(envelope("v1", "", b""), "names no kind", id="no-kind"),
        pytest.param(b"{", "should be JSON", id="broken-json"),
        pytest.param(b'{"kind":"Thing"}', "no apiVersion and kind", id="no-api-version"),
        pytest.param(b'{"kind":"Thing","apiVersion":"v1","metadata":[]}', "no metadata", id="metadata-is-a-list"),
        pytest.param(b'{"kind":"T","apiVersion":"v1","a":' + b"[" * 1_000_000, "nested too deeply", id="deep-json"),
        pytest.param(b'{"kind":"T","apiVersion":"v1","a":NaN}', "NaN is not a JSON number", id="nan"),
        pytest.param(b"\xd9\xd9\xf7" + b"\x81" * 100_000, "should be CBOR", id="deep-cbor"),
        pytest.param(b"\xd9\xd9\xf7\x9b" + b"\xff" * 8, "should be CBOR", id="cbor-count-that-lies"),
        pytest.param(b"\xd9\xd9\xf7\xc0\x74" + b"2026-11-23T00:00:00Z", "JSON cannot hold", id="cbor-date"),
        pytest.param(b"{" + b" " * MAX_VALUE_BYTES, "bytes long", id="gigantic"),
    ],
)
def test_damaged_value(value: bytes, message: str) -> None:
    with pytest.raises(ValueDamaged, match=message) as caught:
        decoded(value)
    assert "/registry/things/b/a" in str(caught.value)


def test_deep_groups() -> None:
    with pytest.raises(ValueDamaged, match="its bytes are not a valid core"):
        decoded(envelope("v1", "ConfigMap", b"\x0b" * 100_000))


def test_gigantic_count_of_empty_messages() -> None:
    with pytest.raises(ValueDamaged, match="more than 200000 messages"):
        decoded(envelope("v1", "Pod", wire_field(2, wire_field(1, b"") * 400_000)))


def test_group_is_refused() -> None:
    with pytest.raises(ValueDamaged, match="group"):
        decoded(envelope("v1", "ConfigMap", wire_field(1, wire_field(1, b"a")) + b"\xfb\x06\xfc\x06"))


def test_encrypted_value_without_keys() -> None:
    with pytest.raises(ValueEncrypted, match="encrypted at rest with secretbox"):
        decoded(b"k8s:enc:secretbox:v1:key1:" + bytes(64))


def test_nothing_heavy_is_loaded_before_the_first_object() -> None:
    program = "import sys, etcdkeep.objects.decoding.decode; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, env={"PYTHONPATH": "include"}
    ).stdout.split()
    assert not {"google", "cryptography", "nacl", "cbor2", "airflow", "kubernetes"} & set(loaded)


def test_table_is_in_order() -> None:
    table = json.loads((schema.Path(schema.__file__).with_name("schema.json")).read_text())
    assert set(table["kinds"].values()) <= set(table["messages"])
    for name in schema.messages():
        for field in schema.fields(name):
            assert not field.is_message or field.type in table["messages"]
