"""What is built from elsewhere is named by digest or hash, never by a name that others can move."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
DIGEST = f"sha256:{'0a' * 32}"


def test_the_image_has_no_base_by_tag() -> None:
    text = (PROJECT / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2
    for base in bases:
        name = re.fullmatch(r"\$\{(\w+)\}", base)
        assert name or re.search(r"@sha256:[0-9a-f]{64}$", base), base
        assert not name or f"\nARG {name[1]}\n" in text, "an argument of a base has no default"


@pytest.mark.parametrize(
    ("etcd", "refused"),
    [
        ("", True),
        ("a/etcd:v3", True),
        (f"a/etcd:v3@{DIGEST[:-1]}", True),
        (f"a/etcd:v3@{DIGEST.upper()}", True),
        (f"@{DIGEST}", True),
        (f"a/etcd:v3@{DIGEST} b", True),
        (DIGEST.removeprefix("sha256:"), True),
        (DIGEST, False),
        (f"a/etcd:v3@{DIGEST}", False),
        (f"a.example:5000/etcd@{DIGEST}", False),
    ],
)
def test_make_refuses_a_base_without_digest(tmp_path: Path, etcd: str, refused: bool) -> None:
    make = shutil.which("make")
    assert make, "make is missing"
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "docker $*"\n')
    docker.chmod(0o700)
    done = subprocess.run(
        [make, "-s", "image", f"ETCD_IMAGE={etcd}", f"AIRFLOW_IMAGE=a/airflow@{DIGEST}"],
        cwd=PROJECT, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == refused, done.stderr
    assert ("named by digest" in done.stderr) == refused
    assert ("docker build" in done.stdout) != refused


def test_every_package_is_installed_by_version_and_hash() -> None:
    for file in ("Makefile", "Dockerfile"):
        installs = re.findall(r"pip install .*", (PROJECT / file).read_text())
        assert installs
        assert all("--require-hashes -r " in each for each in installs), installs
    for lock in ("requirements-bootstrap.lock", "requirements.lock", "requirements-dev.lock"):
        packages = re.split(r"^(?=\S)", (PROJECT / lock).read_text(), flags=re.MULTILINE)[1:]
        assert packages
        for package in packages:
            assert re.match(r"[\w.-]+(\[[\w,-]+\])?==", package), package.splitlines()[0]
            assert "--hash=sha256:" in package
