"""``objects list`` against the API server's own JSON of a real control plane, object by object."""

from __future__ import annotations

import tarfile
from pathlib import Path

from etcdkeep.objects.decoding import exact_json
from tests.objects_command import objects

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
# The recording holds private keys, so it lies beside the project, where there is one; pieces of it are in tests/data.
__test__ = FIXTURES.exists()


def test_whole_control_plane() -> None:
    listed = exact_json.loads(objects("list", FIXTURES / "admin-snapshot.db", "-o", "json"))["items"]
    ours = {_identity(each): each for each in listed}
    theirs = {}
    with tarfile.open(FIXTURES / "admin-objects.tar.gz") as archive:
        for name in archive.getnames():
            member = archive.extractfile(name)
            if member and name.endswith(".json") and not name.endswith(("INDEX.json", "events.k8s.io.json")):
                items = exact_json.loads(member.read())["items"]
                theirs |= {_identity(each): each for each in items if each["kind"] != "ComponentStatus"}
    assert len(ours) == 594
    assert ours == theirs


def _identity(each: dict[str, object]) -> tuple[object, ...]:
    metadata = each["metadata"]
    assert isinstance(metadata, dict)
    return each["apiVersion"], each["kind"], metadata.get("namespace"), metadata["name"]
