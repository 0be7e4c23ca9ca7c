"""
Write the round-trip vectors that Kubernetes publishes with its API types into the tests' data.

    python tools/kubernetes_vectors.py -o tests/data/objects/vectors.json.zst golang-k8s-api-dev_*.deb

Each release's ``testdata`` holds every kind as stored protobuf and as JSON, all fields set; a vector that several
releases share is kept once. The packages are those that ``kubernetes_schema.py`` takes.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import zstandard

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "include"))

from etcdkeep.objects.decoding import schema


def vectors(package: Path) -> dict[bytes, dict[str, object]]:
    """Return {stored bytes: {release, json}} of every stored kind in one package's test data."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], check=True, stdout=subprocess.PIPE).stdout
    files: dict[tuple[str, str], bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            folder, _, release = member.name.rpartition("/")[0].rpartition("/")
            if folder.endswith("/testdata") and (stream := archive.extractfile(member)):
                files[release, Path(member.name).name] = stream.read()
    found: dict[bytes, dict[str, object]] = {}
    for (release, name), stored in sorted(files.items()):
        content = (
            json.loads(files.get((release, name.removesuffix(".pb") + ".json"), b"{}")) if name.endswith(".pb") else {}
        )
        if f"{content.get('apiVersion')} {content.get('kind')}" in schema.kinds():
            found[stored] = {"release": release, "json": content}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("packages", type=Path, nargs="+")
    arguments = parser.parse_args()
    found: dict[bytes, dict[str, object]] = {}
    for package in arguments.packages:
        for stored, vector in vectors(package).items():
            found.setdefault(stored, vector)
    rows = [{"stored": base64.b64encode(stored).decode(), **vector} for stored, vector in found.items()]
    text = json.dumps(rows, separators=(",", ":"), sort_keys=True).encode()
    arguments.output.write_bytes(zstandard.ZstdCompressor(level=22).compress(text))
    print(f"{len(rows)} vectors", file=sys.stderr)


if __name__ == "__main__":
    main()
