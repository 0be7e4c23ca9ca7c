"""The PKI check: sound control planes of every shape pass, each fault is named by its file."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdkeep.config.profiles import PROFILES, ControlPlane
from etcdkeep.control_plane.pki import AUTHORITIES, PkiReport, ca_fingerprint, check_pki
from etcdkeep.errors import ConfigError
from tests.pki import (
    PKCS1_OR_SEC1,
    Identity,
    key_pem,
    make_authority,
    make_identity,
    make_key,
    make_kubeconfig,
    make_pki,
    public_pem,
)

NOW = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
REQUIRED = ControlPlane().required_files
CA = make_authority("pki/ca.crt", NOW)
SOUND = make_pki(NOW)


def check(files: dict[str, bytes], **overrides: Any) -> PkiReport:
    return check_pki(files, **{"required": REQUIRED, "now": NOW, "warning_days": 30, **overrides})


def check_with(**replaced: bytes | None) -> PkiReport:
    return check(make_pki(NOW, **replaced))


def leaf(name: str = "pki/apiserver.crt", issuer: Identity = CA, **overrides: Any) -> Identity:
    return make_identity(name, NOW, issuer=issuer, **overrides)


def pair(path: str, identity: Identity) -> dict[str, bytes]:
    return {path: identity.crt, path.removesuffix(".crt") + ".key": identity.pem_key}


# --- what is sound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_a_sound_control_plane_passes(kind: str) -> None:
    files = make_pki(NOW, kind)
    report = check(files)
    assert (report.problems, report.warnings) == ((), ())
    assert report.ca_fingerprint == ca_fingerprint(files["pki/ca.crt"])


def test_the_fingerprint_is_openssl_s_without_colons() -> None:
    der = base64.b64decode(b"".join(CA.crt.splitlines()[1:-1]))
    assert ca_fingerprint(CA.crt + leaf().crt) == hashlib.sha256(der).hexdigest()


def test_the_soonest_expiry_is_told_with_its_file() -> None:
    soon = leaf("pki/etcd/peer.crt", make_authority("pki/etcd/ca.crt", NOW), end_days=40)
    report = check_with(**pair("pki/etcd/peer.crt", soon))
    assert report.expires_first == "pki/etcd/peer.crt"
    assert report.expires_at == soon.certificate.not_valid_after_utc == NOW + timedelta(days=40)


@pytest.mark.parametrize("profile", ["kubeadm", "gke-admin", "gke-user-controlplane-v2"])
def test_every_profile_with_nodes_requires_what_kubeadm_makes(profile: str) -> None:
    required = ControlPlane.model_validate(PROFILES[profile]).required_files
    assert check(make_pki(NOW), required=required).problems == ()


def test_an_external_authority_has_no_key_here() -> None:
    report = check_with(**{path.replace(".crt", ".key"): None for path in AUTHORITIES})
    assert report.problems == ()
    assert [warning.split(" ")[0] for warning in report.warnings] == [
        "pki/ca.key",
        "pki/etcd/ca.key",
        "pki/front-proxy-ca.key",
    ]


def test_an_intermediate_authority_may_stand_in_the_leaf_file() -> None:
    middle = make_authority("middle", NOW, issuer=CA)
    lower = make_authority("lower", NOW, issuer=middle)
    server = leaf(issuer=lower)
    files = {"pki/apiserver.crt": server.crt + middle.crt + lower.crt, "pki/apiserver.key": server.pem_key}
    assert check_with(**files).problems == ()


def test_an_intermediate_authority_may_be_the_authority() -> None:
    root = make_authority("root", NOW)
    ca = make_authority("pki/ca.crt", NOW, issuer=root)
    assert check_with(**{"pki/ca.crt": ca.crt + root.crt}).problems == ()


def test_an_old_authority_may_run_out_in_a_bundle() -> None:
    old = make_authority("old", NOW, start_days=-4000, end_days=-1)
    for bundle in (CA.crt + old.crt, old.crt + CA.crt):
        assert check_with(**{"pki/ca.crt": bundle}).problems == ()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data.replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(lambda data: b"Certificate:\n    Version: 3\n" + data + b"\n\n", id="text-around"),
        pytest.param(lambda data: data.rstrip(b"\n"), id="no-last-newline"),
    ],
)
def test_pem_files_may_be_written_in_other_ways(change: Any) -> None:
    files = {path: change(data) if path.startswith("pki/") else data for path, data in SOUND.items()}
    assert check(files) == check(SOUND)


EC_PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        pytest.param("ec", b"", id="sec1"),
        pytest.param("rsa", b"", id="pkcs1"),
        pytest.param("ec", EC_PARAMETERS, id="parameters"),
    ],
)
def test_keys_may_be_in_the_older_forms(kind: str, before: bytes) -> None:
    server = leaf(kind=kind)
    files = {"pki/apiserver.crt": server.crt, "pki/apiserver.key": before + key_pem(server.key, PKCS1_OR_SEC1)}
    assert check_with(**files).problems == ()


def test_a_service_account_may_have_several_public_keys() -> None:
    bundle = public_pem(make_key("rotated")) + CA.crt + public_pem(make_key("sa"))
    assert check_with(**{"pki/sa.pub": bundle}).problems == ()
    rsa_key = make_key("sa", "rsa").public_key()
    pkcs1 = rsa_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
    assert check_with(**{"pki/sa.key": key_pem(make_key("sa", "rsa")), "pki/sa.pub": pkcs1}).problems == ()


def test_kubeconfigs_that_name_files_or_tokens_are_left_alone() -> None:
    rotated = b"users: [{user: {client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem}}]"
    report = check_with(**{"kubelet.conf": rotated})
    assert (report.problems, report.warnings) == ((), ())
    report = check_with(**{"admin.conf": rotated})
    assert report.problems == ()
    assert "by path" in report.warnings[0]


# --- what is not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REQUIRED)
@pytest.mark.parametrize(("content", "words"), [(None, "is missing"), (b" \r\n", "is empty")])
def test_a_required_file_must_be_there(path: str, content: bytes | None, words: str) -> None:
    (problem,) = check_with(**{path: content}).problems
    assert problem.startswith(f"{path} {words}")


@pytest.mark.parametrize("path", REQUIRED)
def test_a_required_file_must_be_what_its_name_says(path: str) -> None:
    (problem,) = check_with(**{path: b"no such thing\n"}).problems
    assert problem.startswith(f"{path} ")


OTHER_CA = make_authority("pki/ca.crt", NOW, key=make_key("other-ca"))
ETCD_CA = make_authority("pki/etcd/ca.crt", NOW)
MIDDLE_OVER = make_authority("middle", NOW, issuer=CA, start_days=-400, end_days=-3)

FAULTS = [
    pytest.param(pair("pki/apiserver.crt", leaf(end_days=-5)), "pki/apiserver.crt expired on 2031-04-29, 5 days ago", id="expired"),
    pytest.param(pair("pki/apiserver.crt", leaf(start_days=1)), "pki/apiserver.crt is valid only from 2031-05-05", id="not-yet"),
    pytest.param({"pki/apiserver.key": key_pem(make_key("x"))}, "pki/apiserver.crt does not match its key pki/apiserver.key", id="key"),
    pytest.param({"pki/ca.key": key_pem(make_key("x"))}, "pki/ca.crt does not match its key pki/ca.key", id="ca-key"),
    pytest.param(
        pair("pki/apiserver.crt", leaf(issuer=OTHER_CA)), "pki/apiserver.crt is not signed by pki/ca.crt", id="same-name-other-key"
    ),
    pytest.param(
        pair("pki/etcd/server.crt", leaf("pki/etcd/server.crt")), "pki/etcd/server.crt is not signed by pki/etcd/ca.crt", id="wrong-ca"
    ),
    pytest.param(
        pair("pki/apiserver-etcd-client.crt", leaf("c")), "pki/apiserver-etcd-client.crt is not signed by pki/etcd/ca.crt", id="etcd-client"
    ),
    pytest.param(
        pair("pki/front-proxy-client.crt", leaf("c")), "pki/front-proxy-client.crt is not signed by pki/front-proxy-ca.crt", id="front-proxy"
    ),
    pytest.param(
        pair("pki/etcd/peer.crt", leaf("p", leaf("pki/apiserver.crt", ETCD_CA))), "pki/etcd/peer.crt is not signed", id="signed-by-a-leaf"
    ),
    pytest.param(
        {"pki/apiserver.crt": leaf(issuer=MIDDLE_OVER).crt + MIDDLE_OVER.crt}, "only through a certificate that is not valid now", id="middle"
    ),
    pytest.param({"pki/sa.pub": public_pem(make_key("x"))}, "pki/sa.pub does not match pki/sa.key", id="service-account"),
    pytest.param({"pki/sa.key": key_pem(make_key("sa"), password=b"p")}, "pki/sa.key holds a private key with a password", id="password"),
    pytest.param({"pki/sa.key": CA.crt}, "pki/sa.key holds no PEM private key", id="certificate-as-key"),
    pytest.param({"admin.conf": make_kubeconfig(leaf("a", end_days=-1))}, "admin.conf expired on 2031-05-03", id="admin-expired"),
    pytest.param({"admin.conf": make_kubeconfig(leaf("a", OTHER_CA))}, "admin.conf is not signed by pki/ca.crt", id="admin-other-ca"),
    pytest.param(
        {"admin.conf": make_kubeconfig(leaf("a"), **{"client-key-data": base64.b64encode(CA.pem_key).decode()})},
        "admin.conf has a client certificate that does not match its key",
        id="admin-key",
    ),
    pytest.param({"admin.conf": make_kubeconfig(leaf("a"), **{"client-key-data": None})}, "admin.conf has a client key that", id="admin-no-key"),
    pytest.param({"admin.conf": make_kubeconfig(leaf("a"), **{"client-certificate-data": "%"})}, "admin.conf has a client cert", id="admin-base64"),
    pytest.param({"admin.conf": b"users: []"}, "admin.conf is not a kubeconfig", id="admin-no-user"),
    pytest.param({"admin.conf": b"users: ["}, "admin.conf is not valid YAML", id="admin-yaml"),
    pytest.param({"manifests/etcd.yaml": b"kind: ["}, "manifests/etcd.yaml is not a manifest", id="manifest"),
]  # fmt: skip


@pytest.mark.parametrize(("replaced", "words"), FAULTS)
def test_each_fault_is_one_problem(replaced: dict[str, bytes], words: str) -> None:
    problems = check_with(**replaced).problems
    assert any(words in problem for problem in problems), problems
    files = {problem.split(" ")[0] for problem in problems}
    assert files <= set(replaced) | {path.replace(".key", ".crt") for path in replaced}


@pytest.mark.parametrize(
    "overrides", [{"ca": False}, {"extensions": False}], ids=["constraints-say-no", "no-constraints"]
)
def test_an_authority_must_be_one(overrides: dict[str, Any]) -> None:
    problems = check_with(**{"pki/ca.crt": make_authority("pki/ca.crt", NOW, **overrides).crt}).problems
    assert "pki/ca.crt is not the certificate of an authority (CA:TRUE, keyCertSign)" in problems


def test_an_expired_authority_is_a_problem() -> None:
    problems = check_with(**{"pki/ca.crt": make_authority("pki/ca.crt", NOW, start_days=-99, end_days=-1).crt}).problems
    assert any(problem.startswith("pki/apiserver.crt is signed by pki/ca.crt only through") for problem in problems)
    assert any(problem.startswith("pki/ca.crt expired") for problem in problems)


def test_every_problem_is_told_at_once() -> None:
    files = {
        **pair("pki/apiserver.crt", leaf(end_days=-5)),
        "pki/sa.pub": public_pem(make_key("x")),
        "admin.conf": None,
    }
    assert len(check_with(**files).problems) == 3


# --- warnings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "warned"), [(29.5, True), (30.5, False)])
def test_a_certificate_that_ends_soon_gives_a_warning(days: float, warned: bool) -> None:
    report = check_with(**pair("pki/apiserver.crt", leaf(end_days=days)))
    assert report.problems == ()
    assert ("pki/apiserver.crt expires on 2031-06-02, in 29 days; renew it on the node" in report.warnings) is warned


def test_faults_of_unknown_files_are_warnings() -> None:
    over = leaf("old", start_days=-700, end_days=-300)
    extras = {
        **pair("pki/old/apiserver.crt", over),
        "pki/mixed.crt": CA.crt,
        "pki/mixed.key": over.pem_key,
        "etc/ssl/member.pem": CA.crt,
        "etc/ssl/member-key.pem": over.pem_key,
        "pki/broken.crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "etc/kubernetes/scheduler.conf": make_kubeconfig(over),
        "pki/combined.pem": CA.crt + CA.pem_key,
        "pki/notes.crt": b"none",
    }
    report = check_with(**extras)
    assert report.problems == ()
    assert sorted(warning.split(" ")[0] for warning in report.warnings) == [
        "etc/kubernetes/scheduler.conf",
        "etc/ssl/member.pem",
        "pki/broken.crt",
        "pki/mixed.crt",
        "pki/old/apiserver.crt",
    ]
    assert report.expires_at is not None
    assert report.expires_at > NOW


def test_a_fault_of_an_extra_file_is_a_problem_once_it_is_required() -> None:
    files = make_pki(NOW, **pair("pki/konnectivity.crt", leaf("k", end_days=-1)))
    assert check(files).problems == ()
    assert (
        check(files, required=(*REQUIRED, "pki/konnectivity.crt"))
        .problems[0]
        .startswith("pki/konnectivity.crt expired")
    )


def test_a_key_that_everybody_on_the_node_can_read_gives_a_warning() -> None:
    files = make_pki(NOW)
    modes = dict.fromkeys(files, 0o644)
    warned = {warning.split(" ")[0] for warning in check(files, modes=modes).warnings}
    assert warned == {path for path in files if path.endswith(".key")} | {"admin.conf"}
    assert "(mode 0644)" in check(files, modes=modes).warnings[0]
    assert check(files, modes=dict.fromkeys(files, 0o640)).warnings == ()


def test_without_its_authority_a_certificate_is_reported_as_unchecked() -> None:
    files = make_pki(NOW, **{"pki/etcd/ca.crt": None, "pki/etcd/ca.key": None})
    report = check(files, required=[path for path in REQUIRED if path != "pki/etcd/ca.crt"])
    assert report.problems == ()
    assert len([warning for warning in report.warnings if "cannot be checked" in warning]) == 4


# --- whatever comes ----------------------------------------------------------------------------------------------


def test_no_sentence_holds_key_material() -> None:
    files = SOUND
    for path in files:
        damaged = {**files, path: files[path][:-60].replace(b"kind", b"\tkind").replace(b"users", b"\tusers: [")}
        report = check(damaged)
        text = " ".join((*report.problems, *report.warnings))
        secret = [line for line in files[path].decode().splitlines() if len(line) > 40]
        assert not [line for line in secret if line[:24] in text]


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_never_end_in_an_exception(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(SOUND)))
    damaged = bytearray(SOUND[path])
    for position in data.draw(st.lists(st.integers(0, 2**16), min_size=1, max_size=4)):
        damaged[position % len(damaged)] = data.draw(st.integers(0, 255))
    report = check({**SOUND, path: bytes(damaged)})
    assert all(path.split(".")[0] in problem or path in AUTHORITIES for problem in report.problems)


def test_a_file_without_a_certificate_has_no_fingerprint() -> None:
    with pytest.raises(ConfigError, match=r"pki/ca\.crt"):
        ca_fingerprint(b"none")
    assert check_with(**{"pki/ca.crt": b"none"}).ca_fingerprint is None


def test_comments_in_pem_files_do_no_harm():
    """openssl and corporate authorities write them, in any encoding."""
    files = {
        path: "# Autorité — Müller\n".encode() + data + "# für\n".encode("latin-1") if path.startswith("pki/") else data
        for path, data in make_pki(NOW).items()
    }
    assert check_pki(files, required=(), now=NOW, warning_days=0).problems == ()
