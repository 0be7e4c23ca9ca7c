"""What is given for a snapshot file and is none, or does not stay as it is."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile

import pyrage
import pytest
import zstandard
from click.testing import CliRunner

from etcdkeep.cli import cli
from etcdkeep.errors import SnapshotUnreadable
from etcdkeep.snapshot import open_snapshot
from tests.builders import age_pair
from tests.object_snapshots import config_map
from tests.snapshots import Put, make_records, make_snapshot

SNAPSHOT = make_snapshot(
    make_records(Put(b"/registry/configmaps/shop/%d" % n, config_map(f"{n}", uid="u" * 900)) for n in range(2000))
)


def tar() -> bytes:
    """The snapshot in a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("etcd.db")
        member.size = len(SNAPSHOT)
        archive.addfile(member, io.BytesIO(SNAPSHOT))
    return out.getvalue()


def zipped() -> bytes:
    """The snapshot in a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("etcd.db", SNAPSHOT)
    return out.getvalue()


def sealed(*, armored: bool) -> bytes:
    """The snapshot sealed with age."""
    recipient = pyrage.x25519.Recipient.from_str(age_pair()[1])
    return pyrage.encrypt(SNAPSHOT, [recipient], armored=armored)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(lambda: gzip.compress(SNAPSHOT), ["gzip", "gunzip"], id="gzip"),
        pytest.param(lambda: zstandard.compress(SNAPSHOT), ["zstd", "zstd -dk"], id="zstd"),
        pytest.param(lambda: sealed(armored=False), ["age", "unseal"], id="age"),
        pytest.param(lambda: sealed(armored=True), ["age", "unseal"], id="armored age"),
        pytest.param(tar, ["tar", "tar -xf"], id="tar"),
        pytest.param(zipped, ["zip", "unzip"], id="zip"),
    ],
)
def test_kinds_of_files_are_named(tmp_path, content, words):
    path = tmp_path / "it's a file.db"
    path.write_bytes(content())
    with pytest.raises(SnapshotUnreadable) as caught, open_snapshot(path):
        pass
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("command", [("status",), ("status", "--json"), ("objects", "list"), ("objects", "stats")])
def test_a_pipe_is_refused_at_once(tmp_path, command):
    for name in ("pipe", "pipe.db"):
        path = tmp_path / name
        os.mkfifo(path)
        result = CliRunner().invoke(cli, [*command, str(path)])
        assert isinstance(result.exception, SnapshotUnreadable)
        assert "not a regular file" in str(result.exception)


def test_folders_and_empty_files_are_called_that(tmp_path):
    (tmp_path / "empty.db").touch()
    for path, word in ((tmp_path, "folder"), (tmp_path / "empty.db", "empty"), (tmp_path / "no", "No such file")):
        with pytest.raises(SnapshotUnreadable, match=word), open_snapshot(path):
            pass


def shrink(path):
    os.truncate(path, 5 * 4096)


def vanish(path):
    os.truncate(path, 0)


def rewrite(path):
    with path.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"x" * 4096)


def grow(path):
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("change", [shrink, vanish, rewrite, grow])
@pytest.mark.parametrize("read", ["check", "live", "records", "history", "nothing"])
def test_a_file_that_changes_ends_in_an_error(tmp_path, change, read):
    path = tmp_path / "etcd.db"
    path.write_bytes(SNAPSHOT)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SnapshotUnreadable, match="while it was read"):
        _read_while_it_changes(path, change, read)


def _read_while_it_changes(path, change, read):
    reads = {
        "check": lambda snapshot: snapshot.check(),
        "live": lambda snapshot: list(snapshot.live_values()),
        "records": lambda snapshot: list(snapshot.records()),
        "history": lambda snapshot: snapshot.history(b"/registry/configmaps/shop/7"),
        "nothing": lambda snapshot: None,
    }
    with open_snapshot(path) as snapshot:
        next(snapshot.live())
        change(path)
        reads[read](snapshot)


def test_what_status_refuses_for_its_length_objects_warns_of(tmp_path):
    for name, content in (("cut.db", SNAPSHOT[:-32]), ("long.db", SNAPSHOT[:-32] + bytes(4096 + 32))):
        path = tmp_path / name
        path.write_bytes(content)
        assert CliRunner().invoke(cli, ["status", str(path)]).exit_code == 3
        for command in (["list"], ["stats"], ["get", "cm", "7", "-n", "shop"]):
            result = CliRunner().invoke(cli, ["objects", command[0], str(path), *command[1:]])
            assert (result.exit_code, "warning: " in result.stderr) == (0, True)
            assert "bytes" in result.stderr
