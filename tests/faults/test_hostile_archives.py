"""Archives from strangers: nothing outside the folder, nothing half there, one message."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_builtin.untrusted.archives import Limits, extract, unpack, unpacked
from nnunet_core.errors import NnunetError, StorageError, UsageError

FILES = {"model/a.json": b"{}", "model/deep/b.bin": bytes(range(256)) * 9, "empty": b""}
LIMITS = Limits(entries=10, size=4 << 20, ratio=100, always=1 << 20)


def in_zip(path, entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for entry, content in entries:
            file.writestr(entry, content)
    return path


def in_tar(path, entries):
    with tarfile.open(path, "w:gz") as file:
        for entry, content in entries:
            info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    return info


def linked(name, kind, target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def found_in(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.mark.parametrize("make", [in_zip, in_tar])
def test_a_good_archive_is_unpacked_as_it_is(tmp_path, make):
    archive = make(tmp_path / "archive", FILES.items())
    unpack(archive, tmp_path / "out", LIMITS)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == FILES
    with unpacked(archive, tmp_path / "out", LIMITS) as folder:
        assert (folder / "model/a.json").read_bytes() == b"{}"
    assert found_in(tmp_path) >= {"archive", "out"}
    assert len(list(tmp_path.iterdir())) == 2


def test_what_other_programs_write_is_unpacked(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "ä.txt").write_text("x")
    with tarfile.open(tmp_path / "dot.tar.gz", "w:gz") as file:  # as `tar -c .` does
        file.add(tmp_path / "in", ".")
    unpack(tmp_path / "dot.tar.gz", tmp_path / "dot")
    assert found_in(tmp_path / "dot") == {"sub", "sub/ä.txt"}
    unmarked = in_zip(tmp_path / "unmarked.zip", [("sub/ä.txt", b"x")])
    content = bytearray(unmarked.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of UTF-8
        content[content.index(signature) + at + 1] &= ~0x08
    unmarked.write_bytes(content)
    unpack(unmarked, tmp_path / "unmarked")
    assert found_in(tmp_path / "unmarked") == {"sub", "sub/ä.txt"}


def test_permissions_of_an_archive_are_left_out(tmp_path):
    archive = in_zip(tmp_path / "a.zip", [(special("run", stat.S_IFREG | stat.S_ISUID), b"x")])
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "run").stat().st_mode & 0o7111 == 0


NAMES = (
    *("../evil", "a/../../evil", "/evil", "//evil", "C:/evil", "C:evil", "..\\evil", "a\\b"),
    *("", ".", "a//b", "a/./b", "new\nline", "end ", "end.", "x" * 300, "ä" * 128),
    *("d/" * 40 + "x", ("y" * 200 + "/") * 6 + "x", "a:stream", "~/../evil"),
)


@pytest.mark.parametrize("make", [in_zip, in_tar])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere_are_refused(tmp_path, make, name):
    if not name and make is in_zip:
        pytest.skip("zipfile writes no such entry")
    refused(tmp_path, make(tmp_path / "archive", [("fine", b"x"), (name, b"evil")]))


@pytest.mark.parametrize("make", [in_zip, in_tar])
@pytest.mark.parametrize(
    "pair",
    [("a", "a"), ("a", "A"), ("a/x", "A/y"), ("a", "a/b"), ("a/b", "a"), ("\u00e9", "e\u0301")],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_take_each_others_place_are_refused(tmp_path, make, pair):
    message = refused(tmp_path, make(tmp_path / "archive", [(name, b"x") for name in pair]))
    assert "takes the place of" in message


SPECIAL = {
    "symlink": (stat.S_IFLNK, tarfile.SYMTYPE),
    "hard link": (None, tarfile.LNKTYPE),
    "pipe": (stat.S_IFIFO, tarfile.FIFOTYPE),
    "character device": (stat.S_IFCHR, tarfile.CHRTYPE),
    "block device": (stat.S_IFBLK, tarfile.BLKTYPE),
    "socket": (stat.S_IFSOCK, None),
    "sparse": (None, tarfile.GNUTYPE_SPARSE),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    mode, tar_type = SPECIAL[kind]
    if mode:
        archive = in_zip(tmp_path / "a.zip", [(special("a", mode), b"/etc"), ("a/b", b"evil")])
        assert "link, a device or a pipe" in refused(tmp_path, archive)
    if tar_type:
        archive = in_tar(tmp_path / "a.tgz", [(linked("a", tar_type), b""), ("a/b", b"evil")])
        assert "link, a device or a pipe" in refused(tmp_path, archive)


def test_a_name_that_is_no_utf8_is_refused(tmp_path):
    archive = in_zip(tmp_path / "a.zip", [("Xbc", b"x")])
    archive.write_bytes(archive.read_bytes().replace(b"Xbc", b"\xe4bc"))
    assert "not UTF-8" in refused(tmp_path, archive)
    refused(tmp_path, in_tar(tmp_path / "a.tgz", [(os.fsdecode(b"\xe4bc"), b"x")]))


def bomb(path, files, size):
    """Write a zip of files of zeros, each of so many MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = part * size + packer.flush()
    in_zip(path, [(f"{number}", packed) for number in range(files)], zipfile.ZIP_STORED)
    content, stored = path.read_bytes(), len(packed).to_bytes(4, "little")
    content = content.replace(stored + stored, stored + (size << 20).to_bytes(4, "little"))
    for name in (b"PK\x03\x04\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\0\0"):
        content = content.replace(name + b"\0", name + b"\x08")  # deflated
    path.write_bytes(content)
    return path


