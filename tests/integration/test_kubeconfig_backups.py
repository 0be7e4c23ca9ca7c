"""Whole backups of the lab with the kubeconfigs that sites have; what is archived is tried with kubectl, elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from etcdkeep.control_plane.archive import read_archive
from etcdkeep.errors import ConfigError
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sets.opening import open_artifact
from lab.site import kubectl_path
from tests.backup_run import BackupRun, assert_nothing_lost
from tests.proxies import ProxyServer, running_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from lab import Site


PLUGIN = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "./plugin"}


def archived(site: Site, run: BackupRun) -> dict[str, bytes]:
    """Return the files of the set's access archive."""
    (found,) = run.own_sets()
    artifact = found.manifest.artifact("access") if found.manifest else None
    assert artifact is not None
    keys = parse_identities((site.layout.keys / "age.txt").read_bytes())
    with open_artifact(run.repository.store, found.name, artifact, keys) as plain:
        return read_archive(plain, 2**20)


def kubectl(folder: Path, kubeconfig: bytes) -> str:
    """Ask with nothing but the archived kubeconfig, in an empty folder."""
    folder.mkdir()
    (folder / "kubeconfig").write_bytes(kubeconfig)
    argv = [str(kubectl_path()), "--kubeconfig", "kubeconfig", "get", "namespace", "kube-system", "-o", "name"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout.strip()


class Kept:
    """A kubeconfig of `harbor` in a folder of its own, the keys in files beside it."""

    def __init__(self, site: Site, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "kubeconfig"
        self.document: dict[str, Any] = json.loads(site.clusters["harbor"].kubeconfig.read_text())
        self.cluster = self.document["clusters"][0]["cluster"]
        self.user = self.document["users"][0]["user"]
        self.pem = {
            name: b64decode(section[f"{name}-data"])
            for section, names in (
                (self.cluster, ["certificate-authority"]),
                (self.user, ["client-certificate", "client-key"]),
            )
            for name in names
        }

    def in_files(self) -> None:
        (self.path.parent / "keys").mkdir()
        for name, data in self.pem.items():
            (self.path.parent / "keys" / name).write_bytes("# Schlüssel — Comité\n".encode() + data)
            section = self.cluster if name == "certificate-authority" else self.user
            del section[f"{name}-data"]
            section[name] = f"keys/{name}"

    def write(self) -> dict[str, str]:
        self.path.write_text(yaml.safe_dump(self.document))
        return {"path": str(self.path)}


@pytest.fixture
def kept(site, tmp_path):
    return Kept(site, tmp_path / "worker")


def test_a_kubeconfig_that_names_files_is_archived_whole(site, start_run, kept, tmp_path, monkeypatch):
    kept.in_files()
    kept.cluster["tls-server-name"] = "kubernetes"
    monkeypatch.chdir("/")
    run = start_run("harbor", discovered=False, kubeconfig=kept.write())
    run.whole()
    assert run.own_sets()[0].verifications[-1].warnings == ()
    files = archived(site, run)
    for path in (kept.path, *(kept.path.parent / "keys").iterdir()):
        path.unlink()
    assert kubectl(tmp_path / "elsewhere", files["kubeconfig"]) == "namespace/kube-system"


def test_another_context_is_backed_up_and_archived(site, start_run, kept, tmp_path):
    document = kept.document
    document["contexts"].append({"name": "prod", "context": dict(document["contexts"][0]["context"])})
    document["contexts"][0]["context"] = {"cluster": "gone", "user": "gone"}
    run = start_run("harbor", discovered=False, kubeconfig={**kept.write(), "context": "prod"})
    run.whole()
    stored = archived(site, run)["kubeconfig"]
    assert [each["name"] for each in yaml.safe_load(stored)["contexts"]] == ["prod"]
    assert kubectl(tmp_path / "elsewhere", stored) == "namespace/kube-system"


def test_a_whole_backup_goes_through_a_proxy_with_a_password(start_run, kept):
    with running_proxy(ProxyServer(("u", "p@ss"))) as proxy:
        kept.cluster["proxy-url"] = f"http://u:p%40ss@127.0.0.1:{proxy.port}"
        run = start_run("harbor", discovered=False, kubeconfig=kept.write())
        run.whole()
        assert len(proxy.asked) > 2


def test_a_plugin_s_certificate_backs_up_a_cluster(start_run, kept):
    status = {
        "clientCertificateData": kept.pem["client-certificate"].decode(),
        "clientKeyData": kept.pem["client-key"].decode(),
    }
    version = "client.authentication.k8s.io/v1beta1"
    answer = kept.path.parent / "answer"
    answer.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
    plugin = kept.path.parent / "plugin"
    plugin.write_text(f"#!/bin/sh\ncat {answer}\n")
    plugin.chmod(0o700)
    kept.user.clear()
    kept.user["exec"] = {"apiVersion": version, "command": "./plugin"}
    run = start_run("harbor", discovered=False, kubeconfig=kept.write())
    with pytest.raises(ConfigError, match="is not allowed here"):
        run.task("discover")
    run.reconfigure(kubeconfig={**kept.write(), "exec_plugins": [str(plugin)]})
    run.whole()
    warnings = run.own_sets()[0].verifications[-1].warnings
    assert any("needs the exec plugin" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("user", {"as-groups": ["system:masters"]}, "without as"),
        ("user", {"auth-provider": {"name": "gcp"}}, "auth-provider of user .* is not supported"),
        ("cluster", {"insecure-skip-tls-verify": True, "certificate-authority-data": None}, "allow_insecure"),
        ("cluster", {"proxy_url": "http://proxy"}, "did you mean 'proxy-url'"),
    ],
    ids=["groups-alone", "auth-provider", "insecure", "mistyped"],
)
def test_what_is_not_supported_stops_the_backup_by_name(start_run, kept, section, change, said):
    getattr(kept, section).update(change)
    run = start_run("harbor", discovered=False, kubeconfig=kept.write())
    with pytest.raises(ConfigError, match=said):
        run.task("discover")
    assert_nothing_lost(run)


def test_insecure_servers_work_where_the_cluster_s_entry_says_so(start_run, kept):
    del kept.cluster["certificate-authority-data"]
    kept.cluster["insecure-skip-tls-verify"] = True
    permitted = {**kept.write(), "allow_insecure": ["insecure-skip-tls-verify"]}
    run = start_run("harbor", discovered=False, kubeconfig=permitted)
    assert run.task("discover")


CANARY = "canary0badc0de"
WRONG = {
    "token": ({"token": f"{CANARY} {CANARY}"}, {}, "token of user 'kubernetes-admin' holds a space"),
    "token-file": ({"tokenFile": "secret"}, {}, "holds a space, a line break"),
    "key": (
        {"client-key-data": b64encode(CANARY.encode()).decode()},
        {},
        "client-certificate and client-key cannot be used",
    ),
    "key-file": (
        {"client-key-data": None, "client-key": "secret"},
        {},
        "client-certificate and client-key cannot be used",
    ),
    "plugin": ({"exec": PLUGIN}, {}, "ended with exit code 4.\n  Last output: I say ***"),
    "proxy": (
        {},
        {"proxy-url": f"socks5://{CANARY}:{CANARY}@127.0.0.1:1"},
        "proxy socks5://127.0.0.1:1 cannot be reached",
    ),
    "proxy-url": ({}, {"proxy-url": f"http://u:{CANARY}/@p"}, "percent-encoded"),
    "impersonation": ({"as-user-extra": {"a": [CANARY]}}, {}, "without as"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_the_command_line_shows_no_secret_of_a_kubeconfig(site, start_run, kept, kind):
    user, cluster, said = WRONG[kind]
    (kept.path.parent / "secret").write_text(f"{CANARY}\n{CANARY}\n")
    (kept.path.parent / "plugin").write_text(f"#!/bin/sh\necho {CANARY}; echo I say {CANARY} >&2; exit 4\n")
    (kept.path.parent / "plugin").chmod(0o700)
    kept.user.update(user)
    kept.cluster.update(cluster)
    permitted = {**kept.write(), "exec_plugins": [str(kept.path.parent / "plugin")]}
    start_run("harbor", discovered=False, kubeconfig=permitted)
    argv = [sys.executable, "-m", "etcdkeep", "objects", "diff", "harbor", "--live"]
    environment = os.environ | {"ETCDKEEP_AGE_IDENTITY": str(site.layout.keys / "age.txt")}
    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert CANARY not in ended.stderr + ended.stdout
