"""What travels from a node: paths, the two commands run for real with GNU programs and BusyBox, and their failures."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from etcdkeep.config.profiles import PROFILES, ControlPlane
from etcdkeep.control_plane.archive import read_archive, read_files
from etcdkeep.control_plane.node_archive import (
    SUDO,
    NodeListing,
    NodePath,
    explain_tar_failure,
    list_node_argv,
    node_archive_paths,
    read_file_argv,
    read_listing,
    says_absent,
    tar_argv,
)
from etcdkeep.errors import AccessDenied, CommandFailed, NotFound, PermanentError, TransientError
from tests.unit.control_plane.test_static_pod import pod

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIMIT = 2**20
APISERVER = pod(
    "kube-apiserver",
    "--client-ca-file=/etc/kubernetes/pki/ca.crt",
    "--encryption-provider-config=/etc/kubernetes/enc/config.yaml",
    "--oidc-ca-file=/usr/share/ca.crt",
    mounts={"/etc/kubernetes/pki": "/etc/kubernetes/pki", "/etc/kubernetes/enc": "/srv/enc"},
)


def names(paths: Sequence[NodePath]) -> dict[str, str]:
    return {path.path: path.name for path in paths}


def test_the_usual_node_gives_pki_manifests_and_admin_conf() -> None:
    paths = node_archive_paths(ControlPlane(), None)
    assert [(path.path, path.name, path.required) for path in paths] == [
        ("/etc/kubernetes/pki", "pki", True),
        ("/etc/kubernetes/manifests", "manifests", True),
        ("/etc/kubernetes/admin.conf", "admin.conf", False),
    ]


def test_files_outside_the_pki_travel_under_their_full_path() -> None:
    control_plane = ControlPlane.model_validate(PROFILES["gke-admin"])
    paths = node_archive_paths(control_plane, APISERVER, ["/etc/kubernetes/pki/must-be-here", "/etc/audit/"])
    assert names(paths[3:]) == {
        "/etc/kubernetes/pki/must-be-here": "etc/kubernetes/pki/must-be-here",
        "/etc/audit": "etc/audit",
        "/opt/data/gke-k8s-kms-plugin/generatedkeys": "opt/data/gke-k8s-kms-plugin/generatedkeys",
        "/srv/enc/config.yaml": "srv/enc/config.yaml",
    }
    assert [path.path for path in paths[3:] if path.required] == ["/etc/kubernetes/pki/must-be-here", "/etc/audit"]


class Node:
    """A folder that plays a node's file system, and the programs that read it."""

    def __init__(self, root: Path, programs: Path | None) -> None:
        self.root = root
        self._programs = programs

    @property
    def control_plane(self) -> ControlPlane:
        etc = self.root / "etc/kubernetes"
        return ControlPlane(
            pki_dir=f"{etc}/pki",
            manifests_dir=f"{etc}/manifests",
            admin_conf=f"{etc}/admin.conf",
            optional_paths=(f"{self.root}/opt/kms/keys", f"{self.root}/opt/absent"),
        )

    def file(self, path: str, data: str = "", mode: int = 0o600) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(data or path)
        file.chmod(mode)
        return file

    def run(self, argv: Sequence[str]) -> bytes:
        assert tuple(argv[: len(SUDO)]) == SUDO
        env = {**os.environ, "PATH": str(self._programs)} if self._programs else dict(os.environ)
        program = shutil.which(argv[len(SUDO)], path=env["PATH"])
        assert program is not None
        done = subprocess.run([program, *argv[len(SUDO) + 1 :]], capture_output=True, check=False, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def archive(self, paths: Sequence[NodePath]) -> tuple[bytes, NodeListing]:
        listing = read_listing(paths, self.run(list_node_argv(paths)), "node n1")
        return self.run(tar_argv(paths, listing)), listing


@pytest.fixture(params=["gnu", "busybox"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    programs = None
    if request.param == "busybox":
        busybox = shutil.which("busybox")
        if busybox is None:
            pytest.skip("busybox is missing: install Debian's package busybox")
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in ("find", "tar", "cat"):
            (programs / name).symlink_to(busybox)
    node = Node(tmp_path / "node", programs)
    node.file("etc/kubernetes/manifests/etcd.yaml", mode=0o640)
    node.file("etc/kubernetes/admin.conf")
    return node


def test_one_command_brings_everything_that_is_there(node: Node) -> None:
    node.file("opt/data/etc/kubernetes/pki/ca.crt", mode=0o644)
    node.file("opt/data/etc/kubernetes/pki/etcd/ca.key")
    (node.root / "etc/kubernetes/pki").symlink_to("../../opt/data/etc/kubernetes/pki")
    node.file("opt/kms/keys/kek 'one'\n")
    os.mknod(node.root / "opt/kms/keys/kms.sock", stat.S_IFSOCK | 0o600)
    (node.root / "opt/kms/keys/dangling").symlink_to("nowhere")
    enc = node.file("srv/enc/config.yaml")
    (node.root / "etc/kubernetes/enc").symlink_to(enc.parent)
    manifest = pod("kube-apiserver", "--encryption-provider-config=/enc/config.yaml", mounts={
        "/enc": f"{node.root}/etc/kubernetes/enc"})  # fmt: skip
    before = snapshot_of(node.root)

    tar, listing = node.archive(node_archive_paths(node.control_plane, manifest))

    elsewhere = str(node.root).lstrip("/")
    files = {file.path: file for file in read_files(io.BytesIO(tar), LIMIT)}
    assert {path: file.data.decode() for path, file in files.items()} == {
        "pki/ca.crt": "opt/data/etc/kubernetes/pki/ca.crt",
        "pki/etcd/ca.key": "opt/data/etc/kubernetes/pki/etcd/ca.key",
        "manifests/etcd.yaml": "etc/kubernetes/manifests/etcd.yaml",
        "admin.conf": "etc/kubernetes/admin.conf",
        f"{elsewhere}/opt/kms/keys/kek 'one'\n": "opt/kms/keys/kek 'one'\n",
        f"{elsewhere}/etc/kubernetes/enc/config.yaml": "srv/enc/config.yaml",
    }
    assert files["pki/ca.crt"].mode == 0o644
    assert files["pki/etcd/ca.key"].mode == 0o600
    assert set(files) < {member.name for member in listing.members}
    assert listing.missing == (f"{node.root}/opt/absent",)
    assert snapshot_of(node.root) == before


def snapshot_of(root: Path) -> dict[str, tuple[int, int, int]]:
    stats = {str(path): path.lstat() for path in root.rglob("*")}
    return {path: (found.st_mode, found.st_size, found.st_mtime_ns) for path, found in stats.items()}


def test_a_link_inside_the_pki_brings_the_content(node: Node) -> None:
    node.file("etc/kubernetes/pki/ca.crt", "certificate")
    (node.root / "etc/kubernetes/pki/alias.crt").symlink_to("ca.crt")
    (node.root / "etc/kubernetes/pki/far.crt").symlink_to(node.file("srv/far.crt", "far"))
    tar, _ = node.archive(node_archive_paths(node.control_plane, None))
    files = read_archive(io.BytesIO(tar), LIMIT)
    assert files["pki/ca.crt"] == files["pki/alias.crt"] == b"certificate"
    assert files["pki/far.crt"] == b"far"


def test_a_node_without_its_pki_is_named(node: Node) -> None:
    paths = node_archive_paths(node.control_plane, None)
    with pytest.raises(NotFound, match=f"node n1 has no {node.root}/etc/kubernetes/pki; correct"):
        node.archive(paths)


def test_one_file_is_read_by_cat(node: Node) -> None:
    assert node.run(read_file_argv(f"{node.root}/etc/kubernetes/admin.conf")) == b"etc/kubernetes/admin.conf"


@pytest.mark.parametrize("certificates", ["var/lib/minikube/certs", "srv/a.b,c[d]*$^/k8s", "etc/kubernetes/ssl"])
def test_other_folder_names_still_give_the_usual_names(tmp_path: Path, certificates: str) -> None:
    node = Node(tmp_path, None)
    node.file(f"{certificates}/ca.crt", "certificate")
    node.file(f"{certificates}2/ca.crt", "not it")
    node.file("etc/kubelet.d/etcd.yaml", "manifest")
    node.file("root/.kube/config", "kubeconfig")
    control_plane = ControlPlane(
        pki_dir=f"{tmp_path}/{certificates}/",
        manifests_dir=f"{tmp_path}/etc/kubelet.d",
        admin_conf=f"{tmp_path}/root/.kube/config",
    )
    tar, _ = node.archive(node_archive_paths(control_plane, None, [f"{tmp_path}/{certificates}2"]))
    assert read_archive(io.BytesIO(tar), LIMIT) == {
        "pki/ca.crt": b"certificate",
        "manifests/etcd.yaml": b"manifest",
        "admin.conf": b"kubeconfig",
        f"{tmp_path}/{certificates}2/ca.crt".lstrip("/"): b"not it",
    }


def test_the_commands_are_argv_for_the_usual_layout() -> None:
    paths = node_archive_paths(ControlPlane(optional_paths=("/opt/keys",)), None)
    assert list_node_argv(paths)[:7] == ("sudo", "-n", "find", "/", "-prune", "-exec", "find")
    output = b"/etc/kubernetes/pki\0/etc/kubernetes/pki/ca.crt\0/etc/kubernetes/manifests\0/opt/keys\0/opt/keys/k\0"
    assert tar_argv(paths, read_listing(paths, output, "n")) == (
        "sudo", "-n", "tar", "-h", "--no-recursion", "--numeric-owner", "-C", "/etc/kubernetes", "-cf", "-",
        "pki", "pki/ca.crt", "manifests", "/opt/keys", "/opt/keys/k",
    )  # fmt: skip


def test_a_name_that_is_no_text_is_reported_as_left_out() -> None:
    paths = node_archive_paths(ControlPlane(admin_conf="/etc/kubernetes/manifests/a"), None)
    output = b"/etc/kubernetes/pki\0/etc/kubernetes/pki/\xff\0/etc/kubernetes/manifests\0/etc/kubernetes/manifests/a\0"
    listing = read_listing(paths, output, "n")
    assert listing.missing == (r"/etc/kubernetes/pki/\xff",)
    assert [member.name for member in listing.members] == ["pki", "manifests", "manifests/a"]


def test_more_files_than_a_command_line_holds_are_refused() -> None:
    paths = (NodePath("/etc/kubernetes/pki", "pki"),)
    many = tuple(NodePath(f"/etc/kubernetes/pki/{number:09}", f"pki/{number:09}") for number in range(9000))
    with pytest.raises(PermanentError, match="extra_paths"):
        tar_argv(paths, NodeListing(many, ()))


CHANGED = "tar: Removing leading `/' from member names\ntar: pki/ca.crt: file changed as we read it"
GONE = "tar: pki/x: Cannot stat: No such file or directory\ntar: Exiting with failure status due to previous errors"


@pytest.mark.parametrize(
    ("exit_code", "stderr", "transient"),
    [
        pytest.param(1, CHANGED, True, id="changed"),
        pytest.param(2, GONE, True, id="went-away"),
        pytest.param(1, "tar: pki/x: No such file or directory\ntar: error exit delayed", True, id="busybox"),
        pytest.param(1, "sudo: a password is required", False, id="sudo"),
        pytest.param(2, "tar: pki/x: Cannot open: Permission denied", False, id="denied"),
        pytest.param(2, "tar: invalid option -- 'q'", False, id="usage"),
        pytest.param(127, "sudo: tar: command not found", False, id="no-tar"),
    ],
)
def test_only_a_change_while_reading_is_worth_a_retry(exit_code: int, stderr: str, transient: bool) -> None:
    failure = CommandFailed("tar failed", exit_code=exit_code, stderr_tail=stderr)
    error = explain_tar_failure(failure, "node n1")
    if transient:
        assert isinstance(error, TransientError)
        assert "node n1" in str(error)
        assert "pki/" in str(error)
    else:
        assert error is failure


def test_gnu_tar_says_what_we_look_for_when_a_file_vanishes(tmp_path: Path) -> None:
    done = subprocess.run(["tar", "-C", tmp_path, "-cf", "-", "gone"], capture_output=True, check=False, text=True)
    failure = CommandFailed("tar failed", exit_code=done.returncode, stderr_tail=done.stderr)
    assert isinstance(explain_tar_failure(failure, "n"), TransientError)


UNREADABLE = "find: ‘/etc/kubernetes/pki/private’: Permission denied"
ABSENT = "find: '/opt/audit': No such file or directory"


def test_what_root_may_not_read_is_not_called_absent() -> None:
    paths = (NodePath("/etc/kubernetes/pki", "pki", required=True),)
    with pytest.raises(AccessDenied, match=r"pki/private.*Permission denied"):
        read_listing(paths, b"/etc/kubernetes/pki\0", "node n1", f"{ABSENT}\n{UNREADABLE}\n")
    assert read_listing(paths, b"/etc/kubernetes/pki\0", "node n1", ABSENT).missing == ()


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        pytest.param(1, "cat: /f: No such file or directory", True, id="absent"),
        pytest.param(1, "cat: /a/f: Not a directory", True, id="no-folder"),
        pytest.param(1, "cat: /f: Permission denied", False, id="denied"),
        pytest.param(1, "", False, id="silent"),
        pytest.param(127, "sh: cat: No such file or directory", False, id="no-program"),
    ],
)
def test_only_words_show_that_a_file_does_not_exist(code: int, said: str, expected: bool) -> None:
    assert says_absent(CommandFailed("cat", exit_code=code, stderr_tail=said)) is expected
