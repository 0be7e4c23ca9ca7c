"""Signed records: what is believed, and that everything else counts as nothing."""

from __future__ import annotations

import ast
import base64
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.adapters.stores.directory import DirectoryStore
from etcdkeep.documents import Document
from etcdkeep.errors import NotFound, ObjectExists, RecordRefused
from etcdkeep.records import MAX_RECORD_BYTES, Kind, Records, trust_for_all
from etcdkeep.sealing.signature import load_signing_key, public_key_pem
from tests.builders import make_signer, signing_pair

if TYPE_CHECKING:
    from etcdkeep.records import Signed

PROJECT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 23, 4, 15, tzinfo=UTC)


class Note(Document):
    text: str


NOTE = Kind("note", "verify", Note)
OTHER = Kind("another", "verify", Note)
NAME = "prod/notes/one.json"


class Clock:
    """A store's clock is the file system's: records of these tests are made and read at the same moment."""

    def __init__(self) -> None:
        self.offset = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def records(tmp_path: Path, clock: Clock) -> Records:
    return Records(DirectoryStore(tmp_path), trust_for_all([signing_pair()[1]]), make_signer, now=clock)


def write(records: Records, text: str = "hello", name: str = NAME) -> Signed[Note]:
    return records.write(NOTE, name, "prod", "one", Note(text=text))


def put(records: Records, name: str, data: bytes) -> None:
    records.store.delete(name)
    with records.store.create(name) as sink:
        sink.write(data)


def stored(records: Records, name: str = NAME) -> dict[str, Any]:
    with records.store.open(name) as stream:
        document: dict[str, Any] = json.loads(stream.read())
    return document


def word(records: Records, name: str = NAME, *, kind: Any = NOTE, cluster: str = "prod", subject: str = "one") -> str:
    with pytest.raises(RecordRefused) as caught:
        records.read(kind, name, cluster, subject)
    assert "is ignored" in str(caught.value)
    return caught.value.word


def test_a_record_comes_back_with_what_it_is_about(records: Records) -> None:
    made, found = write(records), records.read(NOTE, NAME, "prod", "one")
    assert (found.body, found.digest, found.at) == (Note(text="hello"), made.digest, made.at)


def test_the_same_again_is_stored_once_and_another_is_refused(records: Records) -> None:
    first = write(records)
    assert write(records).digest == first.digest
    with pytest.raises(ObjectExists):
        write(records, "other")


def test_a_forged_one_in_its_place_does_not_pass_for_it(records: Records) -> None:
    put(records, NAME, b"{}")
    with pytest.raises(ObjectExists, match="is not a signed record"):
        write(records)


def test_what_is_not_there_is_not_found(records: Records) -> None:
    with pytest.raises(NotFound):
        records.read(NOTE, NAME, "prod", "one")
    assert records.find(NOTE, NAME, "prod", "one") is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda d: {**d, "payload": d["payload"].replace("hello", "hallo")}, "foreign", id="altered"),
        pytest.param(lambda d: {**d, "signature": base64.b64encode(bytes(64)).decode()}, "foreign", id="no-signature"),
        pytest.param(lambda d: {**d, "signature": "!"}, "unsigned", id="signature-no-base64"),
        pytest.param(lambda d: {"payload": d["payload"]}, "unsigned", id="signature-left-out"),
        pytest.param(lambda d: {**d, "more": 1}, "unsigned", id="more-fields"),
        pytest.param(lambda d: [d], "unsigned", id="a-list"),
        pytest.param(lambda d: {"text": "hello"}, "unsigned", id="the-bare-document"),
    ],
)
def test_what_was_altered_counts_as_nothing(records: Records, change: Any, expected: str) -> None:
    write(records)
    put(records, NAME, json.dumps(change(stored(records))).encode())
    assert word(records) == expected


@pytest.mark.parametrize(
    ("name", "reading"),
    [
        pytest.param("prod/notes/two.json", {}, id="under-another-name"),
        pytest.param("fleet/notes/one.json", {"cluster": "fleet"}, id="in-another-cluster"),
        pytest.param(NAME, {"subject": "two"}, id="as-another-subject"),
        pytest.param(NAME, {"kind": OTHER}, id="as-another-kind"),
    ],
)
def test_a_record_of_something_else_counts_as_nothing(records: Records, name: str, reading: dict[str, Any]) -> None:
    write(records)
    put(records, name, json.dumps(stored(records)).encode())
    assert word(records, name, **reading) == "moved"


