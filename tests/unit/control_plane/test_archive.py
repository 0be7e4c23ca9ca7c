"""Reading an archive: sound ones in full, everything else refused with nothing left on disk."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.control_plane import archive
from etcdkeep.control_plane.archive import MAX_LEVELS, extract_archive, read_archive, read_files
from etcdkeep.errors import ArchiveRefused, ObjectExists

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 10 * 2**20
ALL_BYTES = bytes(range(256))


def entry(name: str, data: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    return member, data


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


def make_tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]], tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for member, data in entries:
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


SOUND = make_tar(
    [
        folder("pki/"),
        entry("pki/ca.crt", b"certificate", mode=0o644),
        entry("./pki/etcd/./ca.key", ALL_BYTES, mode=0o600),
        hard_link("pki/same.crt", "pki/ca.crt"),
        link("pki/alias.crt", "../pki/ca.crt"),
        link("pki/elsewhere", "etcd"),
        entry("empty"),
    ]
)


class Trickle:
    """A pipe-like stream: cannot seek, and gives less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(min(size, 100) if size >= 0 else 100)

    def rest(self) -> bytes:
        return self._file.read()


def extract(data: bytes, directory: Path, limit: int = LIMIT) -> tuple[Path, ...]:
    return extract_archive(io.BytesIO(data), directory, limit)


def test_files_are_read_under_plain_names() -> None:
    assert read_archive(io.BytesIO(SOUND), LIMIT) == {
        "pki/ca.crt": b"certificate",
        "pki/etcd/ca.key": ALL_BYTES,
        "pki/same.crt": b"certificate",
        "pki/alias.crt": b"certificate",
        "empty": b"",
    }


def test_modes_of_the_node_are_kept_for_the_checks() -> None:
    modes = {file.path: file.mode for file in read_files(io.BytesIO(SOUND), LIMIT)}
    assert modes["pki/ca.crt"] == modes["pki/alias.crt"] == 0o644
    assert modes["pki/etcd/ca.key"] == 0o600


def test_a_stream_is_read_to_its_last_byte() -> None:
    stream = Trickle(SOUND + bytes(50_000))
    assert read_archive(stream, LIMIT)["pki/ca.crt"] == b"certificate"
    assert stream.rest() == b""


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_tar_format_is_read(tar_format: int) -> None:
    name = "opt/" + "long-folder-name/" * 8 + "file"
    assert read_archive(io.BytesIO(make_tar([entry(name, b"x")], tar_format)), LIMIT) == {name: b"x"}


