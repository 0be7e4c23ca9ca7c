"""What static pods, kubelet and configuration files name."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.control_plane.named_files import (
    LIMIT_BYTES,
    NamedFile,
    files_named_in,
    kubelet_files,
    look_argv,
    manifest_files,
    missing_notes,
    read_look,
)
from etcdkeep.control_plane.node_archive import SUDO
from etcdkeep.control_plane.pod_spec import Downward
from tests.unit.control_plane.test_static_pod import pod

if TYPE_CHECKING:
    from pathlib import Path

FILE = NamedFile("/etc/c.yaml", "m", needed=True, inner="/etc/c.yaml")


def named(manifest: bytes) -> dict[str, bool]:
    return {file.path: file.needed for file in manifest_files({"m.yaml": manifest}, Downward("cp-1"))}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(["--kubeconfig=/k/a.conf"], {"/h/a.conf": True}, id="kubeconfig"),
        pytest.param(["--audit-policy-file", "/k/p.yaml"], {"/h/p.yaml": True}, id="two-items"),
        pytest.param(["--egress-selector-config-file=/k/$(NODE)/e"], {"/h/cp-1/e": True}, id="variable"),
        pytest.param(
            ["--tls-sni-cert-key=/k/a.crt,/k/a.key:*.example.net"], {"/h/a.crt": True, "/h/a.key": True}, id="pair"
        ),
        pytest.param(["--audit-log-path=/k/audit.log", "--log-dir=/k/log", "--cert-dir=/k"], {}, id="outputs"),
        pytest.param(["--kubelet-socket=/k/s", "--service-cluster-ip-range=10.0.0.0/8"], {}, id="no-files"),
        pytest.param(["--config=/inside/image.yaml"], {}, id="inside-the-image"),
        pytest.param(["--something=/k/x"], {"/h/x": False}, id="unknown-flag"),
    ],
)
def test_flags_name_files(words: list[str], expected: dict[str, bool]) -> None:
    env = [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    assert named(pod("program", *words, mounts={"/k": "/h"}, env=env)) == expected


def test_a_shells_string_names_files_too() -> None:
    assert named(pod("sh", "-c", "exec kms --config=/k/c.yaml > /k/log", mounts={"/k": "/h"})) == {"/h/c.yaml": True}


def test_a_volume_that_is_one_file_is_named() -> None:
    manifest = pod("p").replace(
        b"volumes: []", b"volumes: [{name: v, hostPath: {path: /etc/x.conf, type: FileOrCreate}}]"
    )
    assert named(manifest) == {"/etc/x.conf": False}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"users: [{user: {client-certificate: pki/a.crt, client-key: /k/a.key}}]", ["/etc/pki/a.crt", "/k/a.key"], id="kubeconfig"),
        pytest.param(b"plugins: [{name: x, path: sub/x.yaml}]", ["/etc/sub/x.yaml"], id="admission"),
        pytest.param(b'{"authentication": {"x509": {"clientCAFile": "/k/ca.crt"}}, "rotate": true}', ["/k/ca.crt"], id="kubelet"),
        pytest.param(b"client-transport-security: {cert-file: /k/s.crt, trusted-ca-file: ca.crt}\ndata-dir: /d\nlog-outputs: [/l]", ["/etc/ca.crt", "/k/s.crt"], id="etcd"),
        pytest.param(b'KUBELET_KUBEADM_ARGS="--config=/k/k.yaml --root-dir=/r --tls-cert-file /k/t.crt"', ["/k/k.yaml", "/k/t.crt"], id="flags"),
        pytest.param(b"users: [{user: {exec: {command: /usr/bin/login, args: [a]}}}]", [], id="program"),
        pytest.param(b"endpoint: unix:///run/kms.sock\nsocketPath: /run/x.sock\nother: /proc/1/x", [], id="sockets"),
        pytest.param(b"-----BEGIN PRIVATE KEY-----\npath: x", [], id="key"),
        pytest.param(b"\0\1binary", [], id="binary"),
        pytest.param(b"a: [", [], id="broken"),
        pytest.param(b"", [], id="empty"),
    ],
)  # fmt: skip
def test_configuration_names_files(data: bytes, expected: list[str]) -> None:
    assert sorted(file.path for file in files_named_in(FILE, data)) == expected


def test_what_a_container_reads_is_named_as_it_sees_it() -> None:
    (config,) = manifest_files({"m": pod("p", "--config=/k/c.yaml", mounts={"/k": "/h", "/pki": "/srv"})}, Downward())
    data = b"{a: {caFile: /pki/ca.crt}, b: {keyFile: /nowhere/x.key}, path: other.yaml}"
    assert {file.path for file in files_named_in(config, data)} == {"/srv/ca.crt", "/h/other.yaml"}


@given(st.binary(max_size=200))
def test_no_file_makes_it_fail(data: bytes) -> None:
    files_named_in(FILE, data)
    manifest_files({"x": data}, Downward())


@pytest.mark.parametrize("program", ["find", "busybox"])
def test_plain_files_are_told_from_larger_ones_and_from_what_is_none(tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is missing: install Debian's package {program}")
    (tmp_path / "small").write_text("x")
    (tmp_path / "full").write_bytes(b"x" * LIMIT_BYTES)
    (tmp_path / "large").write_bytes(b"x" * (LIMIT_BYTES + 1))
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("small")
    names = ("small", "full", "large", "folder", "link", "absent")
    files = [NamedFile(f"{tmp_path}/{name}", "m (--f)", needed=True, inner="") for name in names]
    argv = list(look_argv(files)[len(SUDO) :])
    if program == "busybox":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/find").symlink_to(str(shutil.which("busybox")))
        argv = [f"{tmp_path}/bin/find" if word == "find" else word for word in argv]
    looked = read_look(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert {path.rpartition("/")[2] for path in looked.plain} == {"small", "full", "link"}
    assert {path.rpartition("/")[2] for path in looked.other} == {"large"}
    assert looked.folders == {f"{tmp_path}/folder"}
    assert [note.split(",")[0].split(" does not")[0] for note in missing_notes(files, looked)] == [
        f"{tmp_path}/large",
        f"{tmp_path}/absent",
    ]


def test_the_kubelets_files_may_be_missing() -> None:
    assert missing_notes(kubelet_files(["/var/lib/kubelet/config.yaml"]), read_look(b"")) == []