def test_a_record_of_the_future_counts_as_nothing_until_then(records: Records, clock: Clock) -> None:
    clock.offset = timedelta(minutes=10)
    write(records)
    clock.offset = timedelta(0)
    assert word(records) == "future"
    clock.offset = timedelta(minutes=6)
    assert records.read(NOTE, NAME, "prod", "one").body.text == "hello"


def test_a_record_whose_file_was_given_another_time_is_believed_all_the_same(records: Records) -> None:
    """Else whoever can set a file's time could hide how a restore ended."""
    write(records)
    found = records.read(NOTE, NAME, "prod", "one", stored_at=datetime.now(UTC) - timedelta(hours=1))
    assert found.body.text == "hello"


def test_an_oddly_named_object_is_told_and_costs_nothing_else(records: Records, tmp_path: Path) -> None:
    write(records)
    (tmp_path / "prod/notes/a\\b.json").write_bytes(b"{}")
    found, refused = records.in_folder(NOTE, "prod/notes/", "prod", "one")
    assert ([each.body.text for each in found], [each.word for each in refused]) == (["hello"], ["unreadable"])


def test_a_key_of_one_purpose_signs_for_no_other(tmp_path: Path) -> None:
    """Who can approve cannot verify, and the other way round."""
    purposes = ("backup", "verify", "approve", "restore")
    trust: Any = {purpose: (signing_pair(purpose)[1],) for purpose in purposes}

    def signer(purpose: str) -> Any:
        return load_signing_key(signing_pair(purpose)[0], [signing_pair(purpose)[1]])

    for held in purposes:
        held_only = Records(DirectoryStore(tmp_path / held), trust, lambda purpose, held=held: signer(held))
        for purpose in purposes:
            kind = Kind("note", purpose, Note)
            name = f"prod/{purpose}.json"
            held_only.write(kind, name, "prod", "one", Note(text=held))
            if held == purpose:
                assert held_only.read(kind, name, "prod", "one").body.text == held
            else:
                assert word(held_only, name, kind=kind) == "foreign"


def test_records_are_in_the_store_s_order(records: Records, clock: Clock) -> None:
    names = [f"prod/notes/{letter}.json" for letter in "cab"]
    for name in names:
        write(records, name, name)
        clock.offset -= timedelta(hours=1)  # a worker whose clock is wrong
    clock.offset = timedelta(0)
    found, refused = records.in_folder(NOTE, "prod/notes/", "prod", "one")
    assert ([each.body.text for each in found], refused) == (names, [])


def test_among_many_a_forged_one_is_told_and_the_rest_believed(records: Records) -> None:
    write(records)
    put(records, "prod/notes/two.json", b"\x00")
    found, refused = records.in_folder(NOTE, "prod/notes/", "prod", "one")
    assert [each.body.text for each in found] == ["hello"]
    assert [(each.name, each.word) for each in refused] == [("prod/notes/two.json", "unsigned")]


def test_a_record_that_travels_as_text(records: Records) -> None:
    text = records.write_text(NOTE, "prod", "one", Note(text="hello"), NOW)
    assert text == records.write_text(NOTE, "prod", "one", Note(text="hello"), NOW), "a retry hands over the same"
    assert records.read_text(NOTE, text, "prod", "one").body.text == "hello"
    for cluster, subject in (("fleet", "one"), ("prod", "two")):
        with pytest.raises(RecordRefused):
            records.read_text(NOTE, text, cluster, subject)
    put(records, NAME, text.encode())
    assert word(records) == "moved", "what was handed over is no stored record"


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode) | st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_bytes_are_believed_or_raise_anything_else(data: bytes) -> None:
    records = Records(object(), trust_for_all([signing_pair()[1]]))  # type: ignore[arg-type]
    with pytest.raises(RecordRefused):
        records.read_text(NOTE, data.decode(errors="replace"), "prod", "one")
    with pytest.raises(RecordRefused):
        records._believe(NOTE, NAME, "prod", "one", data, None)


@pytest.mark.parametrize("depth", [1_000, 200_000])
def test_a_deep_document_is_refused_like_any_other(records: Records, depth: int) -> None:
    put(records, NAME, b'{"payload": ' + b"[" * depth)
    assert word(records) == "unsigned"


