"""Text that others wrote, as a terminal, a log and a form may show it."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etcdkeep import errors, plain_text
from etcdkeep.plain_text import lines, markdown, markdown_code, number, one_line

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4K\x07"
NASTY = st.text(
    st.one_of(st.characters(), st.sampled_from("\x1b]\\[P^_X;m\x07\x9b\x9d\x9c\x90\u202e\u2066\u200b\n\r\x85"))
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain ünïcode 漢字", "plain ünïcode 漢字", id="letters"),
        pytest.param(f"a{CLIPBOARD}b", "ab", id="osc-bell"),
        pytest.param("a\x1b]0;title\x1b\\b", "ab", id="osc-st"),
        pytest.param("a\x9d0;title\x9cb", "ab", id="osc-c1"),
        pytest.param("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb", id="hyperlink"),
        pytest.param("a\x1bPq#0\x1b\\b", "ab", id="dcs"),
        pytest.param("a\x1b[31;1mred\x1b[0mb\x1b[2J\x9b2K", "aredb", id="csi"),
        pytest.param("a\x1bcb\x1b(0c", "abc", id="short"),
        pytest.param("a\x1b]0;never ends, and says more", "a0;never ends, and says more", id="unended"),
        pytest.param("a\x1b[", "a", id="cut"),
        pytest.param("abc\b\b\bx\x7f\x00", "abcx", id="c0-and-del"),
        pytest.param("a\x80\x86b", "ab", id="c1"),
        pytest.param("a\u202etxt.exe\u202c \u2066x\u2069\u200e", "atxt.exe x", id="bidi"),
        pytest.param("a\u200bb\u2060c\ufeffd\u00ade", "abcde", id="zero-width"),
        pytest.param("a\nb\r\nc\rd\x0be\x0cf\x85g\u2028h\u2029i\tj", "a b c d e f g h i j", id="line-ends"),
        pytest.param("a\ud800b", "a\ufffdb", id="surrogate"),
        pytest.param("  a \u00a0\u3000 b ", "a b", id="blanks"),
    ],
)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_lines_keep_their_breaks_and_indents_but_no_other_line_end() -> None:
    assert lines("a:\n  b\r\n\n  c\u2028d\x85e\rf\x1b[2J\tg") == "a:\n  b\n\n  c d e f g"


def test_both_are_bounded() -> None:
    assert one_line(f"{10**400} bytes") == lines(f"{10**400} bytes") == "10000000000000000000… (401 digits) bytes"
    assert one_line("7" * 64) == "7" * 64, "a digest may be all digits"
    assert one_line("x" * 10, 4) == "xxxx…"
    assert lines("x" * 10, 4) == "xxxx…"
    assert len(one_line("x" * 10**6)) == plain_text.LINE_CHARS + 1
    assert len(lines("x" * 10**6)) == plain_text.TEXT_CHARS + 1


@given(NASTY)
@example("\x1b\x1b]0;x\x07]0;y\x07")
@example("\x1b]\x1b[m0;x\x07")
def test_nothing_that_is_shown_is_obeyed(text: str) -> None:
    assert one_line(text).isprintable()
    assert lines(text).replace("\n", "").isprintable()
    assert markdown(text).isprintable()
    assert one_line(one_line(text)) == one_line(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_what_is_printable_stays(text: str) -> None:
    assert one_line(text, len(text)) == text or re.search("[0-9]{65}", text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (-3, "-3"), (2**63, str(2**63)), (10**400, "out of range"), (-(10**400), "out of range")],
)
def test_numbers_are_bounded(value: int | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a *b* _c_ `d` ~~e~~", r"a \*b\* \_c\_ \`d\` \~\~e\~\~"),
        ("<script> | [x](y) ![z](q)", r"\<script\> \| \[x\](y) !\[z\](q)"),
        ("&#x202e; &lt;", r"\&\#x202e; \&lt;"),
        ("# head", r"\# head"),
        ("- item", r"\- item"),
        ("+ item", r"\+ item"),
        ("1. item", r"1\. item"),
        ("23) item", r"23\) item"),
        ("=== rule", r"\=== rule"),
        ("2026-11-23 was the day", "2026-11-23 was the day"),
        ("a\n\n# Approved by the boss\n", r"a \# Approved by the boss"),
        (f"a{CLIPBOARD}", "a"),
    ],
)
def test_markdown_shows_it_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"), [("a.b", "`a.b`"), ("a`b``c", "```a`b``c```"), ("`a", "`` `a ``"), ("a\nb\x1b[m", "`a b`")]
)
def test_code_cannot_be_left(text: str, shown: str) -> None:
    assert markdown_code(text) == shown


@pytest.mark.parametrize(
    "error",
    [
        errors.ObjectDamaged(f"manifest{CLIPBOARD} is no manifest\u202e"),
        errors.VerificationFailed("bad:", (f"one{CLIPBOARD}\nerror: forged", "two")),
        errors.RollbackIncomplete("not whole:", remaining=(f"# {CLIPBOARD}",)),
    ],
)
def test_no_error_of_ours_carries_a_control(error: errors.EtcdkeepError) -> None:
    assert str(error).replace("\n", "").isprintable()


def test_a_problem_of_a_list_stays_on_its_line() -> None:
    error = errors.VerificationFailed("bad:", ("one\nerror: forged", "two"))
    assert str(error).split("\n") == ["bad:", "  one error: forged", "  two"]
