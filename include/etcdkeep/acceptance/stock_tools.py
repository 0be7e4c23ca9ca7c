"""A backup set opened with programs that are not ours: openssl, sha256sum, age, zstd, etcdutl, tar."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from etcdkeep.acceptance.telling import program
from etcdkeep.naming import ETCD_ARTIFACT, MANIFEST, SIGNATURE
from etcdkeep.sealing.signature import public_key_pem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from etcdkeep.ports import ObjectStore
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.sets.manifest import Artifact, Manifest


class StockTools:
    """
    The checks of docs/open-a-backup.md on one set.

    :param identity: File with the private age key.
    :param folder: An empty private folder for the plain files; the caller removes it.
    """

    def __init__(
        self, store: ObjectStore, found: BackupSet, public_keys: tuple[str, ...], identity: Path, folder: Path
    ) -> None:
        self.store = store
        self.found = found
        self.public_keys = public_keys
        self.identity = identity
        self.folder = folder

    def checks(self) -> Iterator[tuple[str, Callable[[], str]]]:
        """Yield each check's name and work, which says what it saw; they are made in this order."""
        manifest = self.found.manifest
        if manifest is None:
            raise ValueError(f"{self.found.name} has no usable manifest: {self.found.problem}")
        yield "openssl pkeyutl -verify manifest.json", self._signature
        for artifact in manifest.artifacts:
            yield f"age -d {artifact.name} | zstd -d | sha256sum", partial(self._open, artifact)
            if artifact.name == ETCD_ARTIFACT:
                yield "etcdutl snapshot status", lambda: self._status(manifest)
                yield "etcdutl snapshot restore", self._restore
            else:
                yield "tar -x", partial(self._untar, artifact)
            if artifact.kind == "control-plane":
                yield "openssl x509 pki/ca.crt", partial(self._authority, artifact)

    def _signature(self) -> str:
        for name, data in ((MANIFEST, self.found.manifest_bytes), (SIGNATURE, self.found.signature)):
            (self.folder / name).write_bytes(data)
        for index, key in enumerate(self.public_keys):
            pem = self.folder / f"signing-{index}.pem"
            pem.write_text(public_key_pem(key))
            argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(pem), "-rawin"]
            argv += ["-in", str(self.folder / MANIFEST), "-sigfile", str(self.folder / SIGNATURE)]
            if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
                return f"signed by {key}"
        raise ValueError(f"signed by none of {', '.join(self.public_keys)}")

    def _open(self, artifact: Artifact) -> str:
        sealed, plain = self.folder / artifact.name, self._plain(artifact)
        with self.store.open(f"{self.found.name}/{artifact.name}") as source, sealed.open("xb") as copy:
            shutil.copyfileobj(source, copy, 2**20)
        with plain.open("xb") as out:
            opening = subprocess.Popen(
                ["age", "-d", "-i", self.identity, sealed], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            expanding = subprocess.run(
                ["zstd", "-dq"], stdin=opening.stdout, stdout=out, stderr=subprocess.PIPE, check=False
            )
            _, said = opening.communicate()
        sealed.unlink()
        if opening.returncode or expanding.returncode:
            raise ValueError(
                f"age or zstd failed: {said.decode(errors='replace')}{expanding.stderr.decode(errors='replace')}"
            )
        digest = _run("sha256sum", plain).split()[0]
        if (digest, plain.stat().st_size) != (artifact.plaintext.sha256, artifact.plaintext.size_bytes):
            raise ValueError(f"SHA-256 is {digest}, the manifest says {artifact.plaintext.sha256}")
        return f"{plain.stat().st_size} bytes, digest as in the manifest"

    def _status(self, manifest: Manifest) -> str:
        told = json.loads(_run(program("etcdutl"), "snapshot", "status", self.folder / "etcd.db", "--write-out=json"))
        reported = manifest.snapshot
        ours = (reported.hash, reported.revision, reported.size_bytes)
        if (told["hash"], told["revision"], told["totalSize"]) != ours:
            raise ValueError(f"etcdutl says {told}, the member reported {ours}")
        return f"hash {told['hash']:08x}, revision {told['revision']}, {told['totalKey']} keys, as the member reported"

    def _restore(self) -> str:
        data = self.folder / "restored"
        _run(program("etcdutl"), "snapshot", "restore", self.folder / "etcd.db", "--data-dir", data)
        size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
        shutil.rmtree(data)
        return f"a data directory of {size} bytes; the trailer's SHA-256 fits"

    def _untar(self, artifact: Artifact) -> str:
        target = self._folder(artifact)
        target.mkdir()
        _run("tar", "-xf", self._plain(artifact), "-C", target)
        return f"{sum(path.is_file() for path in target.rglob('*'))} files"

    def _authority(self, artifact: Artifact) -> str:
        return _run(
            "openssl", "x509", "-in", self._folder(artifact) / "pki/ca.crt", "-noout", "-subject", "-enddate"
        ).replace("\n", " ")

    def _plain(self, artifact: Artifact) -> Path:
        return self.folder / artifact.name.removesuffix(".zst.age")

    def _folder(self, artifact: Artifact) -> Path:
        return self.folder / artifact.name.removesuffix(".tar.zst.age")


def _run(*argv: str | Path) -> str:
    return subprocess.run(argv, capture_output=True, check=True).stdout.decode().strip()
