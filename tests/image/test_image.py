"""The image, built from the Dockerfile on a stand-in base: one backup in it, as its user, with a read-only root file system."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml

from etcdkeep import __version__
from lab.tools import ETCD_TOOLS
from tests import docker_engine, image_base
from tests.image_base import AIRFLOW, PROJECT, USER, call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE, BASE, ETCD = "etcdkeep-test", "etcdkeep-test-base", "etcdkeep-test-etcd"
BUILT_FROM = ("Dockerfile", ".dockerignore", "Makefile", "requirements.lock", "dags", "plugins", "include")
SECRET = "AGE-SECRET-KEY-1PLANTED0BESIDE0THE0CODE"
KEPT_BESIDE = (".env", ".lab/key.pem", ".airflow/airflow.cfg", "deploy/secrets/age_identity")
PROGRAMS = ("etcd", *ETCD_TOOLS)
LACKS = docker_engine.missing() or image_base.missing()
pytestmark = [pytest.mark.skipif(LACKS is not None, reason=str(LACKS)), pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, built by `make image` in a checkout where secrets lie about."""
    project = checkout(tmp_path_factory.mktemp("project"))
    with docker_engine.imported(ETCD, PROGRAMS) as etcd:
        try:
            base = image_base.import_base(tmp_path_factory.mktemp("base"), BASE)
            image_base.build(project, IMAGE, etcd=etcd, base=base)
            yield IMAGE
        finally:
            subprocess.run(["docker", "image", "rm", "--force", IMAGE, BASE], capture_output=True, check=False)


def checkout(folder: Path) -> Path:
    for name in BUILT_FROM:
        call("cp", "--archive", PROJECT / name, folder)
    for name in KEPT_BESIDE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(SECRET)
    return folder


class Container:
    """
    A container of the image in a network of its own; programs of this machine run in that network too, whatever dockerd's.

    :param folder: Mounted at the same path.
    """

    def __init__(self, image: str, folder: Path) -> None:
        self.config = f"ETCDKEEP_CONFIG={folder}/clusters.yaml"
        self.id = call(
            "docker", "run", "--detach", "--read-only", "--user", f"{USER}:0", "--cap-drop", "ALL",
            "--security-opt", "no-new-privileges", "--network", "none", "--tmpfs", "/tmp:mode=1777",
            "--tmpfs", f"/{AIRFLOW}/logs:uid={USER}", "--shm-size", "512m", "--volume", f"{folder}:{folder}",
            "--env", self.config, "--env", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=sqlite:////tmp/airflow.db",
            image, "sleep", "900",
        ).strip()  # fmt: skip
        self._process = call("docker", "inspect", "--format", "{{.State.Pid}}", self.id).strip()

    def run(self, *argv: object) -> str:
        return call("docker", "exec", self.id, *argv)

    def beside(self, *argv: object) -> str:
        """Run Python of this machine, as its root, in the container's network."""
        path = f"PYTHONPATH={PROJECT}/include:{PROJECT}/plugins:{PROJECT}"
        return call(
            "nsenter", "--net", "--target", self._process, "--", "env", path, self.config, sys.executable, *argv
        )

    def remove(self) -> None:
        call("docker", "rm", "--force", self.id)


@pytest.fixture(scope="module")
def container(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("site")
    made = Container(image, folder)
    try:
        with lab_beside(made, folder / "lab"):
            document = yaml.safe_load((folder / "lab/clusters.yaml").read_text())
            for entry in document["clusters"]:
                entry["repository"] = f"file://{folder}/repository"
            document["defaults"]["drill"]["etcd_dir"] = "/usr/local/bin"
            (folder / "clusters.yaml").write_text(yaml.safe_dump(document))
            call("chown", "-hR", f"{USER}:0", folder)  # as a site mounts secrets: for the image's user
            yield made
    finally:
        made.remove()


@contextmanager
def lab_beside(container: Container, folder: Path) -> Iterator[None]:
    try:
        container.beside("-m", "lab", "up", "--detach", "--dir", folder)
        yield
    finally:
        container.beside("-m", "lab", "down", "--dir", folder)


def test_it_is_the_image_that_the_deployments_expect(container: Container) -> None:
    assert container.run("id", "-u").strip() == str(USER)
    assert container.run("python", "-m", "etcdkeep", "--version") == f"etcdkeep, version {__version__}\n"
    for program in PROGRAMS:
        container.run(program, "version" if program in ETCD_TOOLS else "--version")
    with pytest.raises(RuntimeError, match="Read-only file system"):
        container.run("touch", f"/{AIRFLOW}/dags/planted.py")


def test_no_secret_is_in_its_layers_or_history(image: str) -> None:
    ours = (PROJECT / "dags/restore.py").read_bytes()[:200]
    sought = {SECRET.encode(): False, b"--require-hashes -r /tmp/requirements.lock": True, ours: True}
    assert found_in(image, tuple(sought)) == sought


def found_in(image: str, sought: tuple[bytes, ...]) -> dict[bytes, bool]:
    """Say which byte strings are in an image as `docker push` would send it: its layers, configuration and history."""
    found, before = dict.fromkeys(sought, False), b""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        while chunk := saving.stdout.read(1 << 22):
            for each in sought:
                found[each] |= each in before + chunk
            before = chunk[-max(map(len, sought)) :]
    assert saving.returncode == 0
    return found


def test_a_backup_in_it_is_good_inside_and_outside(container: Container) -> None:
    container.run("airflow", "db", "migrate")
    container.run("airflow", "dags", "test", "backup__harbor")
    (found,) = json.loads(container.run("python", "-m", "etcdkeep", "list", "harbor", "--json"))
    assert (found["state"], found["levels"]) == ("good", ["stored", "sealed", "etcd", "pki"])
    verified = json.loads(container.beside("-m", "etcdkeep", "verify", "harbor", "--no-record", "--json"))
    assert (verified["ok"], verified["levels"]) == (True, found["levels"])
