"""The real docker of this machine, and an image as the vendor's, made of the environment's etcd programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.tools import ETCD_TOOLS, etcd_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE = "gcr.io/gke-on-prem-release/etcd-util:TEST"
ANSWER_S = 60


def missing() -> str | None:
    """Say what a restore in real containers lacks on this machine; None when nothing."""
    if os.geteuid() != 0:
        return "needs root, to whom belongs what a container of docker writes"
    if shutil.which("docker") is None:
        return "needs docker: apt-get install docker.io"
    try:
        docker("info")
    except (RuntimeError, subprocess.TimeoutExpired) as err:
        return f"needs a dockerd that answers (.ci/run starts one): {err}"
    return None


def docker_environment() -> dict[str, str]:
    """Return what tells a docker client that is started with nothing else in its environment where its daemon is."""
    return {name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ}


def docker(*args: str) -> str:
    """Run the docker client and return its output; :raises RuntimeError: with its words when it fails."""
    done = subprocess.run(("docker", *args), capture_output=True, text=True, timeout=ANSWER_S, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(args)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def imported(image: str, programs: Sequence[str] = ETCD_TOOLS) -> Iterator[str]:
    """
    Make an image that holds nothing but these programs, for the length of the block; they are linked statically.

    :return: Its id.
    """
    with subprocess.Popen(("docker", "import", "-", image), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        assert importing.stdout is not None
        with importing.stdin, tarfile.open(fileobj=importing.stdin, mode="w|") as archive:
            for name in programs:
                archive.add(etcd_folder() / name, f"usr/local/bin/{name}")
        image_id = importing.stdout.read().decode().strip()
    try:
        yield image_id
    finally:
        docker("image", "rm", "--force", image_id)
