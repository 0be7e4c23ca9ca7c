"""What only the nodes have, streamed by the real find, cat and tar."""

from __future__ import annotations

import tarfile
from io import BytesIO

import pytest
import yaml

from etcdkeep.errors import AccessDenied, CommandFailed, ConfigError, NotFound, StreamCut, TransientError, Unreachable
from etcdkeep.sealing.seal import unseal
from tests.builders import BACKUP_ID


def opened(site, name):
    """Return the files of a sealed archive in the spool, name → content."""
    spool, plain = site.spool(BACKUP_ID), BytesIO()
    with spool.store.open(spool.prefix + name) as stored:
        unseal(stored, plain, site.identities(), size_limit=2**30)
    plain.seek(0)
    with tarfile.open(fileobj=plain) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}


def test_the_node_s_files_and_the_access_files_are_sealed(site):
    found = site.fetch(site.discover())
    assert [artifact.name for artifact in found.artifacts] == ["control-plane.tar.zst.age", "access.tar.zst.age"]
    assert found.artifacts[0].node == "cp-0"
    files = opened(site, "control-plane.tar.zst.age")
    assert files["pki/sa.key"] == (site.folder / "kubernetes/pki/sa.key").read_bytes()
    assert {"admin.conf", "manifests/etcd.yaml", "manifests/kube-apiserver.yaml", "pki/etcd/ca.crt"} <= set(files)
    assert opened(site, "access.tar.zst.age") == site.access_files()
    assert len(found.ca_sha256) == 64
    assert found.notes == ()


def test_a_second_call_reads_no_node_and_answers_the_same(make_site):
    site = make_site(3)
    discovery = site.discover()
    found = site.fetch(discovery)
    site.node_faults.add(".", StreamCut("cut"), at=0)
    assert site.fetch(discovery) == found
    assert [artifact.name for artifact in found.artifacts] == [
        "control-plane.tar.zst.age",
        "control-plane-cp-2.tar.zst.age",
        "control-plane-cp-0.tar.zst.age",
        "access.tar.zst.age",
    ]


def test_a_retry_fetches_only_what_is_missing(make_site):
    site = make_site(2)
    discovery = site.discover()
    fault = site.node_faults.add("10.0.0.1: .*tar", StreamCut("cut"), after=100)
    with pytest.raises(StreamCut):
        site.fetch(discovery)
    assert fault.seen == 1
    first = site.node_faults.add("10.0.0.2:", at=0)
    assert len(site.fetch(discovery).artifacts) == 3
    assert first.seen == 0


def test_the_files_that_the_apiserver_names_travel_too(make_site, tmp_path):
    keys = tmp_path / "keys/encryption.yaml"
    keys.parent.mkdir()
    keys.write_text("kind: EncryptionConfiguration\n")
    extra = tmp_path / "audit"
    extra.mkdir()
    (extra / "policy.yaml").write_text("a")
    site = make_site(1, extra_paths=[str(extra)], control_plane={"optional_paths": [str(tmp_path / "none")]})
    manifest = tmp_path / "kubernetes/manifests/kube-apiserver.yaml"
    command = f"[kube-apiserver, --encryption-provider-config={keys}, --audit-policy-file={keys.parent}/audit.yaml]"
    mounts = f"    volumeMounts: [{{name: k, mountPath: {keys.parent}}}]\n  volumes: [{{name: k, hostPath: {{path: {keys.parent}}}}}]\n"
    manifest.write_text(f"kind: Pod\nspec:\n  containers:\n  - command: {command}\n{mounts}")
    found = site.fetch(site.discover())
    files = opened(site, "control-plane.tar.zst.age")
    assert files[str(keys).lstrip("/")] == keys.read_bytes()
    assert files[f"{extra}/policy.yaml".lstrip("/")] == b"a"
    words = "does not exist, although kube-apiserver.yaml (--audit-policy-file) names it"
    assert found.notes == (f"node cp-0: {keys.parent}/audit.yaml {words}",), "an optional path may be missing"


def pod_file(name, flags, root, **more):
    """Return the manifest of a static pod that sees `root` as /host."""
    container = {"name": name, "command": [name, *flags], "volumeMounts": [{"name": "host", "mountPath": "/host"}]}
    spec = {"containers": [{**container, **more}], "volumes": [{"name": "host", "hostPath": {"path": str(root)}}]}
    return yaml.safe_dump({"kind": "Pod", "metadata": {"name": name}, "spec": spec})


