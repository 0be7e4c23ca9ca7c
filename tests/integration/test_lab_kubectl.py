"""The lab's API server, driven by the real kubectl."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from lab.tools import DISTROLESS
from lab.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab import Site
    from lab.site import ClusterHandle

ALL_BYTES = bytes(range(256)) * 64
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, labels: {app: api}}
spec:
  replicas: 1
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
      - {name: api, image: "example.com/api:1", env: [{name: A, value: "1"}, {name: B, value: "2"}]}
"""


@pytest.fixture
def harbor(site: Site) -> ClusterHandle:
    return site.clusters["harbor"]


@pytest.fixture
def namespace(harbor: ClusterHandle, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t-{abs(hash(request.node.name)) % 10**8}"
    harbor.kubectl("create", "namespace", name)
    yield name
    harbor.kubectl("delete", "namespace", name, "--ignore-not-found")


def get(cluster: ClusterHandle, *args: str) -> Any:
    return json.loads(cluster.kubectl("get", *args, "-o", "json").stdout)


def etcd(cluster: ClusterHandle, *command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    flags = ("-i",) if "stdin" in options else ()
    return cluster.kubectl("-n", "kube-system", "exec", *flags, f"etcd-{cluster.node.name}", "--", *command, **options)


class TestReading:
    def test_version(self, harbor: ClusterHandle) -> None:
        assert json.loads(harbor.kubectl("version", "-o", "json").stdout)["serverVersion"]["gitVersion"] == "v1.36.2"

    def test_api_resources_include_custom_ones(self, harbor: ClusterHandle) -> None:
        names = harbor.kubectl("api-resources", "-o", "name").stdout.decode().split()
        assert {"pods", "secrets", "statefulsets.apps", "onpremuserclusters.onprem.cluster.gke.io"} <= set(names)

    def test_wide_nodes_show_the_external_address(self, harbor: ClusterHandle) -> None:
        lines = harbor.kubectl("get", "nodes", "-n", "kube-system", "-o", "wide").stdout.decode().splitlines()
        header, row = lines
        place = header.index("EXTERNAL-IP")
        assert row[place:].split()[0] == harbor.node.address
        assert "control-plane" in row

    def test_etcd_pod_by_the_vendors_selector(self, harbor: ClusterHandle) -> None:
        selector, template = "component=etcd,tier=control-plane", "jsonpath={$.items[*].metadata.name}"
        found = harbor.kubectl("get", "pods", "-n", "kube-system", "-l", selector, "-o", template).stdout.decode()
        assert found == "etcd-harbor-cp-0"

    def test_kind_of_user_cluster_by_the_vendors_question(self, harbor: ClusterHandle) -> None:
        template = "jsonpath={.items[0].spec.enableControlplaneV2}"
        answer = harbor.kubectl("get", "onpremuserclusters", "-n", "kube-system", "-o", template).stdout
        assert answer == b"false"

    def test_mirror_pod_looks_like_one(self, harbor: ClusterHandle) -> None:
        pod = get(harbor, "pod", "etcd-harbor-cp-0", "-n", "kube-system")
        assert pod["spec"]["nodeName"] == "harbor-cp-0"
        assert pod["status"]["hostIP"] == harbor.node.address
        assert pod["metadata"]["ownerReferences"][0]["kind"] == "Node"
        assert "kubernetes.io/config.mirror" in pod["metadata"]["annotations"]
        (container,) = pod["status"]["containerStatuses"]
        assert container["ready"]
        assert container["containerID"].startswith("containerd://")

    def test_every_namespace_has_its_root_ca(self, harbor: ClusterHandle) -> None:
        configs = get(harbor, "configmaps", "-A", "--field-selector", "metadata.name=kube-root-ca.crt")["items"]
        assert {"kube-system", "default", "shop"} <= {item["metadata"]["namespace"] for item in configs}
        ca = (harbor.node.root / "etc/kubernetes/pki/ca.crt").read_text()
        assert {item["data"]["ca.crt"] for item in configs} == {ca}

    def test_pages_hold_one_revision(self, harbor: ClusterHandle) -> None:
        whole = get(harbor, "configmaps", "-n", "monitoring")["items"]
        paged = get(harbor, "configmaps", "-n", "monitoring", "--chunk-size=7")["items"]
        assert [item["metadata"]["name"] for item in paged] == [item["metadata"]["name"] for item in whole]

    def test_missing_object_is_a_status(self, harbor: ClusterHandle) -> None:
        failed = harbor.kubectl("get", "pod", "nobody", "-n", "kube-system", check=False)
        assert failed.returncode == 1
        assert b'Error from server (NotFound): pods "nobody" not found' in failed.stderr

    def test_resource_version_is_the_etcd_revision(self, harbor: ClusterHandle) -> None:
        config = get(harbor, "configmap", "cluster", "-n", "shop")
        stored = harbor.etcdctl("get", "/registry/configmaps/shop/cluster", "-w", "json").stdout
        assert config["metadata"]["resourceVersion"] == str(json.loads(stored)["kvs"][0]["mod_revision"])

    def test_watch_follows_changes(self, harbor: ClusterHandle, namespace: str) -> None:
        argv = [
            "-n",
            namespace,
            "get",
            "configmaps",
            "--watch",
            "--output-watch-events",
            "-o",
            "name",
            "--request-timeout=3s",
        ]
        harbor.kubectl("-n", namespace, "create", "configmap", "early")
        seen = harbor.kubectl(*argv, check=False).stdout.decode()
        assert "configmap/early" in seen


class TestWriting:
    def test_apply_creates_configures_and_leaves_alone(self, harbor: ClusterHandle, namespace: str) -> None:
        first = harbor.kubectl("-n", namespace, "apply", "-f", "-", stdin=DEPLOYMENT.encode()).stdout
        changed = DEPLOYMENT.replace('{name: A, value: "1"}, ', "").replace("api:1", "api:2")
        second = harbor.kubectl("-n", namespace, "apply", "-f", "-", stdin=changed.encode()).stdout
        third = harbor.kubectl("-n", namespace, "apply", "-f", "-", stdin=changed.encode()).stdout
        assert [text.split()[-1] for text in (first, second, third)] == [b"created", b"configured", b"unchanged"]
        (container,) = get(harbor, "deployment", "api", "-n", namespace)["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "example.com/api:2"
        assert container["env"] == [{"name": "B", "value": "2"}]

    def test_server_side_apply_and_dry_run(self, harbor: ClusterHandle, namespace: str) -> None:
        server_side = ("-n", namespace, "apply", "--server-side", "-f", "-")
        harbor.kubectl(*server_side, "--dry-run=server", stdin=DEPLOYMENT.encode())
        assert get(harbor, "deployments", "-n", namespace)["items"] == []
        harbor.kubectl(*server_side, stdin=DEPLOYMENT.encode())
        assert len(get(harbor, "deployments", "-n", namespace)["items"]) == 1

    def test_server_side_apply_knows_owners(self, harbor: ClusterHandle, namespace: str) -> None:
        apply = ("-n", namespace, "apply", "--server-side", "--field-manager=etcdkeep", "-f", "-")
        harbor.kubectl(*apply, stdin=DEPLOYMENT.encode())
        harbor.kubectl("-n", namespace, "scale", "deployment", "api", "--replicas=3")
        refused = harbor.kubectl(*apply, stdin=DEPLOYMENT.encode(), check=False)
        assert b"conflict" in refused.stderr
        assert b".spec.replicas" in refused.stderr
        without = DEPLOYMENT.replace("  replicas: 1\n", "").replace('{name: A, value: "1"}, ', "")
        harbor.kubectl(*apply, stdin=without.encode())
        spec = get(harbor, "deployment", "api", "-n", namespace)["spec"]
        assert spec["replicas"] == 3
        assert spec["template"]["spec"]["containers"][0]["env"] == [{"name": "B", "value": "2"}]
        harbor.kubectl(*apply, "--force-conflicts", stdin=DEPLOYMENT.encode())
        assert get(harbor, "deployment", "api", "-n", namespace)["spec"]["replicas"] == 1

    def test_fields_have_managers(self, harbor: ClusterHandle, namespace: str) -> None:
        harbor.kubectl("-n", namespace, "create", "configmap", "c", "--from-literal=a=1")
        harbor.kubectl("-n", namespace, "label", "configmap", "c", "x=y")
        managed = get(harbor, "configmap", "c", "-n", namespace, "--show-managed-fields")["metadata"]["managedFields"]
        owned = {entry["manager"]: entry["fieldsV1"] for entry in managed}
        assert owned == {
            "kubectl-create": {"f:data": {"f:a": {}}},
            "kubectl-label": {"f:metadata": {"f:labels": {"f:x": {}}}},
        }

    def test_later_than_now_is_too_large(self, harbor: ClusterHandle) -> None:
        failed = harbor.kubectl("get", "--raw", "/api/v1/nodes?resourceVersion=99999999", check=False)
        assert b"Too large resource version" in failed.stderr

    def test_create_twice_conflicts(self, harbor: ClusterHandle, namespace: str) -> None:
        harbor.kubectl("-n", namespace, "create", "-f", "-", stdin=DEPLOYMENT.encode())
        failed = harbor.kubectl("-n", namespace, "create", "-f", "-", stdin=DEPLOYMENT.encode(), check=False)
        assert b"AlreadyExists" in failed.stderr

    def test_stale_replace_conflicts(self, harbor: ClusterHandle, namespace: str) -> None:
        harbor.kubectl("-n", namespace, "create", "configmap", "c", "--from-literal=a=1")
        old = harbor.kubectl("-n", namespace, "get", "configmap", "c", "-o", "json").stdout
        harbor.kubectl("-n", namespace, "label", "configmap", "c", "x=y")
        failed = harbor.kubectl("-n", namespace, "replace", "-f", "-", stdin=old.replace(b'"1"', b'"2"'), check=False)
        assert b"the object has been modified" in failed.stderr

    @pytest.mark.parametrize(
        ("kind", "patch"),
        [
            pytest.param("merge", '{"data":{"a":null,"b":"2"}}', id="merge"),
            pytest.param(
                "json", '[{"op":"remove","path":"/data/a"},{"op":"add","path":"/data/b","value":"2"}]', id="json"
            ),
            pytest.param("strategic", '{"data":{"a":null,"b":"2"}}', id="strategic"),
        ],
    )
    def test_patch(self, harbor: ClusterHandle, namespace: str, kind: str, patch: str) -> None:
        harbor.kubectl("-n", namespace, "create", "configmap", "c", "--from-literal=a=1")
        harbor.kubectl("-n", namespace, "patch", "configmap", "c", "--type", kind, "-p", patch)
        assert get(harbor, "configmap", "c", "-n", namespace)["data"] == {"b": "2"}

    def test_secret_round_trip(self, harbor: ClusterHandle, namespace: str) -> None:
        harbor.kubectl("-n", namespace, "create", "secret", "generic", "s", "--from-literal=password=pässword")
        raw = harbor.kubectl("-n", namespace, "get", "secret", "s", "-o", "jsonpath={.data.password}").stdout
        decoded = subprocess.run(["base64", "-d"], input=raw, capture_output=True, check=True).stdout
        assert decoded.decode() == "pässword"

    def test_scale_is_a_subresource(self, harbor: ClusterHandle, namespace: str) -> None:
        harbor.kubectl("-n", namespace, "create", "-f", "-", stdin=DEPLOYMENT.encode())
        harbor.kubectl("-n", namespace, "scale", "deployment", "api", "--replicas=0")
        assert get(harbor, "deployment", "api", "-n", namespace)["spec"]["replicas"] == 0

    def test_deleted_namespace_takes_its_objects_along(self, harbor: ClusterHandle, namespace: str) -> None:
        harbor.kubectl("-n", namespace, "create", "configmap", "c")
        harbor.kubectl("delete", "namespace", namespace, "--timeout=20s")
        left = harbor.etcdctl("get", "/registry/", "--prefix", "--keys-only").stdout.decode().split()
        assert [key for key in left if f"/{namespace}" in key] == []

    def test_objects_in_a_missing_namespace_are_refused(self, harbor: ClusterHandle) -> None:
        failed = harbor.kubectl("-n", "nowhere", "create", "configmap", "c", check=False)
        assert b'namespaces "nowhere" not found' in failed.stderr


class TestExec:
    def test_output_error_and_exit_code(self, harbor: ClusterHandle) -> None:
        done = etcd(harbor, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
        assert (done.returncode, done.stdout) == (7, b"out\n")
        assert done.stderr.startswith(b"err\n")

    def test_every_byte_in_and_out(self, harbor: ClusterHandle) -> None:
        assert etcd(harbor, "cat", stdin=ALL_BYTES).stdout == ALL_BYTES

    def test_what_cannot_start(self, harbor: ClusterHandle) -> None:
        failed = etcd(harbor, "no-such-program", check=False)
        assert failed.returncode == 1
        assert b'exec: "no-such-program": executable file not found in $PATH' in failed.stderr

    def test_distroless_container_has_no_shell(self, harbor: ClusterHandle) -> None:
        harbor.node.set_container_tools("etcd", *DISTROLESS)
        try:
            for command in (("sh", "-c", "true"), ("/bin/cat", "/dev/null")):
                assert etcd(harbor, *command, check=False).returncode == 1
            assert b"etcdctl version" in etcd(harbor, "etcdctl", "version").stdout
        finally:
            harbor.node.reset_container_tools("etcd")

    def test_unknown_container(self, harbor: ClusterHandle) -> None:
        pod = ("-n", "kube-system", "exec", "etcd-harbor-cp-0", "-c", "other")
        failed = harbor.kubectl(*pod, "--", "true", check=False)
        assert failed.returncode == 1
        assert b"other" in failed.stderr

    def test_cp_both_ways(self, harbor: ClusterHandle, tmp_path: Any) -> None:
        local, back = tmp_path / "local", tmp_path / "back"
        local.write_bytes(ALL_BYTES)
        remote = f"{harbor.node.view}/containers/etcd/etcd/tmp/copied"
        harbor.kubectl("cp", str(local), f"kube-system/etcd-harbor-cp-0:{remote}")
        harbor.kubectl("cp", f"kube-system/etcd-harbor-cp-0:{remote}", str(back))
        assert back.read_bytes() == ALL_BYTES

    def test_logs(self, harbor: ClusterHandle) -> None:
        log = harbor.node.container_folder("etcd") / "log"
        with open(log, "a") as file:
            file.write("first\nlast\n")
        assert harbor.kubectl("-n", "kube-system", "logs", "etcd-harbor-cp-0", "--tail=1").stdout == b"last\n"

    def test_snapshot_in_the_pod(self, harbor: ClusterHandle) -> None:
        ca, cert, key = harbor.etcd_tls
        tls = (f"--endpoints={harbor.etcd_endpoints[0]}", f"--cacert={ca}", f"--cert={cert}", f"--key={key}")
        path = f"{harbor.node.view}/containers/etcd/etcd/tmp/test.db"
        etcd(harbor, "etcdctl", *tls, "snapshot", "save", path)
        status = json.loads(etcd(harbor, "etcdctl", "snapshot", "status", path, "-w", "json").stdout)
        assert status["totalKey"] > 50
        etcd(harbor, "rm", path)


class TestWhoMayAsk:
    def test_expired_certificate_is_unauthorized(self, harbor: ClusterHandle) -> None:
        failed = harbor.kubectl("--kubeconfig", str(harbor.expired_kubeconfig), "get", "nodes", check=False)
        assert failed.returncode == 1
        assert b"Unauthorized" in failed.stderr or b"must be logged in" in failed.stderr

    def test_another_clusters_certificate_is_refused(self, site: Site) -> None:
        harbor, fleet = site.clusters["harbor"], site.clusters["fleet"]
        ca, theirs = harbor.node.root / "etc/kubernetes/pki/ca.crt", fleet.node.root / "etc/kubernetes/pki"
        client = ["--cert", f"{theirs}/apiserver-kubelet-client.crt", "--key", f"{theirs}/apiserver-kubelet-client.key"]
        server = json.loads(harbor.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        done = subprocess.run(["curl", "-sS", "--cacert", ca, *client, f"{server}/api/v1/nodes"], capture_output=True)
        assert done.returncode != 0
        assert done.stdout == b""

    def test_nobody_is_forbidden(self, harbor: ClusterHandle) -> None:
        server = json.loads(harbor.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        ca = harbor.node.root / "etc/kubernetes/pki/ca.crt"
        command = ["curl", "-s", "--cacert", str(ca), f"{server}/api/v1/nodes"]
        answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert (answer["code"], answer["reason"]) == (403, "Forbidden")


class TestUserCluster:
    def test_its_etcd_runs_in_the_admin_cluster(self, harbor: ClusterHandle) -> None:
        pod = get(harbor, "pod", "kube-etcd-0", "-n", "skiff")
        assert [container["name"] for container in pod["spec"]["containers"]] == ["kube-etcd"]
        assert pod["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet"
        assert get(harbor, "pvc", "data-kube-etcd-0", "-n", "skiff")["status"]["phase"] == "Bound"

    def test_its_own_api_answers(self, site: Site) -> None:
        names = site.clusters["skiff"].kubectl("get", "namespaces", "-o", "name").stdout.decode().split()
        assert "namespace/shop" in names

    def test_deleted_pod_comes_back_with_its_data(self, site: Site) -> None:
        harbor, skiff = site.clusters["harbor"], site.clusters["skiff"]
        skiff.kubectl("-n", "shop", "create", "configmap", f"kept-{time.time_ns()}")
        before = get(harbor, "pod", "kube-etcd-0", "-n", "skiff")["metadata"]["uid"]
        folder = harbor.node.container_folder("kube-etcd", pod="kube-etcd-0", namespace="skiff")
        (folder / "tmp/left").touch()
        harbor.kubectl("-n", "skiff", "delete", "pod", "kube-etcd-0")
        harbor.kubectl("-n", "skiff", "wait", "--for=create", "pod/kube-etcd-0", "--timeout=20s")
        harbor.kubectl("-n", "skiff", "wait", "--for=condition=Ready", "pod/kube-etcd-0", "--timeout=20s")
        assert get(harbor, "pod", "kube-etcd-0", "-n", "skiff")["metadata"]["uid"] != before
        assert not (folder / "tmp/left").exists()
        wait_for(lambda: skiff.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "skiff's API")
        assert b"kept-" in skiff.kubectl("-n", "shop", "get", "configmaps", "-o", "name").stdout

    def test_utility_pod_on_the_claim(self, harbor: ClusterHandle) -> None:
        data = f"{harbor.node.view}/pods/skiff/var/lib/etcd"
        pod = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "etcd-utility-0", "namespace": "skiff"},
            "spec": {
                "nodeName": "harbor-cp-0", "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "etcd-utility", "image": "gcr.io/gke-on-prem-release/etcd-util:1.5.0-gke.0",
                    "command": ["sh", "-c", "sleep 3600"], "volumeMounts": [{"name": "data", "mountPath": data}],
                }],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-kube-etcd-0"}}],
            },
        }  # fmt: skip
        harbor.kubectl("create", "-f", "-", stdin=json.dumps(pod).encode())
        try:
            harbor.kubectl("-n", "skiff", "wait", "--for=condition=Ready", "pod/etcd-utility-0", "--timeout=20s")
            listed = harbor.kubectl("-n", "skiff", "exec", "etcd-utility-0", "--", "ls", f"{data}/member").stdout
            assert listed.split() == [b"snap", b"wal"]
        finally:
            harbor.kubectl("-n", "skiff", "delete", "pod", "etcd-utility-0", "--timeout=20s")

    def test_stateful_set_scales_down_and_up(self, site: Site) -> None:
        harbor, skiff = site.clusters["harbor"], site.clusters["skiff"]
        harbor.kubectl("-n", "skiff", "scale", "statefulset", "kube-apiserver", "--replicas=0")
        harbor.kubectl("-n", "skiff", "wait", "--for=delete", "pod/kube-apiserver-0", "--timeout=30s")
        assert skiff.kubectl("get", "--raw", "/readyz", check=False).returncode != 0
        harbor.kubectl("-n", "skiff", "scale", "statefulset", "kube-apiserver", "--replicas=1")
        harbor.kubectl("-n", "skiff", "rollout", "status", "statefulset/kube-apiserver", "--timeout=30s")
        wait_for(lambda: skiff.kubectl("get", "--raw", "/readyz", check=False).returncode == 0, "skiff's API")
