"""Static pod manifests: flags in every spelling, container paths mapped to the host."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from etcdkeep.control_plane.pod_spec import Downward
from etcdkeep.control_plane.static_pod import (
    EtcdStaticPod,
    KnownMember,
    apiserver_files,
    apiserver_static_pod,
    etcd_config_file,
    etcd_static_pod,
)
from etcdkeep.errors import ConfigError


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
        pytest.param(b"", "not a manifest", id="empty"),
        pytest.param(b"kind: Deployment\nspec: {}", "not a manifest", id="other-kind"),
        pytest.param(b"kind: Pod\nspec: [", "not valid YAML", id="broken"),
        pytest.param(b"kind: Pod\nspec: {containers: [null, {}]}", "--data-dir", id="no-command"),
        pytest.param(pod("etcd", "--config-file=/etcd.yaml"), "control_plane.data_dir", id="config-file"),
        pytest.param(pod(*ETCD_COMMAND), "not on a hostPath volume", id="not-on-the-host"),
        pytest.param(pod("etcd", "--data-dir=data", mounts={"/": "/"}), "not on a hostPath", id="relative"),
    ],
)
def test_a_manifest_that_does_not_tell_is_refused_by_name(manifest: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        etcd_static_pod(manifest, "node-1:etcd.yaml")
    assert "node-1:etcd.yaml" in str(caught.value)


HOST = Downward("cp-1", ("10.0.0.11",))
KNOWN = KnownMember("etcd", HOST, "cp-1", "https://10.0.0.11:2380", "/var/lib/etcd")
DATA = {"/var/lib/etcd": "/var/lib/etcd"}
DOLLARS = (
    "etcd",
    "--name=$(NODE_NAME)",
    "--data-dir=$(ROOT)/etcd",
    "--initial-cluster=$(NODE_NAME)=https://$(POD_IP):2380",
    "--initial-advertise-peer-urls=$(PEER)",
    "--listen-client-urls=https://$(POD_IP):2379,https://127.0.0.1:2379",
)


def field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


ENV = [
    field("NODE_NAME", "spec.nodeName"),
    field("POD_IP", "status.podIP"),
    {"name": "ROOT", "value": "/var/lib"},
    {"name": "PEER", "value": "https://$(POD_IP):2380"},
]


def test_dollar_variables_are_filled_in_as_the_kubelet_does() -> None:
    found = etcd_static_pod(pod(*DOLLARS, mounts=DATA, env=ENV), "etcd.yaml", KNOWN)
    assert (found.name, found.data_dir) == ("cp-1", "/var/lib/etcd")
    assert found.initial_cluster == "cp-1=https://10.0.0.11:2380"
    assert found.initial_advertise_peer_urls == "https://10.0.0.11:2380"
    assert found.client_url == "https://10.0.0.11:2379"
    assert found.notes == ()


@pytest.mark.parametrize("path", ["metadata.uid", "status.podIP"])
def test_what_the_kubelet_alone_knows_is_taken_from_the_member_list_and_told(path: str) -> None:
    env = [*ENV[2:], field("NODE_NAME", path), field("POD_IP", path)]
    env.insert(0, env.pop())
    known = KnownMember("etcd", Downward(), "cp-1", "https://10.0.0.11:2380", "/var/lib/etcd")
    found = etcd_static_pod(pod(*DOLLARS, mounts=DATA, env=env), "etcd.yaml", known)
    assert (found.name, found.initial_advertise_peer_urls) == ("cp-1", "https://10.0.0.11:2380")
    assert [note for note in found.notes if "member list: cp-1" in note]
    with pytest.raises(ConfigError, match="etcd's name cannot be determined: --name holds"):
        etcd_static_pod(pod(*DOLLARS, mounts=DATA, env=env), "etcd.yaml")


def with_side_car(**init: Any) -> bytes:
    document = yaml.safe_load(pod(*ETCD_COMMAND, mounts=DATA, name="etcd"))
    side = {"name": "backup", "image": "busybox", "command": ["sync", "--data-dir=/backup", "--name=side"]}
    document["spec"]["containers"].insert(0, side)
    document["spec"]["initContainers"] = [{"name": "etcd", **side, **init}]
    return yaml.safe_dump(document).encode()


@pytest.mark.parametrize("container", ["etcd", "another"], ids=["by-name", "by-program"])
def test_etcd_is_read_from_its_own_container(container: str) -> None:
    found = etcd_static_pod(with_side_car(), "etcd.yaml", KnownMember(container))
    assert (found.name, found.data_dir) == ("cp-0", "/var/lib/etcd")


def test_a_pod_without_etcd_names_its_containers() -> None:
    with pytest.raises(ConfigError, match=r"its containers are backup, expected 'etcd'; set control_plane\.container"):
        etcd_static_pod(pod("sync", name="backup"), "etcd.yaml", KNOWN)


FILE = b"""
name: from-file
data-dir: /var/lib/etcd/data
initial-advertise-peer-urls: https://10.0.0.11:2380, https://10.1.0.11:2380
listen-client-urls: https://0.0.0.0:2379
"""


@pytest.mark.parametrize(
    ("command", "env"),
    [
        pytest.param(["etcd", "--config-file=/etc/etcd/etcd.yml"], [], id="flag"),
        pytest.param(["etcd", "--config-file", "/etc/etcd/etcd.yml", "--name=ignored"], [], id="beside-flags"),
        pytest.param(["etcd", "--name=ignored"], [{"name": "ETCD_CONFIG_FILE", "value": "/etc/etcd/etcd.yml"}], id="variable"),
    ],
)  # fmt: skip
def test_with_a_configuration_file_nothing_else_counts(command: list[str], env: list[dict[str, str]]) -> None:
    env = [*env, {"name": "ETCD_NAME", "value": "ignored"}]
    manifest = pod(*command, mounts={**DATA, "/etc/etcd": "/srv/etcd"}, env=env)
    assert etcd_config_file(manifest, "etcd.yaml", KNOWN) == "/srv/etcd/etcd.yml"
    found = etcd_static_pod(manifest, "etcd.yaml", KNOWN, FILE)
    assert (found.name, found.data_dir) == ("from-file", "/var/lib/etcd/data")
    assert found.initial_advertise_peer_urls == "https://10.0.0.11:2380,https://10.1.0.11:2380"
    assert found.initial_cluster == "from-file=https://10.0.0.11:2380,from-file=https://10.1.0.11:2380"
    assert found.client_url == "https://127.0.0.1:2379"


def test_a_configuration_file_that_cannot_be_read_leaves_what_is_known() -> None:
    manifest = pod("etcd", "--config-file=/etc/etcd/etcd.yml", mounts=DATA)
    assert etcd_config_file(manifest, "etcd.yaml", KNOWN) is None
    found = etcd_static_pod(manifest, "etcd.yaml", KNOWN)
    assert (found.name, found.data_dir, found.initial_advertise_peer_urls) == (
        "cp-1",
        "/var/lib/etcd",
        "https://10.0.0.11:2380",
    )
    assert len(found.notes) == 3
    assert all("--config-file=/etc/etcd/etcd.yml cannot be read on the node" in note for note in found.notes)


@pytest.mark.parametrize("config", [b"- a list", b"", b"name: ["])
def test_a_configuration_file_that_is_none_is_told(config: bytes) -> None:
    manifest = pod("etcd", "--config-file=/etc/etcd/etcd.yml", mounts=DATA)
    with pytest.raises(ConfigError, match=r"etcd\.yml"):
        etcd_static_pod(manifest, "etcd.yaml", KNOWN, config)


@pytest.mark.parametrize(
    ("shell", "script"),
    [
        pytest.param(["/bin/sh", "-ec"], "exec etcd --name=cp-1 {rest} 2>&1 | tee /var/log/etcd.log", id="pipe"),
        pytest.param(["sh", "-e", "-c"], "set -x; NAME=cp-1; etcd --name $NAME {rest} &\nwait", id="assigned"),
        pytest.param(
            ["bash", "-c"], "etcdctl --name=no version && \\\n exec /usr/bin/etcd --name='cp-1' {rest}", id="two"
        ),
        pytest.param(["busybox", "sh", "-c"], "ETCD_NAME=cp-1 exec etcd {rest} > /log", id="variable"),
        pytest.param(["env", "A=b", "sh", "-c"], 'exec etcd --name="${{NODE}}" {rest}', id="env"),
    ],
)
def test_a_plain_shell_string_is_read(shell: list[str], script: str) -> None:
    rest = "--data-dir=/var/lib/etcd --initial-advertise-peer-urls=https://10.0.0.11:2380"
    manifest = pod(*shell, script.format(rest=rest), mounts=DATA, env=[field("NODE", "spec.nodeName")])
    found = etcd_static_pod(manifest, "etcd.yaml", KnownMember("etcd", HOST))
    assert (found.name, found.data_dir, found.initial_advertise_peer_urls, found.notes) == (
        "cp-1",
        "/var/lib/etcd",
        "https://10.0.0.11:2380",
        (),
    )


def test_a_shell_hands_its_arguments_on() -> None:
    manifest = pod("sh", "-c", 'exec etcd "$@"', "--", *ETCD_COMMAND[1:], mounts=DATA)
    assert etcd_static_pod(manifest, "etcd.yaml").name == "cp-0"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param("exec etcd --name=$(hostname) --data-dir=/var/lib/etcd", ["name"], id="command-output"),
        pytest.param("etcd --name=a --data-dir=/a & etcd --name=b --data-dir=/b", ["data", "name", "peer"], id="two"),
        pytest.param("exec /usr/local/bin/start-etcd", ["data", "name", "peer"], id="a-script-of-the-image"),
        pytest.param("exec etcd --name='cp-1", ["data", "name", "peer"], id="open-quote"),
    ],
)
def test_a_shell_string_that_is_not_plain_is_told_and_the_rest_is_known(script: str, told: list[str]) -> None:
    manifest = pod("sh", "-c", script, mounts=DATA)
    found = etcd_static_pod(manifest, "etcd.yaml", KNOWN)
    assert (found.name, found.data_dir) == ("cp-1", "/var/lib/etcd")
    assert len(found.notes) == len(told)
    assert all(f"etcd's {word}" in note for word, note in zip(told, found.notes, strict=True))


def test_where_etcd_is_asked_is_taken_from_the_configuration_when_nothing_tells() -> None:
    known = KnownMember("etcd", HOST, "cp-1", "https://10.0.0.11:2380", "/var/lib/etcd", "https://127.0.0.1:4001")
    assert etcd_static_pod(pod("sh", "-c", "start", mounts=DATA), "m", known).client_url == "https://127.0.0.1:4001"


def test_a_configured_data_directory_must_be_mounted() -> None:
    manifest = pod("sh", "-c", "exec start", mounts={"/var/lib/etcd": "/srv/etcd"})
    with pytest.raises(
        ConfigError, match=r"/var/lib/etcd \(control_plane.data_dir\) is not on any of its hostPath volumes"
    ):
        etcd_static_pod(manifest, "etcd.yaml", KNOWN)


def test_the_api_server_is_read_from_its_own_container_with_its_variables() -> None:
    words = ("kube-apiserver", "--etcd-servers=https://127.0.0.1:2379", "--advertise-address=$(HOST_IP)")
    document = yaml.safe_load(
        pod(*words, "--secure_port=7443", name="kube-apiserver", env=[field("HOST_IP", "status.hostIP")])
    )
    document["spec"]["containers"].insert(0, {"name": "vpn", "command": ["vpn", "--etcd-servers=x", "--secure-port=1"]})
    manifest = yaml.safe_dump(document).encode()
    assert apiserver_static_pod(manifest, "m", HOST).url == "https://10.0.0.11:7443"
    assert apiserver_static_pod(manifest, "m").url == "https://127.0.0.1:7443"


DATA = {"/var/lib/etcd": "/var/lib/etcd"}


def test_a_setting_that_is_given_behind_our_back_is_the_member_lists() -> None:
    manifest = pod(
        "/usr/bin/env",
        "ETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.0.0.1:2380",
        "etcd",
        "--data-dir=/var/lib/etcd",
        mounts=DATA,
    )
    found = etcd_static_pod(manifest, "etcd.yaml", KnownMember(name="cp-0", peer_urls="https://10.0.0.1:2380"))
    assert (found.name, found.initial_advertise_peer_urls) == ("cp-0", "https://10.0.0.1:2380")


@pytest.mark.parametrize(("given", "kept"), [("/var/lib/etcd/member/wal", None), ("/wal", "/wal")])
def test_a_log_where_etcd_keeps_it_anyway_is_no_folder_of_its_own(given: str, kept: str | None) -> None:
    manifest = pod("etcd", "--data-dir=/var/lib/etcd", f"--wal-dir={given}", mounts=DATA)
    assert etcd_static_pod(manifest, "etcd.yaml", KnownMember()).wal_dir == kept