def test_extracted_files_are_private_and_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    written = extract(SOUND, target)
    assert {path.relative_to(target).as_posix(): path.read_bytes() for path in written} == {
        "pki/ca.crt": b"certificate",
        "pki/etcd/ca.key": ALL_BYTES,
        "pki/same.crt": b"certificate",
        "empty": b"",
    }
    assert (target / "pki/alias.crt").readlink() == Path("../pki/ca.crt")
    assert (target / "pki/elsewhere/ca.key").read_bytes() == ALL_BYTES
    for path in (target, *target.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert path.is_symlink() or mode == (0o700 if path.is_dir() else 0o600), path


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep").write_text("mine")
    with pytest.raises(ObjectExists, match="nothing was written"):
        extract(SOUND, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]


REFUSED = [
    pytest.param([entry("../evil", b"x")], "points outside", id="parent"),
    pytest.param([entry("pki/../../evil", b"x")], "points outside", id="parent-inside"),
    pytest.param([entry("/etc/passwd", b"x")], "points outside", id="absolute"),
    pytest.param([link("pki", "/etc")], "points outside", id="absolute-link"),
    pytest.param([link("pki/x", "../../etc")], "points outside", id="link-above"),
    pytest.param([link("a", "."), link("b", "a/../../etc")], "points outside", id="link-through-link"),
    pytest.param([link("a", "b"), entry("a/x", b"x")], "the place of another", id="file-through-link"),
    pytest.param([entry("a/x", b"x"), link("a", "b")], "the place of another", id="link-over-folder"),
    pytest.param([link("a", "b"), entry("a", b"x")], "the place of another", id="file-over-link"),
    pytest.param([entry("a", b"x"), entry("a/b", b"x")], "the place of another", id="file-as-folder"),
    pytest.param([entry("a", b"x"), entry("./a", b"y")], "the place of another", id="twice"),
    pytest.param([entry("a", b"x"), folder("a")], "the place of another", id="folder-over-file"),
    pytest.param([entry(".", b"x")], "is not a folder", id="file-called-dot"),
    pytest.param([hard_link("a", "../b")], "points outside", id="hard-link-out"),
    pytest.param([hard_link("a", "b"), entry("b", b"x")], "not come before it", id="hard-link-forward"),
    pytest.param([link("b", "c"), hard_link("a", "b")], "not come before it", id="hard-link-to-link"),
    pytest.param([entry("dev", type=tarfile.CHRTYPE)], "neither file", id="character-device"),
    pytest.param([entry("dev", type=tarfile.BLKTYPE)], "neither file", id="block-device"),
    pytest.param([entry("pipe", type=tarfile.FIFOTYPE)], "neither file", id="fifo"),
    pytest.param([link("a", "")], "points outside", id="empty-link"),
    pytest.param([entry("n" * 256, b"x")], "name of 256 bytes", id="long-name"),
    pytest.param([entry("pki/" + "é" * 128, b"x")], "name of 256 bytes", id="long-name-in-bytes"),
    pytest.param([folder("x/" + "n" * 300 + "/y")], "name of 300 bytes", id="long-folder-name"),
    pytest.param([entry("/".join(["n" * 200] * 21), b"x")], "path of 4220 bytes", id="long-path"),
    pytest.param([entry("d/" * 5000 + "x", b"x")], "5001 levels deep", id="deep"),
    pytest.param([folder("d/" * 5000)], "5000 levels deep", id="deep-folder"),
    pytest.param([link("a", "n" * 256)], "name of 256 bytes", id="link-to-long-name"),
    pytest.param([link("a", "/".join(["n" * 200] * 21))], "path of 4220 bytes", id="long-link"),
    pytest.param([entry("a", b"x"), hard_link("n" * 256, "a")], "name of 256 bytes", id="hard-link-of-long-name"),
]


@pytest.mark.parametrize(("entries", "words"), REFUSED)
def test_what_must_not_be_in_an_archive_is_refused(
    entries: list[tuple[tarfile.TarInfo, bytes]], words: str, tmp_path: Path
) -> None:
    data = make_tar([entry("first", b"x"), *entries])
    with pytest.raises(ArchiveRefused, match=words):
        read_archive(io.BytesIO(data), LIMIT)
    with pytest.raises(ArchiveRefused, match=words):
        extract(data, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_message_does_not_carry_a_name_of_any_length() -> None:
    with pytest.raises(ArchiveRefused) as caught:
        read_archive(io.BytesIO(make_tar([entry("../" + "n" * 100_000, b"x")])), LIMIT)
    assert len(str(caught.value)) < 1000


def test_a_path_that_is_too_long_in_this_folder_leaves_nothing(tmp_path: Path) -> None:
    name = "/".join(["n" * 200] * 20)
    assert read_archive(io.BytesIO(make_tar([entry(name, b"x")])), LIMIT) == {name: b"x"}
    target = tmp_path / "t" / ("p" * (100 - len(str(tmp_path)) % 10))
    target.parent.mkdir()
    with pytest.raises(ArchiveRefused, match="too long"):
        extract(make_tar([entry("first", b"x"), entry(name, b"x")]), target)
    assert list(target.parent.iterdir()) == []


def test_as_many_levels_as_are_read_can_be_written_and_removed_again(tmp_path: Path) -> None:
    deepest = entry("d/" * (MAX_LEVELS - 1) + "x", b"x")
    assert len(extract(make_tar([deepest]), tmp_path / "out")) == 1
    with pytest.raises(ArchiveRefused):
        extract(make_tar([deepest, entry("../x", b"x")]), tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_headers_inside_headers_end_in_a_sentence(tmp_path: Path) -> None:
    nested = make_tar([entry("././@LongLink", b"name\0", type=tarfile.GNUTYPE_LONGNAME)] * 5000)
    with pytest.raises(ArchiveRefused, match="extended headers"):
        read_archive(io.BytesIO(nested), LIMIT)
    with pytest.raises(ArchiveRefused, match="extended headers"):
        extract(nested, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_more_links_than_there_can_be_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **more: Any) -> None:
        raise OSError(errno.EMLINK, "Too many links", "a", None, "b")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ArchiveRefused, match="too many links"):
        extract(SOUND, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_entries_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 100)
    assert len(read_archive(io.BytesIO(numbered(100)), LIMIT)) == 100
    with pytest.raises(ArchiveRefused, match="more than 100 entries"):
        read_archive(io.BytesIO(numbered(101)), LIMIT)


def numbered(count: int) -> bytes:
    return make_tar([entry(f"pki/{number // 100}/{number}", b"") for number in range(count)])


def test_reading_is_linear_in_the_number_of_entries(tmp_path: Path) -> None:
    few, many = numbered(3_000), numbered(24_000)

    def cost_s(data: bytes) -> float:
        begun = time.process_time()
        read_files(io.BytesIO(data), 100 * LIMIT)
        return time.process_time() - begun

    times = min(cost_s(many) for _ in range(3)) / min(cost_s(few) for _ in range(3))
    assert times < 24, "eight times the entries: eight times the work, and 64 times where each looks at all"


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 1024, 1536, 2048, 3000, 3584])
def test_a_truncated_archive_is_refused(cut: int, tmp_path: Path) -> None:
    whole = SOUND.rstrip(b"\0")
    with pytest.raises(ArchiveRefused, match="not a valid tar"):
        extract(whole[:cut], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_header_is_not_taken_for_the_end() -> None:
    broken = bytearray(make_tar([entry("a", b"x"), entry("b", b"y")]))
    broken[1024 + 148] ^= 0xFF
    with pytest.raises(ArchiveRefused, match="header"):
        read_archive(io.BytesIO(bytes(broken)), LIMIT)


def test_size_is_limited_before_it_is_read(tmp_path: Path) -> None:
    data = make_tar([entry("big", bytes(100_000))])
    for limit in (1000, 100_000):
        with pytest.raises(ArchiveRefused, match=f"larger than {limit} bytes"):
            read_archive(io.BytesIO(data), limit)
        with pytest.raises(ArchiveRefused, match="larger than"):
            extract(data, tmp_path / "out", limit)
    assert list(tmp_path.iterdir()) == []
    assert read_archive(io.BytesIO(data), len(data))["big"] == bytes(100_000)


def test_a_disk_error_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Trickle):
        def read(self, size: int = -1, /) -> bytes:
            data = super().read(size)
            if not data:
                raise OSError("no more")
            return data

    with pytest.raises(OSError, match="no more"):
        extract_archive(Broken(SOUND), tmp_path / "out", LIMIT)
    assert list(tmp_path.iterdir()) == []


@given(st.data())
def test_altered_bytes_never_end_in_another_error(data: st.DataObject) -> None:
    damaged = bytearray(SOUND[:5120])
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[position] = data.draw(st.integers(0, 255))
    fix_checksums(damaged)
    try:
        files = read_archive(io.BytesIO(bytes(damaged)), LIMIT)
    except ArchiveRefused:
        return
    assert sum(len(content) for content in files.values()) <= 3 * len(damaged)


def fix_checksums(archive: bytearray) -> None:
    for start in range(0, len(archive), 512):
        block = archive[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + 8 * 32 + sum(block[156:])
            archive[start + 148 : start + 156] = f"{total:06o}\0 ".encode()


def test_gnu_tar_reads_what_we_extract(tmp_path: Path) -> None:
    extract(SOUND, tmp_path / "out")
    done = subprocess.run(["tar", "-C", tmp_path / "out", "-cf", "-", "."], capture_output=True, check=True)
    assert read_archive(io.BytesIO(done.stdout), LIMIT) == read_archive(io.BytesIO(SOUND), LIMIT)
