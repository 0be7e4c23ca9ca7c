"""A set that an earlier version published is believed, verifies and restores."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from etcdkeep.adapters.local_etcd.programs import LocalEtcd
from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.drill.run import drill_set
from etcdkeep.records import trust_for_all
from etcdkeep.sealing.age_keys import parse_identities
from etcdkeep.sets.repository import Repository
from etcdkeep.verify.run import verify_set
from tests.builders import make_cluster
from tests.integration.drill.helpers import left_over, settings

SETS = Path(__file__).parents[2] / "data/sets"
KEYS = {"0.2.0": "ju/0ZHRPlqHGZjH//kzGNpQMQKGqJIXR/6nJJwn+lrk="}


@pytest.mark.parametrize("version", KEYS)
def test_a_set_of_an_earlier_version(tmp_path, version):
    shutil.copytree(SETS / version / "repository", tmp_path / "repository")
    repository = Repository(DirectoryStore(tmp_path / "repository"), trust_for_all([KEYS[version]]))
    identities = parse_identities((SETS / version / "age-identity.txt").read_bytes())
    (found,) = repository.sets("harbor")
    assert (found.state, found.problems, found.refused) == ("good", (), ())

    record = verify_set(repository, make_cluster(profile="gke-admin"), found, identities, write_index=False)
    # Its certificates were made for a year: that they have expired is no fault of the set.
    assert [problem for problem in record.problems if "expired" not in problem] == []
    assert record.levels[:3] == ("stored", "sealed", "etcd")

    drill = drill_set(repository, found, identities, LocalEtcd(settings(tmp_path)).open, lambda phase: None)
    assert (drill.problems, drill.levels) == ((), ("drill",))
    assert left_over(tmp_path) == []
