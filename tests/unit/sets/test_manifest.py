"""The manifest as a document: exact bytes, and later versions of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.errors import ObjectDamaged
from etcdkeep.sets.manifest import BackupRun, parse_manifest
from tests.builders import make_artifact, make_manifest, make_reported


def test_it_comes_back_as_it_was_and_gives_the_same_bytes():
    manifest = make_manifest()
    assert parse_manifest("m", manifest.to_bytes()) == manifest
    assert parse_manifest("m", manifest.to_bytes()).to_bytes() == manifest.to_bytes()
    assert manifest.to_bytes().endswith(b"}\n")


@given(st.text(), st.booleans())
def test_any_reason_survives(reason, pinned):
    try:
        reason.encode()
    except UnicodeEncodeError:
        return
    manifest = make_manifest(run=BackupRun(dag_id="d", run_id="r", reason=reason, pinned=pinned))
    assert parse_manifest("m", manifest.to_bytes()).run == manifest.run


def test_keys_of_a_later_release_are_kept_out_of_the_way():
    document = json.loads(make_manifest().to_bytes())
    document |= {"new": 1}
    document["artifacts"][0] |= {"new": {}}
    document["members"][0] |= {"new": []}
    assert parse_manifest("m", json.dumps(document).encode()) == make_manifest()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"schema_version": 2}, "schema_version: Input should be 1", id="later-version"),
        pytest.param({"cluster": None}, "cluster: Input should be a valid string", id="no-cluster"),
        pytest.param({"artifacts": [{}]}, "artifacts.0.name: Field required", id="empty-artifact"),
    ],
)
def test_another_document_is_refused_with_what_is_wrong(change, said):
    data = json.dumps({**json.loads(make_manifest().to_bytes()), **change}).encode()
    with pytest.raises(
        ObjectDamaged, match=r"^harbor/x/manifest\.json is not a manifest of schema_version 1: "
    ) as caught:
        parse_manifest("harbor/x/manifest.json", data)
    assert said in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{", b"null"])
def test_bytes_that_are_no_document_are_refused(data):
    with pytest.raises(ObjectDamaged):
        parse_manifest("m", data)


@pytest.mark.parametrize(
    ("version", "rule"),
    [("3.4.27", "total_keys"), ("3.5.16", "total_keys"), ("3.6.0", "live_keys"), ("3.10.1", "live_keys"), ("v4.0", "live_keys")],
)  # fmt: skip
def test_what_a_tool_counts_goes_by_its_version(version, rule):
    assert make_reported(tool_version=version).counted == rule


def test_an_artifact_is_found_by_kind():
    artifacts = (make_artifact(), make_artifact("access.tar.zst.age", kind="access"))
    manifest = make_manifest(artifacts=artifacts)
    assert manifest.artifact("access") == artifacts[1]
    assert manifest.artifact("control-plane") is None
    assert manifest.stored_bytes == 2 * 4096
