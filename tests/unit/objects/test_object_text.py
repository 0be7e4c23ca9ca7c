"""YAML that Go and Python read alike, keys and their inverse, and what hostile values can do to a list: nothing."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etcdkeep.errors import ValueDamaged
from etcdkeep.objects import yaml_text
from etcdkeep.objects.decoding import exact_json
from etcdkeep.objects.decoding.schema import kinds
from etcdkeep.objects.entries import entry_of, type_of
from etcdkeep.objects.history import changed_paths
from etcdkeep.objects.keys import object_key, parse_key
from etcdkeep.objects.labels import labels_of, parse_selector
from etcdkeep.objects.resources import built_in
from etcdkeep.snapshot import Record
from tests.kubernetes_values import control_plane

# What go-yaml takes for something else than a string, and PyYAML does not.
GO_SCALARS = re.compile(r"[-+.]?[0-9].*|[-+]?\.(inf|nan)|~|null|true|false|yes|no|on|off|y|n", re.IGNORECASE)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
words = st.from_regex(r"[-+.]?[0-9][0-9a-fxo_.:e+-]{0,8}|[yn~=]|on|off|null|\.inf", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | words, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(json_values)
def test_yaml_reads_back_as_it_was(value):
    assert yaml.safe_load(yaml_text.dumps({"value": value})) == {"value": value}


@settings(deadline=None, max_examples=200)
@given(texts | words)
def test_what_go_might_misread_is_quoted(text):
    written = yaml_text.dumps([text]).removeprefix("- ").rstrip("\n")
    assert written[:1] in "'\"|" or not GO_SCALARS.fullmatch(written)


@pytest.mark.parametrize("number", ["1.50", "1E+2", "1e22", "-0", "9" * 500, "0.1", "9007199254740993"])
def test_numbers_keep_their_text(number):
    assert yaml_text.dumps(exact_json.loads(f'{{"value":{number}}}')) == f"value: {number}\n"


def test_texts_of_several_lines_are_blocks():
    assert yaml_text.dumps({"data": "a: b\nc\n"}) == "data: |\n  a: b\n  c\n"


@given(st.text())
@example("x\x1b]0;t\x07\n\u202etxt.exe\n")
@example("é\u202e")
@example("line\nline\x85\u2028\x7f\n")
def test_yaml_tells_a_terminal_nothing(text):
    written = yaml_text.dumps({text: [text]})
    assert written.replace("\n", "").isprintable()
    assert yaml.safe_load(written) == {text: [text]}


def test_yaml_leaves_letters_readable():
    assert yaml_text.dumps(["Grüße: 漢字"]) == '- "Grüße: 漢字"\n'


@pytest.mark.parametrize("recorded", control_plane(), ids=lambda each: each.key.decode())
def test_recorded_keys_and_labels(recorded):
    if recorded.json is None:
        return
    place = parse_key(recorded.key)
    assert object_key(place.group, place.resource, place.namespace, place.name) == recorded.key
    assert dict(labels_of(recorded.stored)) == recorded.json["metadata"].get("labels", {})
    api_version, kind = type_of(recorded.stored)
    assert kind == recorded.json["kind"]
    assert api_version == recorded.json["apiVersion"] or kind == "CustomResourceDefinition"


def test_every_stored_kind_of_the_schema_has_its_names():
    listed = {each.resource.kind for each in built_in().values()} | {"RangeAllocation"}
    assert {kind.split()[1] for kind in kinds()} <= listed


def record(key, value):
    return Record(key, 5, 0, False, 2, 1, 0, 0, len(value))


heads = st.sampled_from([b"", b"k8s\0", b"k8s\0\n", b"k8s\0\n\x0f\n\x02v1\x12\x09ConfigMap", b"{", b"\xd9\xd9\xf7", b"k8s:enc:", b'{"kind":"'])  # fmt: skip
folders = st.sampled_from([b"", b"/registry/", b"/registry/pods/", b"/registry/a.b/c/", b"/registry/services/"])


@settings(deadline=None, max_examples=400)
@given(folders, st.binary(max_size=12), heads, st.binary(max_size=40))
def test_any_key_and_value_makes_an_entry(folder, rest, head, tail):
    key, value = folder + rest, head + tail
    entry = entry_of(record(key, value), value)
    assert entry.key_bytes == key
    assert entry.size_bytes == len(value)
    parsed = parse_key(key)
    if not entry.other:
        assert (entry.resource, entry.namespace, entry.name) == (parsed.resource, parsed.namespace, parsed.name)
    if parsed.other:
        assert entry.other == parsed.other


@settings(deadline=None, max_examples=400)
@given(heads, st.binary(max_size=40))
def test_labels_of_any_value(head, tail):
    try:
        labels = labels_of(head + tail)
    except ValueDamaged:
        return
    assert isinstance(labels, dict)


@settings(deadline=None, max_examples=400)
@given(st.text('abc=!,() <>in/-."', max_size=20))
def test_any_text_is_a_selector_or_refused(text):
    try:
        requirements = parse_selector(text)
    except ValueError:
        return
    assert all(requirement.holds({}) in (True, False) for requirement in requirements)


@given(json_values, json_values)
def test_changed_paths_are_empty_only_for_equal_objects(before, after):
    assert list(changed_paths(before, before)) == []
    if before != after:
        assert list(changed_paths({"a": before}, {"a": after}))
