"""Reading an archive: sound ones in full, everything else refused with nothing left on disk."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdkeep.archive import extract_archive, read_archive, read_files
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
    pytest.param([entry("../evil", b"x")], "leads out", id="parent"),
    pytest.param([entry("pki/../../evil", b"x")], "leads out", id="parent-inside"),
    pytest.param([entry("/etc/passwd", b"x")], "leads out", id="absolute"),
    pytest.param([link("pki", "/etc")], "leads out", id="absolute-link"),
    pytest.param([link("pki/x", "../../etc")], "leads out", id="link-above"),
    pytest.param([link("a", "."), link("b", "a/../../etc")], "leads out", id="link-through-link"),
    pytest.param([link("a", "b"), entry("a/x", b"x")], "in the place", id="file-through-link"),
    pytest.param([entry("a/x", b"x"), link("a", "b")], "in the place", id="link-over-folder"),
    pytest.param([link("a", "b"), entry("a", b"x")], "in the place", id="file-over-link"),
    pytest.param([entry("a", b"x"), entry("a/b", b"x")], "in the place", id="file-as-folder"),
    pytest.param([entry("a", b"x"), entry("./a", b"y")], "in the place", id="twice"),
    pytest.param([entry("a", b"x"), folder("a")], "in the place", id="folder-over-file"),
    pytest.param([entry(".", b"x")], "is no folder", id="file-called-dot"),
    pytest.param([hard_link("a", "../b")], "leads out", id="hard-link-out"),
    pytest.param([hard_link("a", "b"), entry("b", b"x")], "not before it", id="hard-link-forward"),
    pytest.param([link("b", "c"), hard_link("a", "b")], "not before it", id="hard-link-to-link"),
    pytest.param([entry("dev", type=tarfile.CHRTYPE)], "neither file", id="character-device"),
    pytest.param([entry("dev", type=tarfile.BLKTYPE)], "neither file", id="block-device"),
    pytest.param([entry("pipe", type=tarfile.FIFOTYPE)], "neither file", id="fifo"),
    pytest.param([link("a", "")], "leads out", id="empty-link"),
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


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 1024, 1536, 2048, 3000, 3584])
def test_a_truncated_archive_is_refused(cut: int, tmp_path: Path) -> None:
    whole = SOUND.rstrip(b"\0")
    with pytest.raises(ArchiveRefused, match="no sound tar"):
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
