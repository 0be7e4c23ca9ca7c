"""Encryption at rest: what a configuration file says, and whether a set holds the keys its snapshot needs."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.control_plane.encryption import (
    EncryptionConfiguration,
    check_encryption_keys,
    find_encryption_configurations,
    parse_encryption_configuration,
)
from etcdkeep.errors import ConfigError

SECRET = bytes(range(32))
KMS_FILES = "opt/data/gke-k8s-kms-plugin/generatedkeys"
CONFIG_PATH = "etc/kubernetes/enc/config.yaml"


def local_provider(kind: str = "aescbc", name: str = "key1", secret: bytes | str = SECRET) -> dict[str, Any]:
    text = base64.b64encode(secret).decode() if isinstance(secret, bytes) else secret
    return {kind: {"keys": [{"name": name, "secret": text}]}}


def kms_provider(name: str = "gke-kms", **body: Any) -> dict[str, Any]:
    return {"kms": {"name": name, "endpoint": "unix:///var/run/kms/socket.sock", **body}}


def configuration(*providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",), **overrides: Any) -> bytes:
    document: dict[str, Any] = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": list(resources), "providers": [*providers, {"identity": {}}]}],
        **overrides,
    }
    return yaml.safe_dump(document).encode()


def parse(*providers: dict[str, Any], **overrides: Any) -> EncryptionConfiguration:
    return parse_encryption_configuration(configuration(*providers, **overrides), "config.yaml")


@pytest.mark.parametrize(
    ("kind", "size"),
    [("aescbc", 16), ("aescbc", 24), ("aescbc", 32), ("aesgcm", 16), ("aesgcm", 32), ("secretbox", 32)],
)
def test_local_keys_come_out_raw(kind: str, size: int) -> None:
    parsed = parse(local_provider(kind, "k", SECRET[:size]), resources=("secrets", "*.apps"))
    assert parsed.rules[0].resources == ("secrets", "*.apps")
    assert [provider.kind for provider in parsed.providers] == [kind, "identity"]
    assert [key.secret for key in parsed.keys(kind, "k")] == [SECRET[:size]]
    assert parsed.providers[0].key_names == ("k",)


def test_one_name_may_stand_for_two_keys_of_two_rules() -> None:
    rules = [
        {"resources": [name], "providers": [local_provider(secret=secret)]}
        for name, secret in (("secrets", SECRET), ("configmaps", SECRET[::-1]), ("events", SECRET))
    ]
    document = {**yaml.safe_load(configuration()), "resources": rules}
    parsed = parse_encryption_configuration(yaml.safe_dump(document).encode(), "config.yaml")
    assert [key.secret for key in parsed.keys("aescbc", "key1")] == [SECRET, SECRET[::-1]]


@pytest.mark.parametrize(
    ("body", "version"), [({}, "v1"), ({"apiVersion": "v1"}, "v1"), ({"apiVersion": "v2", "timeout": "3s"}, "v2")]
)
def test_kms_keeps_name_version_and_socket(body: dict[str, Any], version: str) -> None:
    (provider, _) = parse(kms_provider(**body)).providers
    assert (provider.kms_name, provider.kms_version) == ("gke-kms", version)
    assert provider.kms_endpoint == "unix:///var/run/kms/socket.sock"
    assert provider.key_names == ("gke-kms",)


def test_json_crlf_and_wrapped_base64_are_read() -> None:
    wrapped = base64.b64encode(SECRET).decode()
    wrapped = wrapped[:20] + "\n" + wrapped[20:] + "\n"
    data = configuration(local_provider(secret=wrapped)).replace(b"\n", b"\r\n")
    assert parse_encryption_configuration(data, "c").keys("aescbc", "key1")[0].secret == SECRET


@pytest.mark.parametrize(
    ("providers", "words"),
    [
        pytest.param(
            [local_provider(secret=SECRET[:7])], "providers[0].aescbc.keys[0].secret: must be base64", id="size"
        ),
        pytest.param([local_provider(secret="%%%")], "must be base64 of 16, 24, 32 bytes", id="not-base64"),
        pytest.param(
            [local_provider("secretbox", secret=SECRET[:16])], "must be base64 of 32 bytes", id="secretbox-size"
        ),
        pytest.param([{"aescbc": {"keys": [{"name": "k", "secret": 12345678}]}}], "secret: must be", id="number"),
        pytest.param([{"aescbc": {"keys": [{"secret": "x"}]}}], "keys[0].name: is missing", id="no-name"),
        pytest.param([{"aescbc": {}}], "aescbc.keys: is empty", id="no-keys"),
        pytest.param([{"aescbc": None}], "aescbc.keys: is empty", id="null-body"),
        pytest.param([{"rot13": {}}], "provider 'rot13' is unknown", id="unknown-provider"),
        pytest.param([{"kms": {"endpoint": "unix:///x"}}], "kms.name: is missing", id="kms-without-name"),
        pytest.param([{"identity": {}, "aescbc": {}}], "must name exactly one provider", id="two-in-one"),
    ],
)
def test_every_fault_is_named_by_its_path(providers: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(*providers)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="list"),
        pytest.param(configuration(kind="EncryptionConfig"), id="other-kind"),
        pytest.param(configuration(apiVersion="v1"), id="other-version"),
        pytest.param(configuration(resources=()).replace(b"resources:", b"rules:"), id="no-resources"),
    ],
)
def test_what_is_no_configuration_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        parse_encryption_configuration(data, "config.yaml")


def test_the_form_of_old_is_read_as_kubernetes_reads_it() -> None:
    data = configuration(kms_provider(), apiVersion="v1", kind="EncryptionConfig")
    assert parse_encryption_configuration(data, "config.yaml")
    assert list(find_encryption_configurations({"enc.yaml": data})) == ["enc.yaml"]


def test_no_message_or_repr_shows_a_key() -> None:
    canary = "CANARYcanaryCANARYcanary"
    broken = configuration(local_provider(secret="x")).replace(b"secret: x", b"secret: [" + canary.encode() + b": {")
    for data in (broken, configuration(local_provider(secret=canary + "=="))):
        with pytest.raises(ConfigError) as caught:
            parse_encryption_configuration(data, "config.yaml")
        assert canary not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    assert repr(SECRET) not in repr(parse(local_provider()))
    assert "secret" not in repr(parse(local_provider()).keys("aescbc", "key1")[0])


@given(st.binary(max_size=200))
def test_other_bytes_give_a_config_error(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        parse_encryption_configuration(data, "config.yaml")


def test_configurations_are_found_by_content() -> None:
    files = {
        CONFIG_PATH: configuration(local_provider()),
        "pki/ca.crt": b"-----BEGIN CERTIFICATE-----",
        "manifests/note.yaml": b"# mentions EncryptionConfiguration only\nkind: Pod\n",
        "pki/broken.yaml": configuration(local_provider(secret="x")),
    }
    found = find_encryption_configurations(files)
    assert set(found) == {CONFIG_PATH, "pki/broken.yaml"}
    assert isinstance(found[CONFIG_PATH], EncryptionConfiguration)
    assert isinstance(found["pki/broken.yaml"], ConfigError)


def test_keys_in_the_set_cover_what_was_seen() -> None:
    files = {
        CONFIG_PATH: configuration(local_provider("aesgcm", "a"), local_provider("secretbox", "s")),
        f"{KMS_FILES}/1.key": b"key",
    }
    coverage = check_encryption_keys(
        {("aesgcm", "a"), ("secretbox", "s"), ("kms", "gke-kms")}, files, [f"/{KMS_FILES}/"]
    )
    assert coverage.problems == ()
    (note,) = coverage.notes
    assert "'gke-kms'" in note
    assert "1 of its files" in note
    assert check_encryption_keys((), {}, ()).problems == ()


@pytest.mark.parametrize(
    ("seen", "files", "words"),
    [
        pytest.param(
            ("aescbc", "key2"), {CONFIG_PATH: configuration(local_provider())}, f"is not in {CONFIG_PATH}", id="name"
        ),
        pytest.param(
            ("aesgcm", "key1"), {CONFIG_PATH: configuration(local_provider())}, "aesgcm key 'key1'", id="kind"
        ),
        pytest.param(("aescbc", "key1"), {}, "is nowhere in the set", id="no-file"),
        pytest.param(
            ("newcipher", "k"), {CONFIG_PATH: configuration(local_provider())}, "newcipher key 'k'", id="unknown"
        ),
        pytest.param(
            ("kms", "cloud"), {CONFIG_PATH: configuration(kms_provider("cloud"))}, "KMS plugin 'cloud'", id="kms"
        ),
        pytest.param(("kms", "gke"), {f"{KMS_FILES}/k": b""}, "KMS plugin 'gke'", id="kms-empty-file"),
        pytest.param(("kms", "gke"), {f"{KMS_FILES}.old/k": b"k"}, "KMS plugin 'gke'", id="kms-other-folder"),
    ],
)
def test_a_key_that_is_not_in_the_set_is_a_problem(seen: tuple[str, str], files: dict[str, bytes], words: str) -> None:
    (problem,) = check_encryption_keys([seen, seen], files, [KMS_FILES]).problems
    assert words in problem


def test_a_kms_key_may_be_one_file() -> None:
    assert check_encryption_keys([("kms", "v")], {"srv/kek.bin": b"k"}, ["/srv/kek.bin"]).problems == ()


def test_without_a_configured_path_no_file_counts_as_a_kms_key() -> None:
    assert check_encryption_keys([("kms", "gke")], {"pki/ca.key": b"key"}, ()).problems


def test_an_unreadable_configuration_is_named_beside_the_missing_key() -> None:
    problems = check_encryption_keys(
        [("aescbc", "key1")], {CONFIG_PATH: configuration(local_provider(secret="x"))}, ()
    ).problems
    assert len(problems) == 2
    assert CONFIG_PATH in problems[1]