def test_openssl_verifies_a_record(records: Records, tmp_path: Path) -> None:
    """As docs/security.md shows."""
    write(records)
    document = stored(records)
    (tmp_path / "payload").write_text(document["payload"])
    (tmp_path / "signature").write_bytes(base64.b64decode(document["signature"]))
    (tmp_path / "key.pem").write_text(public_key_pem(document["key"]))
    argv = ("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin", "-in", "payload", "-sigfile", "signature")  # fmt: skip
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in done.stdout + done.stderr


def test_nothing_but_the_loader_makes_a_signed_record() -> None:
    """What takes a `Signed` can believe it only as long as this holds."""
    makers = set()
    for folder in ("include", "plugins", "dags"):
        for path in (PROJECT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
                    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                    if name == "Signed" or (name == "replace" and "Signed" in ast.dump(node)):
                        makers.add(path.relative_to(PROJECT).as_posix())
    assert makers == {"include/etcdkeep/records.py"}


DECIDING = {
    "include/etcdkeep/approval/answers.py": ("check_approved", "check_person", "check_run"),
    "include/etcdkeep/restore/proposal.py": ("plan_anew", "check_same_set", "proposed_plan"),
    "include/etcdkeep/restore/record.py": ("begin",),
    "include/etcdkeep/approval/gates.py": ("ask", "check", "check_answer"),
    "include/etcdkeep/recover/record.py": ("applied", "keep_report"),
}


@pytest.mark.parametrize("path", DECIDING)
def test_deciding_functions_take_signed_records_only(path: str) -> None:
    functions = {
        node.name: [ast.unparse(argument.annotation) for argument in node.args.args if argument.annotation]
        for node in ast.walk(ast.parse((PROJECT / path).read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    for name in DECIDING[path]:
        assert any("Signed[" in annotation for annotation in functions[name]), name


def test_a_record_counts_in_the_repository_that_it_was_signed_for(tmp_path: Path) -> None:
    """Who can read a copy and write the first one would bring the verdict on one to the other."""
    first, copy = DirectoryStore(tmp_path / "first"), DirectoryStore(tmp_path / "copy")
    places, trust = (f"{first.url}/", copy.url), trust_for_all([signing_pair()[1]])
    here, there = (Records(store, trust, make_signer, others=places) for store in (first, copy))
    made = write(there)
    put(here, NAME, (tmp_path / "copy" / NAME).read_bytes())
    assert there.read(NOTE, NAME, "prod", "one").body.text == "hello"
    assert word(here) == "moved"
    assert here.read(NOTE, NAME, "prod", "one", brought=made.at).body.text == "hello"
    with pytest.raises(RecordRefused, match=f"signed for {copy.url}"):
        here.read(NOTE, NAME, "prod", "one", brought=made.at - timedelta(seconds=1))
    moved = Records(DirectoryStore(tmp_path / "first"), trust, others=())
    assert moved.read(NOTE, NAME, "prod", "one").body.text == "hello", "a repository that was moved as a whole"


def test_a_record_of_before_counts_wherever_it_lies(records: Records) -> None:
    text = records.write_text(NOTE, "prod", "one", Note(text="hello"), NOW)
    assert json.loads(json.loads(text)["payload"])["repository"] is None
    payload = json.loads(json.loads(text)["payload"]) | {"name": NAME}
    del payload["repository"]
    sign_and_put(records, json.dumps(payload))
    assert records.read(NOTE, NAME, "prod", "one").body.text == "hello"


def test_a_record_larger_than_any_of_ours_is_not_read(records: Records, tmp_path: Path) -> None:
    write(records)
    with (tmp_path / "prod/notes/large.json").open("wb") as file:
        file.truncate(MAX_RECORD_BYTES + 1)
    found, refused = records.in_folder(NOTE, "prod/notes/", "prod", "one")
    assert ([each.body.text for each in found], [each.word for each in refused]) == (["hello"], ["unreadable"])
    assert "It was not read" in refused[0].sentence


def sign_and_put(records: Records, payload: str) -> None:
    key = make_signer()
    envelope = {
        "payload": payload,
        "key": signing_pair()[1],
        "signature": base64.b64encode(key.sign(payload.encode())).decode(),
    }
    put(records, NAME, json.dumps(envelope).encode())
