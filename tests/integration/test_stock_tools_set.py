"""A set that the pipeline made, opened with age, zstd, tar, etcdutl and openssl alone: nothing of ours is needed to restore."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.etcd import etcd_program, running_etcd

MISSING = [program for program in ("age", "zstd", "tar", "openssl") if shutil.which(program) is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt-get install age zstd tar openssl)"
)


@pytest.fixture(scope="module")
def made(older_run, lab_site, tmp_path_factory):
    """A set of `harbor` as files, with the identity and the public key that its owner keeps."""
    run = older_run("harbor")
    folder = tmp_path_factory.mktemp("stock")
    source = Path(older_run.url.removeprefix("file://"), "harbor", run.identifier)
    shutil.copytree(source, folder / "set")
    return folder


def opened(made: Path, lab_site, artifact: str) -> bytes:
    """``age -d -i age.txt ARTIFACT | zstd -d``."""
    identity = lab_site.layout.keys / "age.txt"
    compressed = run("age", "-d", "-i", str(identity), str(made / "set" / artifact))
    return run("zstd", "-d", "-c", stdin=compressed)


def run(*argv: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(argv, input=stdin, capture_output=True, check=True, timeout=60).stdout


def test_the_snapshot_opens_and_a_real_etcd_serves_from_it(made, lab_site, tmp_path):
    (tmp_path / "etcd.db").write_bytes(opened(made, lab_site, "etcd.db.zst.age"))
    status = json.loads(run(etcd_program("etcdutl"), "snapshot", "status", str(tmp_path / "etcd.db"), "-w", "json"))
    manifest = json.loads((made / "set/manifest.json").read_text())
    assert (status["revision"], status["totalKey"]) == (manifest["revision"], manifest["snapshot"]["total_keys"])
    run(
        etcd_program("etcdutl"),
        "snapshot",
        "restore",
        str(tmp_path / "etcd.db"),
        "--data-dir",
        str(tmp_path / "restored"),
    )
    with running_etcd(tmp_path / "restored", "--force-new-cluster") as etcd:
        keys = etcd.ctl("get", "--prefix", "/registry/secrets/", "--keys-only").split()
    assert "/registry/secrets/kube-system/sshkeys" in keys


@pytest.mark.parametrize(
    ("artifact", "expected"),
    [
        pytest.param("control-plane.tar.zst.age", {"pki/ca.key", "pki/sa.key", "pki/etcd/ca.crt", "manifests/etcd.yaml", "admin.conf"}, id="control-plane"),
        pytest.param("access.tar.zst.age", {"ssh_key", "known_hosts", "kubeconfig"}, id="access"),
    ],
)  # fmt: skip
def test_an_archive_unpacks_with_tar(made, lab_site, tmp_path, artifact, expected):
    run("tar", "-x", "-C", str(tmp_path), stdin=opened(made, lab_site, artifact))
    unpacked = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in expected if not any(path.endswith(name) for path in unpacked)} == set()
    if artifact.startswith("control-plane"):
        (ca_key,) = (path for path in tmp_path.rglob("ca.key") if path.parent.name == "pki")
        assert ca_key.read_bytes() == (lab_site.clusters["harbor"].node.root / "etc/kubernetes/pki/ca.key").read_bytes()


@pytest.mark.parametrize("altered", [False, True], ids=["as-published", "altered"])
def test_the_signature_is_checked_with_openssl(made, tmp_path, altered):
    manifest = (made / "set/manifest.json").read_bytes()
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(json.loads(manifest)["signing_key"]))
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(pem)
    (tmp_path / "manifest.json").write_bytes(manifest.replace(b"harbor", b"harbou", 1) if altered else manifest)
    argv = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(tmp_path / "public.pem")]
    argv += ["-in", str(tmp_path / "manifest.json"), "-sigfile", str(made / "set/manifest.json.sig")]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    assert (done.returncode == 0) is not altered, done.stderr
