"""Static pod manifests: flags in every spelling, container paths mapped to the host."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from etcdkeep.errors import ConfigError
from etcdkeep.static_pod import EtcdStaticPod, apiserver_files, etcd_static_pod


def pod(*words: str, mounts: dict[str, str] | None = None, **container: Any) -> bytes:
    """Return a manifest of one container; `mounts` maps container paths to host paths."""
    pairs = list((mounts or {}).items())
    body = {
        "name": "main",
        "image": "registry.example.net/image:1",
        "command": list(words),
        "volumeMounts": [{"name": f"v{index}", "mountPath": inner} for index, (inner, _) in enumerate(pairs)],
        **container,
    }
    volumes = [{"name": f"v{index}", "hostPath": {"path": host}} for index, (_, host) in enumerate(pairs)]
    manifest = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [body], "volumes": volumes}}
    return yaml.safe_dump(manifest).encode()


@pytest.mark.parametrize(
    ("command", "args"),
    [
        pytest.param(["kube-apiserver", "--encryption-provider-config=/enc/c.yaml"], [], id="equals"),
        pytest.param(["kube-apiserver", "--encryption-provider-config", "/enc/c.yaml", "--v=2"], [], id="two-items"),
        pytest.param(["kube-apiserver"], ["--allow-privileged", "--encryption-provider-config=/enc/c.yaml"], id="args"),
        pytest.param(None, ["--encryption-provider-config", "/enc/c.yaml"], id="args-alone"),
    ],
)
def test_flags_are_found_in_every_spelling(command: list[str] | None, args: list[str]) -> None:
    manifest = pod(mounts={"/enc": "/srv/encryption"}, command=command, args=args)
    assert apiserver_files(manifest, "kube-apiserver.yaml") == ("/srv/encryption/c.yaml",)


@pytest.mark.parametrize(
    ("mounts", "host"),
    [
        pytest.param({"/etc/kubernetes/pki": "/etc/kubernetes/pki"}, "/etc/kubernetes/pki/enc/c.yaml", id="same"),
        pytest.param({"/etc": "/a", "/etc/kubernetes/pki/enc": "/b/"}, "/b/c.yaml", id="nearest"),
        pytest.param({"/etc/kubernetes/pki/enc/c.yaml": "/srv/enc.yaml"}, "/srv/enc.yaml", id="one-file"),
        pytest.param({"/": "/host"}, "/host/etc/kubernetes/pki/enc/c.yaml", id="root"),
        pytest.param({"/etc/kubernetes/pki/en": "/no"}, None, id="not-a-prefix-of-a-name"),
        pytest.param({}, None, id="inside-the-image"),
    ],
)
def test_paths_are_mapped_through_the_nearest_mount(mounts: dict[str, str], host: str | None) -> None:
    manifest = pod("kube-apiserver", "--encryption-provider-config=/etc/kubernetes/pki/enc/c.yaml", mounts=mounts)
    assert apiserver_files(manifest, "m") == ((host,) if host else ())


def test_a_volume_that_is_not_of_the_host_hides_the_one_beneath() -> None:
    document = yaml.safe_load(pod("kube-apiserver", "--client-ca-file=/etc/x/ca", mounts={"/etc": "/etc"}))
    document["spec"]["containers"][0]["volumeMounts"].append({"name": "memory", "mountPath": "/etc/x"})
    document["spec"]["volumes"].append({"name": "memory", "emptyDir": {}})
    assert apiserver_files(yaml.safe_dump(document).encode(), "m") == ()


def test_sub_paths_are_followed() -> None:
    document = yaml.safe_load(pod("kube-apiserver", "--client-ca-file=/x/ca", mounts={"/x": "/etc"}))
    document["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = "kubernetes/pki"
    assert apiserver_files(yaml.safe_dump(document).encode(), "m") == ("/etc/kubernetes/pki/ca",)


def test_repeated_flags_and_sni_pairs_all_count_and_logs_do_not() -> None:
    manifest = pod(
        "kube-apiserver",
        "--service-account-key-file=/k/old.pub",
        "--service-account-key-file=/k/new.pub",
        "--tls-sni-cert-key=/k/sni.crt,/k/sni.key:*.example.net,example.net",
        "--audit-log-path=/k/audit.log",
        "--etcd-servers=https://127.0.0.1:2379",
        "--client-ca-file=/k/old.pub",
        mounts={"/k": "/k"},
    )
    assert set(apiserver_files(manifest, "m")) == {"/k/old.pub", "/k/new.pub", "/k/sni.crt", "/k/sni.key"}


ETCD_COMMAND = (
    "etcd",
    "--data-dir=/var/lib/etcd",
    "--initial-advertise-peer-urls=https://10.0.0.1:2380",
    "--initial-cluster=cp-0=https://10.0.0.1:2380",
    "--name=cp-0",
)


def test_etcd_says_how_it_was_started() -> None:
    manifest = pod(*ETCD_COMMAND, mounts={"/var/lib/etcd": "/opt/data/var/lib/etcd"})
    assert etcd_static_pod(manifest, "etcd.yaml") == EtcdStaticPod(
        name="cp-0",
        image="registry.example.net/image:1",
        data_dir="/opt/data/var/lib/etcd",
        wal_dir=None,
        initial_cluster="cp-0=https://10.0.0.1:2380",
        initial_advertise_peer_urls="https://10.0.0.1:2380",
    )


def test_etcd_flags_win_over_its_variables_and_its_defaults_stand_for_the_rest() -> None:
    env = [
        {"name": "ETCD_NAME", "value": "from-env"},
        {"name": "ETCD_WAL_DIR", "value": "/data/wal"},
        {"name": "ETCD_DATA_DIR", "value": "/other"},
        {"name": "ETCD_FROM", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
    ]
    found = etcd_static_pod(pod("etcd", "-data-dir", "/data/etcd", mounts={"/data": "/mnt"}, env=env), "etcd.yaml")
    assert (found.name, found.data_dir, found.wal_dir) == ("from-env", "/mnt/etcd", "/mnt/wal")
    assert found.initial_cluster == "from-env=http://localhost:2380"


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        pytest.param(b"", "no manifest", id="empty"),
        pytest.param(b"kind: Deployment\nspec: {}", "no manifest", id="other-kind"),
        pytest.param(b"kind: Pod\nspec: [", "not valid YAML", id="broken"),
        pytest.param(b"kind: Pod\nspec: {containers: [null, {}]}", "--data-dir", id="no-command"),
        pytest.param(pod("etcd", "--config-file=/etcd.yaml"), "control_plane.data_dir", id="config-file"),
        pytest.param(pod(*ETCD_COMMAND), "on no hostPath volume", id="not-on-the-host"),
        pytest.param(pod("etcd", "--data-dir=data", mounts={"/": "/"}), "on no hostPath", id="relative"),
    ],
)
def test_a_manifest_that_does_not_tell_is_refused_by_name(manifest: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        etcd_static_pod(manifest, "node-1:etcd.yaml")
    assert "node-1:etcd.yaml" in str(caught.value)
