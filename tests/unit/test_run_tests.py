"""`make test` runs each test file once, and neither a failure nor an end by a signal is lost among the parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tools import run_tests
from tools.run_tests import Ended

PROJECT = Path(__file__).parents[2]
PASSES = "def test_one():\n    assert True\n"
FAILS = "def test_two():\n    assert 1 == 2, 'two is not one'\n"


def files_of(part: str) -> list[Path]:
    """Return the test files that pytest collects for a part: those below its paths, without what it ignores."""
    arguments = run_tests.arguments_of(part)
    ignored = [PROJECT / each.partition("=")[2] for each in arguments if each.startswith("--ignore=")]
    found = [PROJECT / each for each in arguments if not each.startswith("--")]
    files = [file for path in found for file in ([path] if path.is_file() else path.rglob("test_*.py"))]
    return [file for file in files if not any(path in (file, *file.parents) for path in ignored)]


def test_every_test_file_is_in_exactly_one_part() -> None:
    assert all((PROJECT / path).exists() for paths in run_tests.PARTS.values() for path in paths)
    found = Counter(file for part in run_tests.PARTS for file in files_of(part))
    assert found == Counter((PROJECT / "tests").rglob("test_*.py"))
    assert all(files_of(part) for part in run_tests.PARTS)


@pytest.mark.parametrize(
    ("code", "expected"),
    [pytest.param(0, 0, id="passed"), pytest.param(1, 1, id="failed"), pytest.param(-9, 1, id="killed")],
)
def test_one_part_that_did_not_pass_is_a_failure(code: int, expected: int) -> None:
    output = b"noise\nFAILED tests/test_it.py::test_two - two is not one\n"
    parts = [Ended("second", code, 1.0, 3.0, output), Ended("first", 0, 2.0, 4.0, b"FAILED is a word\n")]
    assert run_tests.exit_code(parts) == expected
    failed = ["  FAILED tests/test_it.py::test_two - two is not one"] if expected else []
    last = [f"second: exit {code} after 1 s, 3 s of processor", *failed]
    assert [line for line in run_tests.summary(parts).splitlines() if line in last] == last
    assert "a word" not in run_tests.summary(parts)


def test_the_log_has_each_part_and_ends_with_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for name, text in (("first", PASSES), ("second", FAILS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "test_it.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra -p no:cacheprovider --import-mode=importlib\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_tests, "PARTS", {"first": ("first",), "second": ("second",)})
    assert run_tests.run_all() == 1
    log, _, end = capfdbinary.readouterr().out.decode().partition("##### all parts")
    assert "1 passed" in log
    assert "assert 1 == 2" in log
    assert "second: exit 1" in end
    assert "FAILED second/test_it.py::test_two - AssertionError: two is not one" in end
