"""JSON that comes out as it went in."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.objects.decoding.exact_json import ExactNumber, dumps, loads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    "text",
    [
        "1.50",
        "1E+2",
        "-0",
        "0.1000000000000000055511151231257827",
        "1e400",
        "9" * 5000,
        '"\\ud800"',
        '"\\u00e9"',
        "1.5",
    ],
)
def test_text_survives(text: str) -> None:
    document = f'{{"a":[{text},{{}},[]]}}'
    assert dumps(loads(document)) == document


def test_exact_number_is_a_number() -> None:
    number = loads("1.50")
    assert number == 1.5
    assert isinstance(number, ExactNumber)
    assert pickle.loads(pickle.dumps(number)).text == copy.deepcopy(number).text == "1.50"


@given(JSON)
def test_same_as_the_standard_library(value: object) -> None:
    assert dumps(value) == json.dumps(value, separators=(",", ":"))
    assert json.loads(dumps(value, indent=2)) == value
    assert dumps(value, indent=2) == json.dumps(value, indent=2)
    assert loads(dumps(value)) == value


@pytest.mark.parametrize("text", ["", "{", "NaN", "Infinity", "[1,]", "'a'", "[" * 100_000], ids=lambda text: text[:9])
def test_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        loads(text)
