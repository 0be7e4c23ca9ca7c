"""Who etcd runs as, from its pod's securityContext: its data must belong to that user, whoever owns them at the moment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from etcdkeep.safe_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping


def runs_as(spec: Mapping[str, Any], container: Mapping[str, Any]) -> str | None:
    """
    Return ``uid:gid`` of a container's process; None where the pod leaves the user to the image.

    A group that is not set is root's, as the runtimes have it; with an fsGroup, files get that one.

    :param spec: Of the pod; what the container sets itself comes first.
    """
    of_pod, of_container = (_map(each.get("securityContext")) for each in (spec, container))
    both = {**of_pod, **{key: value for key, value in of_container.items() if value is not None}}
    user = both.get("runAsUser")
    if not _is_id(user):
        return None
    groups = (both.get("runAsGroup"), of_pod.get("fsGroup"))
    return f"{user}:{next((group for group in groups if _is_id(group)), 0)}"


def static_pod_runs_as(manifest: bytes, source: str, *, container: str) -> str | None:
    """
    Return ``uid:gid`` that a static pod's container runs as; None where its manifest does not say.

    :param source: The manifest's name, for messages.
    :param container: Its name; the first container stands in where there is none of that name.
    :raises ConfigError: when it is not YAML.
    """
    spec = _map(_map(read_yaml(manifest, source)).get("spec"))
    containers = [each for each in spec.get("containers") or () if isinstance(each, dict)]
    found = next((each for each in containers if each.get("name") == container), containers[0] if containers else {})
    return runs_as(spec, found)


def proper_owner(runs_as: str | None, known: str | None, found: str | None) -> str | None:
    """
    Return the owner that etcd's data are to have.

    :param runs_as: What etcd runs as, where its pod says so: then the others only give the group, where they fit.
    :param known: ``control_plane.data_owner``.
    :param found: Of the live data: right as long as nobody has meddled with them.
    """
    if runs_as is None:
        return known or found
    if runs_as.endswith(":0"):
        user = runs_as.partition(":")[0]
        return next((each for each in (known, found) if each and each.partition(":")[0] == user), runs_as)
    return runs_as


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
