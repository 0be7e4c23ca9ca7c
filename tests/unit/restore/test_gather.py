"""Asking a node: what it printed becomes facts, and what fails becomes a sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import yaml

from etcdkeep.errors import AccessDenied, CommandFailed, CommandMissing, NotFound
from etcdkeep.ports import CommandResult, StreamLimits
from etcdkeep.restore.found.tools import Tool
from etcdkeep.restore.probe.nodes import gather_node, restore_nodes
from tests.unit.restore.builders import make_cluster, make_manifest
from tests.unit.restore.test_facts import DF, STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USAGE = "--data-dir --initial-cluster-token --bump-revision --mark-compacted"


def pod(name: str, flags: Sequence[str], image: str) -> str:
    mount = {"name": "d", "mountPath": "/var/lib/etcd"}
    container = {"name": name, "image": image, "command": [name, *flags], "volumeMounts": [mount]}
    volume = {"name": "d", "hostPath": {"path": "/opt/data/var/lib/etcd"}}
    return yaml.safe_dump({"kind": "Pod", "spec": {"containers": [container], "volumes": [volume]}})


ETCD = pod(
    "etcd",
    ["--data-dir=/var/lib/etcd", "--name=cp-0", "--initial-advertise-peer-urls=https://10.0.0.1:2380"],
    "etcd:3.5.16",
)
APISERVER = pod(
    "kube-apiserver", ["--etcd-servers=https://127.0.0.1:2379", "--advertise-address=10.0.0.1"], "apiserver:v1.36.2"
)

ANSWERS = {
    "cat /etc/kubernetes/manifests/etcd.yaml": ETCD,
    "cat /etc/kubernetes/manifests/kube-apiserver.yaml": APISERVER,
    "cat /proc/self/mountinfo": "1 2 254:0 / /opt/data/var/lib/etcd rw - ext4 /dev/vda rw\n3 4 0:1 / /proc rw - proc proc rw\n",
    "cat /proc/meminfo": "MemAvailable: 1024 kB\n",
    "df -P -k /opt/data/var/lib/etcd": DF,
    "readlink -f /opt/data/var/lib/etcd": "/opt/data/var/lib/etcd\n",
    "readlink -f /etc/kubernetes/pki": "/opt/data/etc/kubernetes/pki\n",
    "stat -c %u:%g %a /opt/data/var/lib/etcd/member": "2001:2001 700\n",
    "stat -c %u:%g %a /opt/data/var/lib/etcd": "2001:2001 700\n",
    "ls /etc/kubernetes/manifests": "etcd.yaml\nkube-apiserver.yaml\n",
    "systemctl is-active kubelet": "active\n",
    "env ETCDCTL_API=3 etcdutl snapshot restore --help": USAGE,
    "env ETCDCTL_API=3 etcdutl version": "etcdutl version: 3.5.16\n",
    "curl --version": "curl 7.88.1\n",
}


@dataclass
class Node:
    """
    Answers what it knows; everything else fails: files do not exist, programs end with 1.

    :param errors: Word → the error of every command with that word.
    """

    answers: dict[str, str]
    where: str = "node cp-0"
    errors: dict[str, Exception] = field(default_factory=dict)

    def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
        del limits, stdin
        words = " ".join(argv).removeprefix("sudo -n ")
        if error := next((error for word, error in self.errors.items() if word in words), None):
            raise error
        if words in self.answers:
            return CommandResult(self.answers[words].encode())
        if words.startswith("curl") and "/v3/maintenance/status" in words and "status" in self.answers:
            return CommandResult(self.answers["status"].encode())
        if words.startswith("crictl ps") and "crictl" in self.answers:
            return CommandResult(self.answers["crictl"].encode())
        if words.startswith(("docker", "nerdctl", "ctr")):
            raise CommandMissing(words)
        absent = words.startswith(("cat", "stat", "ls"))
        said = f"{argv[-1]}: No such file or directory" if absent else ""
        raise CommandFailed(words, exit_code=1, stderr_tail=said)

    def stream(self, argv: Sequence[str], limits: StreamLimits) -> Iterator[bytes]:
        yield self.run(argv, limits).stdout


def test_a_node_with_everything_elsewhere() -> None:
    found = gather_node(Node(ANSWERS | {"status": STATUS}), make_cluster(), "cp-0", "10.0.0.1")
    assert found.etcd is not None
    assert found.etcd.data_dir == "/opt/data/var/lib/etcd"
    assert (found.member.path, found.member.owner, found.member.mode) == (
        "/opt/data/var/lib/etcd/member",
        "2001:2001",
        "700",
    )
    assert found.pki.path == "/opt/data/etc/kubernetes/pki"
    assert found.mount_points == ("/opt/data/var/lib/etcd",)
    assert found.tools == (Tool("node", "etcdutl", "", "3.5.16", bumps=True),)
    assert found.status is not None
    assert (found.free_bytes, found.memory_bytes, found.status.revision) == (74077940 * 1024, 1024 * 1024, 2134)
    assert (found.kubelet_running, found.curl, found.running) == (True, True, None)


def test_a_node_where_nothing_answers_gives_sentences_and_no_error() -> None:
    found = gather_node(Node({}), make_cluster(), "cp-0", "10.0.0.1")
    assert (found.etcd, found.apiserver, found.status, found.tools) == (None, None, None, ())
    assert (found.kubelet_running, found.etcd_healthy, found.ready) == (False, False, False)
    assert any("etcd.yaml does not exist" in problem for problem in found.problems)
    assert any("ca.crt does not exist" in problem for problem in found.problems)


def test_a_runtime_that_is_there_and_gave_no_tool_is_told_of() -> None:
    @dataclass
    class Engines(Node):
        def run(self, argv: Sequence[str], limits: StreamLimits, *, stdin: bytes = b"") -> CommandResult:
            if argv[2:4] == ("docker", "image"):
                raise CommandFailed("no", exit_code=1, stderr_tail="Is the docker daemon running?\n")
            if argv[2:3] == ("ctr",):
                return CommandResult(b"registry.example.net/other:1\n")
            return super().run(argv, limits, stdin=stdin)

    found = gather_node(Engines(ANSWERS), make_cluster(), "cp-0", "10.0.0.1")
    assert found.tool_problems == (
        "docker is installed but does not answer: exit code 1, 'Is the docker daemon running?'",
        "ctr has no image gcr.io/gke-on-prem-release/etcd-util:{version}",
    )


def test_an_etcd_that_answers_with_an_error_has_no_status() -> None:
    found = gather_node(Node(ANSWERS | {"status": '{"error": "no leader"}'}), make_cluster(), "cp-0", "10.0.0.1")
    assert found.status is None
    assert any("no leader" in problem for problem in found.problems)


FAILS = CommandFailed("x", exit_code=1, stderr_tail="sudo: unable to resolve host a\ncat: Input/output error")
SILENT = CommandFailed("x", exit_code=2)


@pytest.mark.parametrize(
    ("word", "error", "said"),
    [
        pytest.param("cat /etc/kubernetes/manifests/etcd.yaml", FAILS, "etcd.yaml cannot be read: exit code 1, 'cat: Input", id="manifest"),
        pytest.param("cat /etc/kubernetes/pki/ca.crt", SILENT, "ca.crt cannot be read: exit code 2, no output", id="ca"),
        pytest.param("stat -c %u:%g", FAILS, "/opt/data/var/lib/etcd cannot be read", id="stat"),
        pytest.param("ls ", FAILS, "the files in /etc/kubernetes/manifests cannot be read", id="ls"),
        pytest.param("/proc/self/mountinfo", FAILS, "its mount points cannot be read", id="mounts"),
        pytest.param("test -d", SILENT, "cannot be read: exit code 2", id="earlier-restores"),
        pytest.param("systemctl", FAILS, "cannot tell whether the kubelet runs: cat: Input", id="kubelet"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_never_called_absent(word: str, error: Exception, said: str) -> None:
    found = gather_node(Node(ANSWERS, errors={word: error}), make_cluster(), "cp-0", "10.0.0.1")
    told = (*found.problems, *found.unknown)
    assert any(said in each for each in told), told
    assert found.absent == ()
    assert not any("does not exist" in each for each in told if word.split("/")[-1] in each)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(CommandMissing("x"), "the node has no crictl.*Install it, or set control_plane.crictl", id="missing"),
        pytest.param(FAILS, "cannot run crictl.*exit code 1, 'cat: Input.*by hand", id="fails"),
        pytest.param(AccessDenied("sudo does not allow it"), "cannot run crictl.*sudo does not allow it", id="refused"),
    ],
)  # fmt: skip
def test_a_crictl_that_gives_no_list_is_told_of_in_its_own_way(error: Exception, said: str) -> None:
    found = gather_node(Node(ANSWERS, errors={"crictl ps": error}), make_cluster(), "cp-0", "10.0.0.1")
    assert found.running is None
    assert re.search(said, found.crictl_problem)


def test_a_crictl_that_warns_before_its_list_is_told_of() -> None:
    warns = 'WARN[0000] runtime connect using default endpoints\n{"containers": []}'
    found = gather_node(Node(ANSWERS | {"crictl": warns}), make_cluster(), "cp-0", "10.0.0.1")
    assert found.running is None
    assert re.search("printed unexpected output: 'WARN.*runtime-endpoint", found.crictl_problem)


def test_a_crictl_that_prints_something_else_is_told_of() -> None:
    found = gather_node(Node(ANSWERS | {"crictl": "NAME IMAGE"}), make_cluster(), "cp-0", "10.0.0.1")
    assert found.running is None
    assert any("NAME IMAGE" in problem for problem in found.problems)


def test_nodes_and_addresses_come_from_the_set_and_the_configuration() -> None:
    cluster = make_cluster(ssh={"addresses": {"cp-1": "10.9.9.9:2222"}})
    assert restore_nodes(cluster, make_manifest(3)) == {"cp-0": "10.0.0.1", "cp-1": "10.9.9.9:2222", "cp-2": "10.0.0.3"}
    unknown = make_manifest()
    unknown = unknown.model_copy(update={"members": (unknown.members[0].model_copy(update={"address": None}),)})
    with pytest.raises(NotFound, match=r"ssh\.addresses\.cp-0"):
        restore_nodes(cluster, unknown)


def test_a_doubtful_member_without_an_address_is_not_asked() -> None:
    manifest = make_manifest()
    gone = manifest.members[0].model_copy(update={"name": "cp-9", "node": "cp-9", "address": None, "problem": "gone"})
    manifest = manifest.model_copy(update={"members": (*manifest.members, gone)})
    assert restore_nodes(make_cluster(), manifest) == {"cp-0": "10.0.0.1"}


def variables(*flags: str) -> str:
    document = yaml.safe_load(pod("etcd", ["--data-dir=/var/lib/etcd", *flags], "etcd:3.5.16"))
    fields = {"NODE": "spec.nodeName", "IP": "status.podIP"}
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    document["spec"]["containers"][0]["env"] = env
    return str(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("host_ips", "expected"),
    [
        pytest.param(("10.9.9.1",), "https://10.9.9.1:2380", id="as-the-set-has-it"),
        pytest.param((), "https://10.0.0.1:2380", id="an-old-set-by-the-api-servers-address"),
    ],
)
def test_variables_of_a_manifest_are_filled_in(host_ips: tuple[str, ...], expected: str) -> None:
    manifest = variables("--name=$(NODE)", "--initial-advertise-peer-urls=https://$(IP):2380")
    member = make_manifest().members[0].model_copy(update={"host_ips": host_ips})
    answers = ANSWERS | {"cat /etc/kubernetes/manifests/etcd.yaml": manifest}
    found = gather_node(Node(answers), make_cluster(), "cp-0", "192.0.2.7:2222", member)
    assert found.etcd is not None
    assert (found.etcd.name, found.etcd.initial_advertise_peer_urls) == ("cp-0", expected)


def test_a_configuration_file_is_read_on_the_node() -> None:
    answers = ANSWERS | {
        "cat /etc/kubernetes/manifests/etcd.yaml": pod("etcd", ["--config-file=/var/lib/etcd/etcd.yml"], "etcd:3.5.16"),
        "cat /opt/data/var/lib/etcd/etcd.yml": "{name: cp-0, data-dir: /var/lib/etcd}",
    }
    found = gather_node(Node(answers), make_cluster(), "cp-0", "10.0.0.1")
    assert found.etcd is not None
    assert (found.etcd.name, found.etcd.data_dir, found.etcd.notes) == ("cp-0", "/opt/data/var/lib/etcd", ())


def test_what_no_manifest_tells_is_taken_from_set_and_configuration_and_told() -> None:
    manifest = pod("sh", ["-c", "exec /start-etcd"], "etcd:3.5.16")
    member = make_manifest().members[0].model_copy(update={"peer_urls": ("https://10.0.0.1:2380",)})
    cluster = make_cluster(control_plane={"data_dir": "/opt/data/var/lib/etcd"})
    found = gather_node(
        Node(ANSWERS | {"cat /etc/kubernetes/manifests/etcd.yaml": manifest}), cluster, "cp-0", "10.0.0.1", member
    )
    assert found.etcd is not None
    assert (found.etcd.name, found.etcd.data_dir) == ("cp-0", "/opt/data/var/lib/etcd")
    assert len(found.etcd.notes) == 3
