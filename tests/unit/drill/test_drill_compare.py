"""Each way in which a restored etcd may differ from its backup."""

from __future__ import annotations

import pytest

from etcdkeep.drill.compare import compare_contents, find_undecodable
from etcdkeep.drill.contents import OTHER, Contents, LiveKey, Tallies

POD = LiveKey(b"/registry/pods/default/web", 2, 3, 1, 0, b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"}}')
NODE = POD._replace(key=b"/registry/minions/n1")


def contents(*keys: LiveKey, revision: int = 9, hash_kv: int = 7) -> Contents:
    tallies = Tallies()
    tallies.add(keys)
    return Contents(revision, hash_kv, tallies)


def test_the_same_has_no_problem():
    assert compare_contents(contents(POD, NODE), contents(NODE, POD)) == []


@pytest.mark.parametrize(
    ("served", "said"),
    [
        pytest.param(contents(POD, NODE, revision=8), ["is at revision 8, the snapshot at 9"], id="revision"),
        pytest.param(contents(POD), ["serves 1 keys, the snapshot holds 2", "nodes: the restored etcd serves 0 keys, the snapshot holds 1"], id="lost"),
        pytest.param(contents(POD, NODE, NODE), ["serves 3 keys", "nodes: the restored etcd serves 2 keys"], id="added"),
        pytest.param(contents(POD, NODE._replace(key=b"/other")), [f"{OTHER}: the restored etcd serves 1 keys, the snapshot holds 0", "nodes: "], id="moved"),
        pytest.param(contents(POD, NODE._replace(value=b"x")), ["nodes: 1 keys on both sides, but different values"], id="value"),
        pytest.param(contents(POD, NODE, hash_kv=8), ["HashKV of the restored etcd is 8 at revision 9, of the snapshot 7"], id="hash-kv"),
    ],
)  # fmt: skip
def test_each_difference_is_said(served, said):
    problems = compare_contents(served, contents(POD, NODE))
    assert len(problems) == len(said), problems
    for problem, words in zip(problems, said, strict=True):
        assert words in problem


def test_no_key_is_named_and_the_list_is_short():
    keys = [POD._replace(key=b"/registry/kind%02d/default/secret-name" % number) for number in range(30)]
    problems = compare_contents(contents(), contents(*keys))
    assert len(problems) == 12
    assert problems[-1] == "... and 20 more resources differ"
    assert "secret-name" not in str(problems)


@pytest.mark.parametrize(
    ("sample", "odd"),
    [
        pytest.param(POD, False, id="json"),
        pytest.param(POD._replace(value=b"k8s:enc:aescbc:v1:key1:xyz"), False, id="encrypted"),
        pytest.param(POD._replace(value=b"garbage"), True, id="no-object"),
        pytest.param(POD._replace(key=b"/compact_rev_key", value=b"7"), False, id="no-resource"),
    ],
)
def test_a_sample_that_is_no_object_is_told_and_condemns_nothing(sample, odd):
    tallies = Tallies()
    tallies.add([sample])
    found = find_undecodable(tallies.samples)
    assert bool(found) is odd
    assert not odd or "stores: pods" in found[0]


def test_many_odd_samples_make_one_sentence():
    samples = {f"kind{number:02}": replace_value(POD) for number in range(12)}
    (sentence,) = find_undecodable(samples)
    assert sentence.endswith("kind09 and 2 more")


def replace_value(key: LiveKey) -> LiveKey:
    return key._replace(value=b"garbage")
