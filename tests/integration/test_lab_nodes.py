"""The lab's nodes over real SSH, its kubelets, and restores by hand that bring objects back."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.tools import etcd_folder
from lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Site
    from lab.hosts import SshHost
    from lab.site import ClusterHandle, NodeHandle


STUCK_S = 120.0
"""One transfer of 6 MB was once stuck in CI, all bytes on the node: what ran then is told the next time."""


class Ssh:
    """The stock client, strict about host keys."""

    def __init__(self, site: Site, folder: Path) -> None:
        hosts = [site.jump, *(node.ssh for name in ("harbor", "fleet") for node in site.clusters[name].nodes)]
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text("".join(f"{line}\n" for host in hosts for line in host.key_lines))
        self.jump = site.jump
        self.options = [
            "-F", "none", "-i", str(site.ssh_key), "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "BatchMode=yes",
            "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5",
        ]  # fmt: skip

    def __call__(
        self, host: SshHost, command: str, *, stdin: bytes = b"", through_jump: bool = False, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        extra: list[str] = []
        if through_jump:
            words = ["ssh", *self.options, "-p", str(self.jump.port), "-W", "%h:%p", f"ubuntu@{self.jump.address}"]
            extra = ["-o", f"ProxyCommand={shlex.join(words)}"]
        argv = ["ssh", *self.options, *extra, "-p", str(host.port), f"ubuntu@{host.address}", command]
        try:
            done = subprocess.run(argv, input=stdin, capture_output=True, timeout=STUCK_S)
        except subprocess.TimeoutExpired as err:
            processes = subprocess.run(
                ("ps", "-eo", "pid,ppid,stat,wchan:20,etimes,args"), capture_output=True, check=False
            )
            raise AssertionError(
                f"{err}. It printed {err.output!r} and {err.stderr!r}.\n{processes.stdout.decode()}"
            ) from err
        assert not check or done.returncode == 0, done.stderr.decode()
        return done


@pytest.fixture
def ssh(site: Site, tmp_path: Path) -> Ssh:
    return Ssh(site, tmp_path)


@pytest.fixture
def node(site: Site) -> NodeHandle:
    return site.clusters["harbor"].node


@pytest.fixture
def markers(site: Site) -> Iterator[str]:
    """The name of a ConfigMap that exists in no cluster before or after the test."""
    name = "restore-marker"
    yield name
    for cluster in site.clusters.values():
        cluster.kubectl("-n", "default", "delete", "configmap", name, "--ignore-not-found")


def ready(cluster: ClusterHandle) -> bool:
    return cluster.kubectl("get", "--raw", "/readyz", check=False).returncode == 0


def marker(cluster: ClusterHandle, name: str) -> dict[str, str]:
    return json.loads(cluster.kubectl("-n", "default", "get", "configmap", name, "-o", "json").stdout)["data"]


class TestReboot:
    def test_every_process_is_another_one_and_connections_are_gone(
        self, site: Site, ssh: Ssh, node: NodeHandle
    ) -> None:
        harbor = site.clusters["harbor"]
        ssh(node.ssh, "sudo -n systemctl stop kubelet")
        before = {name: node.container(name).pid for name in ("etcd", "kube-apiserver")}
        words = ["ssh", *ssh.options, "-p", str(node.ssh.port), f"ubuntu@{node.ssh.address}", "echo in; sleep 60"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as session:
            assert session.stdout is not None
            assert session.stdout.readline() == b"in\n"
            node.reboot()
            assert session.wait(10) == 255
        assert node.kubelet_state == "active"
        wait_for(lambda: ready(harbor), "the API to serve again", 60)
        after = {name: node.container(name) for name in before}
        assert all(after[name].running and after[name].pid != before[name] for name in before)
        assert not any(Path(f"/proc/{pid}").exists() for pid in before.values())


class TestShell:
    def test_streams_and_exit_code(self, ssh: Ssh, node: NodeHandle) -> None:
        done = ssh(node.ssh, "cat; echo err >&2; exit 7", stdin=bytes(range(256)), check=False)
        assert (done.returncode, done.stdout, done.stderr) == (7, bytes(range(256)), b"err\n")

    def test_pki_by_sudo_tar_through_the_jump_host(self, ssh: Ssh, node: NodeHandle, tmp_path: Path) -> None:
        archive = ssh(node.ssh, f"sudo -n tar -C {node.view}/etc/kubernetes -cf - pki", through_jump=True).stdout
        subprocess.run(["tar", "-C", tmp_path, "-xpf", "-"], input=archive, check=True)
        assert (tmp_path / "pki/ca.key").read_bytes() == (node.root / "etc/kubernetes/pki/ca.key").read_bytes()
        assert (tmp_path / "pki/ca.key").stat().st_mode & 0o777 == 0o600

    def test_each_node_sees_its_own_tree_under_one_path(self, site: Site, ssh: Ssh) -> None:
        nodes = site.clusters["fleet"].nodes
        path = f"{nodes[0].view}/etc/kubernetes/pki/etcd/server.crt"
        seen = {ssh(node.ssh, f"cat {path}").stdout for node in nodes}
        assert len(seen) == 3

    def test_loopback_is_each_nodes_own(self, site: Site, ssh: Ssh) -> None:
        fleet = site.clusters["fleet"]
        pki = f"{fleet.node.view}/etc/kubernetes/pki/etcd"
        tls = f"--cacert={pki}/ca.crt --cert={pki}/server.crt --key={pki}/server.key"
        port = fleet.etcd_endpoints[0].rpartition(":")[2]
        command = f"etcdctl --endpoints=https://127.0.0.1:{port} {tls} endpoint status -w json"
        statuses = [json.loads(ssh(node.ssh, command).stdout)[0]["Status"] for node in fleet.nodes]
        assert len({status["header"]["member_id"] for status in statuses}) == 3

    def test_tools_are_as_chosen(self, ssh: Ssh, node: NodeHandle) -> None:
        assert ssh(node.ssh, "etcdctl version").returncode == 0
        node.set_tools("etcdutl")
        try:
            assert ssh(node.ssh, "etcdctl version", check=False).returncode == 127
            assert ssh(node.ssh, "etcdutl version").returncode == 0
        finally:
            node.set_tools("etcdctl", "etcdutl")
        assert ssh(node.ssh, "docker ps", check=False).returncode == 127


class TestEngines:
    """docker, nerdctl and ctr, which a node has only when it is given them."""

    @pytest.mark.parametrize(
        ("engine", "listing", "options"),
        [
            pytest.param("docker", "docker image ls --format x", "docker run --rm --name probe", id="docker"),
            pytest.param(
                "nerdctl", "nerdctl --namespace k8s.io image ls", "nerdctl run --rm --name probe", id="nerdctl"
            ),
            pytest.param("ctr", "ctr --namespace k8s.io images ls -q", "ctr --namespace k8s.io run --rm", id="ctr"),
        ],
    )
    def test_runs_the_vendors_image(self, ssh: Ssh, node: NodeHandle, engine: str, listing: str, options: str) -> None:
        node.set_tools(engine)
        try:
            image = ssh(node.ssh, f"sudo -n {listing}").stdout.decode().strip()
            name = "probe" if engine == "ctr" else ""
            command = f"sudo -n {options} --env ETCDCTL_API=3 {image} {name} etcdctl version"
            assert b"etcdctl version" in ssh(node.ssh, command).stdout
            assert ssh(node.ssh, command.replace(":1.5.0", ":9.9.9"), check=False).returncode == 125
        finally:
            node.set_tools("etcdctl", "etcdutl")

    def test_killed_client_leaves_a_container_behind(self, ssh: Ssh, node: NodeHandle) -> None:
        node.set_tools("docker")
        image = "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0"
        listing = "sudo -n docker ps --all --quiet --filter name=^left$"
        try:
            ssh(node.ssh, f"sudo -n timeout -s KILL 1 docker run --rm --name left {image} sleep 60", check=False)
            assert ssh(node.ssh, listing).stdout == b"left\n"
            assert ssh(node.ssh, f"sudo -n docker run --name left {image} true", check=False).returncode == 125
            ssh(node.ssh, "sudo -n docker rm -f left")
            assert ssh(node.ssh, listing).stdout == b""
        finally:
            node.set_tools("etcdctl", "etcdutl")


class TestContainers:
    def test_crictl_needs_sudo(self, ssh: Ssh, node: NodeHandle) -> None:
        failed = ssh(node.ssh, "crictl ps", check=False)
        assert failed.returncode == 1
        assert b"permission denied" in failed.stderr

    def test_crictl_name_is_a_regular_expression(self, ssh: Ssh, node: NodeHandle) -> None:
        listing = json.loads(ssh(node.ssh, "sudo crictl ps -o json --name etcd").stdout)["containers"]
        assert {container["metadata"]["name"] for container in listing} == {
            "etcd",
            "kube-etcd",
            "gke-master-etcd-maintenance",
        }
        assert len(ssh(node.ssh, "sudo crictl ps -q --name '^etcd$'").stdout.split()) == 1

    def test_a_containers_files_through_its_process(self, ssh: Ssh, node: NodeHandle) -> None:
        (node.container_folder("etcd") / "tmp/seen").write_text("from inside")
        container = ssh(node.ssh, "sudo crictl ps -q --name '^etcd$'").stdout.decode().strip()
        pid = json.loads(ssh(node.ssh, f"sudo crictl inspect -o json {container}").stdout)["info"]["pid"]
        path = f"/proc/{pid}/root{node.view}/containers/etcd/etcd/tmp/seen"
        assert ssh(node.ssh, f"sudo -n cat {path}").stdout == b"from inside"

    def test_moved_manifest_ends_the_pod_and_brings_it_back(self, ssh: Ssh, node: NodeHandle) -> None:
        manifests, running = f"{node.view}/etc/kubernetes/manifests", "sudo crictl ps -a --name '^kube-scheduler$' -q"
        ssh(node.ssh, f"sudo mv {manifests}/kube-scheduler.yaml {node.view}/tmp/")
        wait_for(lambda: not ssh(node.ssh, running).stdout, "the scheduler to end")
        ssh(node.ssh, f"sudo mv {node.view}/tmp/kube-scheduler.yaml {manifests}/")
        wait_for(lambda: ssh(node.ssh, running).stdout, "the scheduler to start")

    def test_any_file_in_the_manifests_folder_is_run(self, site: Site, node: NodeHandle) -> None:
        folder = node.root / "etc/kubernetes/manifests"
        text = (folder / "kube-scheduler.yaml").read_text().replace("name: kube-scheduler\n", "name: stray\n")
        (folder / ".hidden.yaml").write_text(text.replace("name: stray\n", "name: hidden\n"))
        (folder / "stray.yaml.bak").write_text(text)
        try:
            wait_for(lambda: (node.root / "containers/stray/stray/state.json").exists(), "the stray pod")
            assert not (node.root / "containers/hidden").exists()
        finally:
            (folder / "stray.yaml.bak").unlink()
            (folder / ".hidden.yaml").unlink()
        wait_for(lambda: not (node.root / "containers/stray").exists(), "the stray pod to end")

    def test_stopped_kubelet_restarts_nothing(self, ssh: Ssh, node: NodeHandle) -> None:
        ssh(node.ssh, "sudo systemctl stop kubelet")
        try:
            assert ssh(node.ssh, "systemctl is-active kubelet", check=False).returncode == 3
            ssh(node.ssh, "sudo crictl stop --timeout 2 $(sudo crictl ps -q --name '^kube-scheduler$')")
            assert ssh(node.ssh, "sudo crictl ps -q --name '^kube-scheduler$'").stdout == b""
            assert b"Exited" in ssh(node.ssh, "sudo crictl ps -a --name '^kube-scheduler$'").stdout
        finally:
            ssh(node.ssh, "sudo systemctl start kubelet")
        wait_for(lambda: ssh(node.ssh, "sudo crictl ps -q --name '^kube-scheduler$'").stdout, "the scheduler")

    def test_killed_container_restarts_with_an_empty_tmp(self, node: NodeHandle) -> None:
        before = node.container("kube-scheduler")
        (node.container_folder("kube-scheduler") / "tmp/left").touch()
        node.restart_container("kube-scheduler")
        after = node.container("kube-scheduler")
        assert after.id != before.id
        assert after.pod_uid == before.pod_uid
        assert not (node.container_folder("kube-scheduler") / "tmp/left").exists()


class TestRestore:
    def test_single_member_with_the_kubelet_stopped(self, site: Site, ssh: Ssh, markers: str) -> None:
        harbor = site.clusters["harbor"]
        self._restore(ssh, harbor, markers)

    def test_three_members(self, site: Site, ssh: Ssh, markers: str) -> None:
        self._restore(ssh, site.clusters["fleet"], markers)

    def _restore(self, ssh: Ssh, cluster: ClusterHandle, name: str) -> None:
        """Snapshot, change the marker, restore on all nodes: the marker is as in the snapshot."""
        cluster.kubectl("-n", "default", "create", "configmap", name, "--from-literal=when=before")
        data, staged = f"{cluster.node.view}/{self._data(cluster)}", f"{cluster.node.view}/mnt"
        snapshot = self._snapshot(cluster)
        cluster.kubectl("-n", "default", "patch", "configmap", name, "-p", '{"data":{"when":"after"}}')
        for node in cluster.nodes:
            manifest = yaml.safe_load((node.root / "etc/kubernetes/manifests/etcd.yaml").read_text())
            flags = manifest["spec"]["containers"][0]["command"]
            names = ("--name=", "--initial-cluster=", "--initial-advertise-peer-urls=")
            wanted = shlex.join([flag for flag in flags if flag.startswith(names)])
            ssh(node.ssh, f"cat > {staged}/snapshot.db", stdin=snapshot)
            restore = (
                f"rm -rf {staged}/new; etcdctl snapshot restore {staged}/snapshot.db --data-dir {staged}/new {wanted}"
            )
            ssh(node.ssh, f"sudo sh -c {shlex.quote(restore)}")
        for node in cluster.nodes:
            ssh(node.ssh, "sudo systemctl stop kubelet")
            names = "^(etcd|kube-apiserver|kube-controller-manager|kube-scheduler)$"
            own = f"--name '{names}' --label io.kubernetes.pod.namespace=kube-system"
            ssh(node.ssh, f"sudo crictl stop --timeout 2 $(sudo crictl ps -q {own})")
        assert not ready(cluster)
        for node in cluster.nodes:
            swap = f"mv {data}/member {staged}/old && mv {staged}/new/member {data}/member"
            ssh(node.ssh, f"rm -rf {staged}/old; sudo sh -c {shlex.quote(swap)}")
            ssh(node.ssh, "sudo systemctl start kubelet")
        wait_for(lambda: ready(cluster), f"{cluster.name}'s API")
        assert marker(cluster, name) == {"when": "before"}

    def _snapshot(self, cluster: ClusterHandle) -> bytes:
        path = Path(cluster.node.root / "tmp/restore-test.db")
        ca, cert, key = cluster.etcd_tls
        tls = [f"--cacert={ca}", f"--cert={cert}", f"--key={key}"]
        argv: list[Any] = [etcd_folder() / "etcdctl", f"--endpoints={cluster.etcd_endpoints[0]}", *tls]
        subprocess.run([*argv, "snapshot", "save", path], check=True, capture_output=True)
        data = path.read_bytes()
        path.unlink()
        return data

    def _data(self, cluster: ClusterHandle) -> str:
        return "opt/data/var/lib/etcd" if cluster.name == "fleet" else "var/lib/etcd"
