"""A node's files in the backup: its certificates and keys, and what its API server reads beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etcdkeep.naming import CONTROL_PLANE
from etcdkeep.restore.found.config_files import put_back
from etcdkeep.restore.found.members import doubtful
from etcdkeep.restore.judge.finding import Finding, final, note, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.restore.found.config_files import ApiserverFile
    from etcdkeep.restore.found.nodes import NodeFacts
    from etcdkeep.restore.options import Options
    from etcdkeep.sets.manifest import Artifact, Manifest


def archive_of(manifest: Manifest, node: str) -> Artifact | None:
    """Return the artifact with a node's files; None when the set has none."""
    found = (artifact for artifact in manifest.artifacts if artifact.kind == CONTROL_PLANE)
    return next((artifact for artifact in found if artifact.node == node), None)


def judge_archive(manifest: Manifest, node: NodeFacts, options: Options) -> Iterator[Finding]:
    """Yield what it means that the set has no files of a node: a doubtful member keeps its own, others cannot be planned."""
    if archive_of(manifest, node.node) is not None:
        return
    unsure = [member for member in manifest.members if member.node == node.node and doubtful(member)]
    for member in unsure:
        yield warning(
            f"node {node.node} keeps its own certificates and keys: the backup holds none for it ({member.problem})"
        )
    if not unsure and "pki" in options.what:
        yield final(
            f"the backup holds no certificates and keys of node {node.node}; restore etcd alone, or choose another set"
        )


def judge_config(node: NodeFacts, options: Options) -> Iterator[Finding]:
    """Yield how the API server's files beside the PKI differ from the set's; above all the keys of encryption at rest."""
    for file in node.config:
        where = f"node {node.node}: {file.path}"
        if file.then is None:
            yield from _not_in_the_set(where, file, options)
        elif put_back(file, options):
            yield _replaced(where, file)
        elif file.sha256 is None:
            yield problem(
                f"{where}, which kube-apiserver.yaml names, is not on the node, and the API server does not start without "
                "it. Choose `pki` or `config` too, which restore the backup's file"
            )
        elif file.differs and file.encryption and file.lost_keys and "etcd" in options.what:
            yield problem(
                f"{where}: encryption at rest: the node does not have the key(s) {', '.join(file.lost_keys)} of the backup, so its API server could not read the restored data. Choose `pki` or `config` too, which restore the backup's configuration. Or first add these keys behind the newer ones (`unseal` gives them as control-plane/{file.archived})"
            )
        elif file.differs:
            yield note(f"{where} differs from the backup's and stays as it is")


def _not_in_the_set(where: str, file: ApiserverFile, options: Options) -> Iterator[Finding]:
    if file.sha256 is None:
        words = f"{where}, which kube-apiserver.yaml names, is neither on the node nor in the backup"
        yield problem(f"{words}; the API server does not start without it")
    elif file.encryption and "etcd" in options.what:
        words = f"{where}: the backup holds no encryption configuration"
        yield warning(f"{words}; values that it holds encrypted are read with the node's keys")


def _replaced(where: str, file: ApiserverFile) -> Finding:
    if not file.movable:
        words = f"{where} differs from the backup's and is on another file system than the PKI, so that no rename can replace it"
        return problem(f"{words}. Copy it there by hand: `unseal` gives it as control-plane/{file.archived}")
    keys = [f"keys that come back: {', '.join(file.lost_keys)}"] if file.lost_keys else []
    keys += [f"keys that are set aside: {', '.join(file.newer_keys)}"] if file.newer_keys else []
    return warning("; ".join([f"{where} is replaced by the backup's and set aside", *keys]))
