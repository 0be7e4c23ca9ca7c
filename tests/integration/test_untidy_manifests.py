"""Each way to write etcd's manifest that people really have: backed up, called good, and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from lab.waiting import wait_for
from tests.integration.restore.lab_restore import AS_BACKED_UP, LabRestore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab import Site
    from tests.integration.conftest import StartRun

FIELDS = {"NODE_NAME": "spec.nodeName", "POD_IP": "status.podIP", "HOST_IP": "status.hostIP"}


def _container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in pod["spec"]["containers"] if each["name"] == "etcd")
    return found


def dollars(pod: dict[str, Any], root: Path, view: str) -> None:
    """Names and addresses from the pod's fields, the data directory from a variable that uses another."""
    del root
    container, name = _container(pod), pod["name-of-node"]
    env: list[dict[str, Any]] = [
        {"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in FIELDS.items()
    ]
    env += [{"name": "ROOT", "value": view}, {"name": "DATA", "value": "$(ROOT)/var/lib"}]
    container["env"] = env
    words = [word.replace(name, "$(NODE_NAME)").replace("127.0.0.11", "$(POD_IP)") for word in container["command"]]
    container["command"] = [word.replace(f"--data-dir={view}/var/lib", "--data-dir=$(DATA)") for word in words]
    assert "--name=$(NODE_NAME)" in container["command"]


def side_car(pod: dict[str, Any], root: Path, view: str) -> None:
    """A side-car before etcd, with a --data-dir and a --name of its own, and etcd's flags among `args`."""
    del root, view
    container = _container(pod)
    container["command"], container["args"] = container["command"][:1], container["command"][1:]
    script = "trap 'exit 0' TERM; while :; do sleep 1; done"
    command = ["sh", "-c", script, "--data-dir=/backup", "--name=side"]
    pod["spec"]["containers"].insert(
        0, {"name": "backup", "image": "busybox", "command": command} | {"image": "docker.io/library/busybox:1"}
    )


def config_file(pod: dict[str, Any], root: Path, view: str) -> None:
    """Everything in a file outside the PKI; a flag beside it that etcd ignores."""
    container = _container(pod)
    settings = dict(word.removeprefix("--").split("=", 1) for word in container["command"][1:])
    cert, key, ca = (settings.pop(name) for name in ("cert-file", "key-file", "trusted-ca-file"))
    peer = [settings.pop(f"peer-{name}") for name in ("cert-file", "key-file", "trusted-ca-file")]
    settings.pop("client-cert-auth"), settings.pop("peer-client-cert-auth")
    numbers = {name: int(settings.pop(name)) for name in ("quota-backend-bytes", "snapshot-count")}
    transport = {"client-cert-auth": True}
    document = (
        settings
        | numbers
        | {
            "client-transport-security": transport | {"cert-file": cert, "key-file": key, "trusted-ca-file": ca},
            "peer-transport-security": transport
            | {"cert-file": peer[0], "key-file": peer[1], "trusted-ca-file": peer[2]},
        }
    )
    folder = root / "srv/etcd"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "etcd.yml").write_text(yaml.safe_dump(document))
    container["command"] = ["etcd", f"--config-file={view}/srv/etcd/etcd.yml", "--name=ignored"]
    container["volumeMounts"].append({"name": "config", "mountPath": f"{view}/srv/etcd"})
    pod["spec"]["volumes"].append({"name": "config", "hostPath": {"path": f"{view}/srv/etcd"}})


def shell_string(pod: dict[str, Any], root: Path, view: str) -> None:
    """A plain shell string with a redirection and a pipe."""
    del root, view
    container = _container(pod)
    container["command"] = ["/bin/sh", "-ec", f"set -x; exec {' '.join(container['command'])} 2>&1"]


def hidden(pod: dict[str, Any], root: Path, view: str) -> None:
    """A shell string of which nothing can be told from outside."""
    del root, view
    container = _container(pod)
    words = " ".join(container["command"][1:])
    container["command"] = ["/bin/sh", "-c", f"eval 'exec etcd {words}'"]


def variables(pod: dict[str, Any], root: Path, view: str) -> None:
    """ETCD_ variables in place of most flags."""
    del root, view
    container = _container(pod)
    flags = dict(word.removeprefix("--").split("=", 1) for word in container["command"][1:])
    kept = {"data-dir": flags.pop("data-dir")}
    container["command"] = ["etcd", *(f"--{flag}={value}" for flag, value in kept.items())]
    container["env"] = [
        {"name": f"ETCD_{flag.upper().replace('-', '_')}", "value": value} for flag, value in flags.items()
    ]


VARIANTS = [dollars, side_car, config_file, shell_string, hidden, variables]


@pytest.fixture(params=VARIANTS, ids=lambda each: each.__name__)
def variant(request: pytest.FixtureRequest, site: Site) -> Iterator[Any]:
    """Harbor's etcd, started from a manifest that is written otherwise."""
    node = site.clusters["harbor"].node
    path = node.root / "etc/kubernetes/manifests/etcd.yaml"
    before = path.read_text()
    pod = yaml.safe_load(before)
    pod["name-of-node"] = node.name
    request.param(pod, node.root, str(node.view))
    del pod["name-of-node"]
    replace_manifest(site, path, yaml.safe_dump(pod, width=10_000))
    yield request.param
    replace_manifest(site, path, before)


def replace_manifest(site: Site, path: Path, text: str) -> None:
    """Replace a manifest as the documentation says: moved out, the container gone, the new one moved in."""
    harbor = site.clusters["harbor"]
    with harbor.node.member.stopped():
        parked = harbor.node.root / "tmp/etcd.yaml"
        parked.write_text(text)
    wait_for(lambda: not harbor.kubectl("get", "--raw=/readyz", check=False).returncode, "the API to be back", 60)
    wait_for(lambda: f"etcd-{harbor.node.name}" in _pods(site), "etcd's pod to be shown", 60)


def _pods(site: Site) -> str:
    shown = site.clusters["harbor"].kubectl(
        "-n", "kube-system", "get", "pods", "--field-selector=status.phase=Running", "-o", "name", check=False
    )
    return shown.stdout.decode()


def test_the_set_is_good_and_comes_back(start_run: StartRun, variant: Any) -> None:
    run = start_run("harbor", discovered=False)
    restore = LabRestore(run)
    assert restore.found.state == "good", restore.found
    assert restore.found.manifest is not None
    told = [note for note in restore.found.manifest.notes if "etcd.yaml" in note]
    assert bool(told) == (variant is hidden), told
    prepared = restore.prepare()
    assert prepared.plan is not None, prepared.findings
    (facts,) = prepared.facts or ()
    assert facts.etcd is not None
    assert facts.etcd.name == "harbor-cp-0"
    assert facts.etcd.initial_advertise_peer_urls.startswith("https://127.0.0.11:")
    assert facts.etcd.data_dir.endswith("/harbor/node/var/lib/etcd")
    with restore.engine(prepared.plan) as engine:
        engine.walk()
    restore.expect(AS_BACKED_UP)
    assert restore.report(prepared.plan).problems == ()