def test_a_bomb_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    archive = bomb(tmp_path / "a.zip", 4, 2560)
    assert archive.stat().st_size < 20 << 20
    with zipfile.ZipFile(archive) as file:
        assert sum(info.file_size for info in file.infolist()) == 10 << 30
    monkeypatch.setattr("pathlib.Path.open", _only_reads)
    assert "Ask who made it" in refused(tmp_path, archive, Limits())


def _only_reads(path, mode="r", *arguments, **further):
    assert mode == "rb"
    return open(path, mode, *arguments, **further)  # noqa: PTH123


def test_a_bomb_that_lies_about_its_size_is_refused(tmp_path):
    archive = bomb(tmp_path / "a.zip", 1, 64)
    content, zeros = archive.read_bytes(), 64 << 20
    archive.write_bytes(content.replace(zeros.to_bytes(4, "little"), (9).to_bytes(4, "little")))
    refused(tmp_path, archive)
    tar = tmp_path / "a.tgz"
    with gzip.open(tar, "wb", 9) as file:
        file.write(linked("a", tarfile.REGTYPE, "").tobuf())
        for _ in range(64):
            file.write(bytes(1 << 20))
    refused(tmp_path, tar)


def test_a_bomb_of_tar_is_refused_when_it_breaks_the_limit(tmp_path):
    content = bytes(2 << 20)
    refused(tmp_path, in_tar(tmp_path / "a.tgz", [("a", content), ("b", content)]))
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE  # read at once by tarfile
    refused(tmp_path, in_tar(tmp_path / "b.tgz", [(header, bytes(3 << 20)), ("a", b"x")]), Limits())


@pytest.mark.parametrize("make", [in_zip, in_tar])
def test_too_many_entries_are_refused(tmp_path, make):
    archive = make(tmp_path / "archive", [(f"{number}", b"") for number in range(11)])
    assert "more than 10 files" in refused(tmp_path, archive)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_cannot_be_counted_are_refused(tmp_path, method):
    archive = in_zip(tmp_path / "a.zip", [("a", bytes(1 << 10))], method)
    assert "compression" in refused(tmp_path, archive)


def test_an_encrypted_zip_is_refused(tmp_path):
    archive = in_zip(tmp_path / "a.zip", [("a", b"x")])
    content = bytearray(archive.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    archive.write_bytes(content)
    assert "encrypted" in refused(tmp_path, archive)


def test_no_room_on_the_disk_is_said_before_unpacking(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "Free some space" in refused(tmp_path, in_zip(tmp_path / "a.zip", FILES.items()))


def test_other_files_are_wrong_usage(tmp_path):
    for name, content in {"text": b"hello", "empty": b"", "7z": b"7z\xbc\xaf\x27\x1c"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match="no zip and no"):
            unpack(tmp_path / name, tmp_path / "out")
    with pytest.raises(UsageError, match="cannot be read"):
        unpack(tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [in_zip, in_tar])
def test_every_truncation_is_one_message(tmp_path, make):
    whole = make(tmp_path / "whole", FILES.items()).read_bytes()
    for end in range(4, len(whole), 31):
        (tmp_path / "cut").write_bytes(whole[:end])
        refused(tmp_path, tmp_path / "cut")


@pytest.mark.parametrize("make", [in_zip, in_tar])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_a_message_or_change_nothing_outside(tmp_path_factory, make, changes):
    folder = tmp_path_factory.mktemp("changed")
    archive = make(folder / "archive", FILES.items())
    content = bytearray(archive.read_bytes())
    if make is in_tar:  # below the checksum of gzip
        content = bytearray(gzip.decompress(content))
    for at, value in changes:
        content[at % len(content)] = value
    archive.write_bytes(gzip.compress(content, mtime=0) if make is in_tar else content)
    try:
        unpack(archive, folder / "out", LIMITS)
    except NnunetError:
        assert found_in(folder) == {"archive"}
    assert {path.name for path in folder.iterdir()} <= {"archive", "out"}


def refused(folder, archive, limits=LIMITS):
    """Return the message of an archive that leaves nothing behind."""
    before = found_in(folder)
    with pytest.raises(StorageError) as caught:
        unpack(archive, folder / "out", limits)
    assert found_in(folder) == before
    return str(caught.value)


def test_a_folder_that_exists_is_kept(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        unpack(in_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(StorageError):
        extract(in_zip(tmp_path / "b.zip", [("../evil", b"")]), tmp_path / "out")
