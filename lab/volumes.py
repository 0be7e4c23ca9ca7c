"""Volumes of a pod as folders of its node, "mounted" by a symlink at the mount path."""

from __future__ import annotations

import base64
import os
import shutil
from typing import TYPE_CHECKING, Any

from lab.kube import Kube, KubeError

if TYPE_CHECKING:
    from pathlib import Path

    from lab.layout import Node


class MountError(Exception):
    """A volume cannot be had."""


async def mount_volumes(node: Node, kube: Kube, pod: dict[str, Any]) -> None:
    """
    Make a pod's volumes and put each where its containers expect it.

    Static pods name paths of the node itself, which exist as they are. Any other mount path has to be inside the
    node's tree: nothing outside the lab is changed.

    :raises MountError: with the reason that the pod's status shows.
    """
    namespace = pod["metadata"]["namespace"]
    folders = {
        volume["name"]: await _folder(node, kube, namespace, pod["metadata"]["uid"], volume)
        for volume in pod["spec"].get("volumes", ())
    }
    for container in pod["spec"]["containers"]:
        for mount in container.get("volumeMounts", ()):
            source = folders.get(mount["name"])
            if source is None:
                raise MountError(f"volume {mount['name']!r} of container {container['name']!r} is not in the pod")
            _link(node, node.real(mount["mountPath"]), source / mount.get("subPath", ""))


async def _folder(node: Node, kube: Kube, namespace: str, uid: str, volume: dict[str, Any]) -> Path:
    own = node.root / "var/lib/kubelet/pods" / uid / "volumes" / volume["name"]
    if "hostPath" in volume:
        folder = node.real(volume["hostPath"]["path"])
        _inside(node, folder)
        if volume["hostPath"].get("type") == "DirectoryOrCreate":
            folder.mkdir(parents=True, exist_ok=True)
        return folder
    if "persistentVolumeClaim" in volume:
        return await claim_folder(node, kube, namespace, volume["persistentVolumeClaim"]["claimName"])
    own.mkdir(parents=True, exist_ok=True)
    try:
        if "secret" in volume:
            name = volume["secret"]["secretName"]
            secret = await kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
            _write_files(own, {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()})
        elif "configMap" in volume:
            config = await kube.get(f"/api/v1/namespaces/{namespace}/configmaps/{volume['configMap']['name']}")
            _write_files(own, {key: value.encode() for key, value in config.get("data", {}).items()})
        elif "emptyDir" not in volume:
            raise MountError(
                f"volume {volume['name']!r}: the lab knows hostPath, secret, configMap, emptyDir and claims"
            )
    except KubeError as err:
        raise MountError(f'MountVolume.SetUp failed for volume "{volume["name"]}": {err}') from err
    return own


async def claim_folder(node: Node, kube: Kube, namespace: str, name: str) -> Path:
    """Return the folder of a bound PersistentVolumeClaim."""
    try:
        claim = await kube.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
        volume_name = claim["spec"].get("volumeName")
        if not volume_name:
            raise MountError(f'persistentvolumeclaim "{name}" is not bound')
        volume = await kube.get(f"/api/v1/persistentvolumes/{volume_name}")
    except KubeError as err:
        raise MountError(f"claim {namespace}/{name}: {err}") from err
    folder = node.real(volume["spec"]["hostPath"]["path"])
    _inside(node, folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)


def _link(node: Node, place: Path, source: Path) -> None:
    if place == source or place.resolve() == source.resolve():
        return
    _inside(node, place)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    elif place.is_dir():
        try:
            place.rmdir()
        except OSError as err:
            raise MountError(f"{place} is a folder with files in it, not a mount point") from err
    place.symlink_to(source)


def _inside(node: Node, path: Path) -> None:
    if not path.is_relative_to(node.root):
        raise MountError(f"{path} lies outside the node's tree {node.root}; the lab mounts nothing there")


def forget_volumes(node: Node, uid: str) -> None:
    """Remove what a pod's own volumes left."""
    shutil.rmtree(node.root / "var/lib/kubelet/pods" / uid, ignore_errors=True)