@pytest.fixture
def external_ca(site):
    """A node whose CA key is elsewhere, and whose components have kubeconfigs and configuration beside the PKI."""
    root = site.folder / "kubernetes"
    (root / "pki/ca.key").unlink()
    for name in ("controller-manager.conf", "scheduler.conf"):
        (root / name).write_text(f"users: [{{user: {{client-certificate: {name}.crt, client-key: nowhere.key}}}}]")
        (root / f"{name}.crt").write_text("certificate")
    (root / "kubelet.conf").write_text(f"users: [{{user: {{client-certificate: {root}/kubelet.pem}}}}]")
    (root / "kubelet.pem.1").write_text("kubelet's certificate and key")
    (root / "kubelet.pem").symlink_to("kubelet.pem.1")
    (root / "admission.yaml").write_text(
        "plugins: [{path: admission/pods.yaml}, {configuration: {kubeConfigFile: /host/hook.conf}}]"
    )
    (root / "admission").mkdir()
    (root / "admission/pods.yaml").write_text("defaults: {}")
    (root / "hook.conf").write_text("clusters: [{cluster: {certificate-authority: hook.crt}}]")
    (root / "hook.crt").write_text("authority")
    (root / "large.yaml").write_bytes(b"x" * (2**20 + 1))
    (root / "data").mkdir()
    (root / "data/db").write_text("data")
    (root / "audit.log").write_text("log")
    manager = ["--kubeconfig=/host/controller-manager.conf", "--root-ca-file=/host/pki/ca.crt", "--leader-elect"]
    plugin = [{"name": "PLUGIN_CONFIG", "value": "/host/large.yaml"}, {"name": "DATA", "value": "/host/data"}]
    server = [
        "--etcd-servers=x",
        "--admission-control-config-file=/host/admission.yaml",
        "--audit-log-path=/host/audit.log",
    ]
    manifests = root / "manifests"
    (manifests / "kube-controller-manager.yaml").write_text(pod_file("kube-controller-manager", manager, root))
    scheduler = pod_file("kube-scheduler", ["--config", "/host/sched.yaml"], root)
    (manifests / "kube-scheduler.yaml").write_text(scheduler)
    (root / "sched.yaml").write_text("clientConnection: {kubeconfig: /host/scheduler.conf}")
    (manifests / "kube-apiserver.yaml").write_text(pod_file("kube-apiserver", server, root))
    (manifests / "kms.yaml").write_text(pod_file("kms", ["--config-file=/host/none.yaml"], root, env=plugin))
    (manifests / "README").write_text("no pod")
    return site


def test_whatever_static_pods_and_the_kubelet_name_travels(external_ca):
    found = external_ca.fetch(external_ca.discover())
    root = str(external_ca.folder / "kubernetes").lstrip("/")
    files = {
        name.removeprefix(f"{root}/"): data for name, data in opened(external_ca, "control-plane.tar.zst.age").items()
    }
    assert {name for name in files if not name.startswith(("pki/", "manifests/"))} == {
        "admin.conf", "controller-manager.conf", "controller-manager.conf.crt", "scheduler.conf", "scheduler.conf.crt",
        "kubelet.conf", "kubelet.pem", "admission.yaml", "admission/pods.yaml", "hook.conf", "hook.crt", "sched.yaml",
    }  # fmt: skip
    assert files["kubelet.pem"] == b"kubelet's certificate and key"
    assert files["manifests/README"] == b"no pod"
    assert sorted(found.notes) == [
        f"node cp-0: /{root}/large.yaml, named by kms.yaml (PLUGIN_CONFIG), is larger than 1048576 bytes or not a plain file, and is not in the set; if it is needed, add it to extra_paths",
        f"node cp-0: /{root}/none.yaml does not exist, although kms.yaml (--config-file) names it",
    ]


