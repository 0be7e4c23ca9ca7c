"""Field types that no stored document can make larger than life."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from etcdkeep import bounded


@pytest.mark.parametrize(
    ("kind", "sound", "refused"),
    [
        pytest.param(bounded.Count, ["0", str(2**63 - 1)], ["-1", str(2**63), "1" * 400, "1" * 9000], id="count"),
        pytest.param(bounded.Hash32, ["0", str(2**32 - 1)], ["-1", str(2**32)], id="hash"),
        pytest.param(bounded.Seconds, ["0", "12.5"], ["-1", "1e10", "NaN", "Infinity"], id="seconds"),
        pytest.param(bounded.Sha256, [f'"{"a" * 64}"'], ['"a"', f'"{"A" * 64}"', f'"{"a" * 64}x"'], id="digest"),
        pytest.param(bounded.Word, ['""', f'"{"x" * 300}"'], [f'"{"x" * 301}"'], id="word"),
        pytest.param(bounded.Sentences, ['["x"]'], [f'["{"x" * 4001}"]', str(["x"] * 10_001).replace("'", '"')], id="sentences"),
        pytest.param(bounded.Moment, ['"2026-11-23T02:30:00Z"'], ['"2026-11-23T02:30:00"'], id="moment"),
    ],
)  # fmt: skip
def test_what_is_larger_than_life_is_refused(kind: Any, sound: list[str], refused: list[str]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for text in sound:
        adapter.validate_json(text)
    for text in refused:
        with pytest.raises(ValidationError):
            adapter.validate_json(text)