def test_nothing_on_the_node_is_changed_by_looking(external_ca):
    root = external_ca.folder / "kubernetes"
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    external_ca.fetch(external_ca.discover())
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        pytest.param("[sh, -c, exec start-etcd]", "etcd's name is taken from its member list: cp-0", id="taken-from-elsewhere"),
        pytest.param("[etcd, --data-dir=/elsewhere]", "a restore cannot be planned: ", id="cannot-be-restored"),
        pytest.param("[etcd, --config-file=/var/lib/etcd/none.yml]", "--config-file=/var/lib/etcd/none.yml cannot be read", id="config-file"),
    ],
)  # fmt: skip
def test_what_a_restore_could_not_tell_is_said_tonight(site, caplog, command, said):
    manifest = site.folder / "kubernetes/manifests/etcd.yaml"
    document = yaml.safe_load(manifest.read_text())
    document["spec"]["containers"][0]["command"] = yaml.safe_load(command)
    manifest.write_text(yaml.safe_dump(document))
    notes = site.fetch(site.discover()).notes
    assert any(note.startswith("node cp-0: ") and said in note for note in notes)
    assert said in caplog.text


@pytest.mark.parametrize(
    ("lost", "error", "said"),
    [
        pytest.param("pki", CommandFailed, "pki/ca.crt", id="pki"),
        pytest.param("manifests/kube-apiserver.yaml", CommandFailed, "kube-apiserver.yaml", id="manifest"),
    ],
)
def test_a_node_without_what_is_required_fails(site, lost, error, said):
    path = site.folder / "kubernetes" / lost
    path.rename(site.folder / "elsewhere")
    with pytest.raises(error, match=said):
        site.fetch(site.discover())


def test_a_missing_extra_path_fails_and_names_the_setting(make_site, tmp_path):
    site = make_site(1, extra_paths=[str(tmp_path / "audit")])
    with pytest.raises(NotFound, match=r"has no .*/audit; correct .*extra_paths"):
        site.fetch(site.discover())
    assert list(site.spool(BACKUP_ID).store.list()) == []


def test_an_apiserver_manifest_that_is_none_is_told(site):
    (site.folder / "kubernetes/manifests/kube-apiserver.yaml").write_text("kind: Pod\n")
    with pytest.raises(ConfigError, match="is not a manifest of a static pod"):
        site.fetch(site.discover())


def test_files_that_change_while_they_are_read_are_passing_trouble(site):
    changed = CommandFailed(
        "tar ended with exit code 1", exit_code=1, stderr_tail="tar: pki/ca.crt: file changed as we read it"
    )
    site.node_faults.add("tar ", changed)
    with pytest.raises(TransientError, match="files changed while tar read them"):
        site.fetch(site.discover())


@pytest.mark.parametrize("error", [AccessDenied("sudo does not allow it"), StreamCut("cut")], ids=["denied", "cut"])
def test_other_trouble_is_the_node_s_own(site, error):
    site.node_faults.add("find", error)
    with pytest.raises(type(error), match=str(error)):
        site.fetch(site.discover())


def test_a_dead_node_of_an_unfit_member_is_noted_and_no_reason_to_fail(make_site):
    site = make_site(3)
    site.members[1].phase = "Unknown"
    site.down.add("10.0.0.2")
    found = site.fetch(site.discover())
    assert [artifact.node for artifact in found.artifacts] == ["cp-2", "cp-0", None]
    (note,) = found.notes
    assert note.startswith("node cp-1: none of its files is in the set; its etcd member is not usable, and ")
    assert "timed out" in note


def test_a_dead_node_of_a_fit_member_fails(make_site):
    site = make_site(3)
    site.down.add("10.0.0.1")
    with pytest.raises(Unreachable, match=r"10\.0\.0\.1"):
        site.fetch(site.discover())


def test_a_worker_with_its_own_service_account_has_no_kubeconfig_to_keep(site, monkeypatch):
    monkeypatch.setattr(site, "access_files", lambda: {"ssh_key": b"key"})
    assert site.fetch(site.discover()).notes == ("access holds no kubeconfig: the worker used its own service account",)


def test_an_unfit_members_node_whose_files_are_not_whole_is_left_out(make_site):
    site = make_site(3)
    site.members[1].phase = "Unknown"
    found = site.fetch(site.discover())
    assert [artifact.node for artifact in found.artifacts] == ["cp-2", "cp-0", "cp-1", None]
    whole = site.spool(BACKUP_ID)
    whole.purge()
    (site.folder / "kubernetes/pki/sa.key").unlink()
    found = site.fetch(site.discover())
    assert [artifact.node for artifact in found.artifacts] == ["cp-2", "cp-0", None]
    assert "node cp-1: none of its files is in the set" in found.notes[-1]
    assert "has no pki/sa.key" in found.notes[-1]
