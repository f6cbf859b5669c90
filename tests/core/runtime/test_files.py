"""Files and folders that are whole or absent: permissions, leftovers, and digests that are
remembered.
"""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest

from nnunet_core.errors import StorageError
from nnunet_core.runtime import files


@pytest.fixture
def private(monkeypatch):
    """New files are for the owner and the group to read; nobody may change that while threads
    write.
    """
    before = os.umask(0o027)
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask is of every thread"))
    yield
    monkeypatch.undo()
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_and_folders_have_the_usual_permissions(tmp_path, private):
    files.write_text(tmp_path / "a" / "file.txt", "text")
    with files.atomic_folder(tmp_path / "folder") as folder:
        (folder / "file.txt").write_text("text")
    assert (mode(tmp_path / "a" / "file.txt"), mode(tmp_path / "folder")) == (0o640, 0o750)


def test_what_fails_leaves_nothing_behind(tmp_path):
    files.write_text(tmp_path / "file.txt", "old")
    with pytest.raises(ZeroDivisionError):
        files.write_with(tmp_path / "file.txt", lambda file: 1 / file.write(b""))
    with pytest.raises(RuntimeError), files.atomic_folder(tmp_path / "folder"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_text() == "old"


def test_what_others_write_at_the_moment_is_no_leftover(tmp_path):
    """Several parts of a prediction begin at different times in one folder: each removes what was
    left there before, and none may take what another has only just made.
    """
    done = threading.Event()

    def sweep():
        while not done.is_set():
            files.remove_leftovers(tmp_path)

    def write(number):
        for turn in range(200):
            files.write_text(tmp_path / f"{number}_{turn}.txt", "text")
            with files.temporary_folder(tmp_path / f"{number}_{turn}") as folder:
                (folder / "inside.txt").write_text("text")

    with ThreadPoolExecutor() as threads:
        sweepers = [threads.submit(sweep) for _ in range(2)]
        writers = [threads.submit(write, number) for number in range(3)]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        for sweeper in sweepers:
            sweeper.result()
    assert len(list(tmp_path.iterdir())) == 600


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(StorageError, match="exists already"),
        files.atomic_folder(tmp_path / "folder"),
    ):
        pass
    with files.atomic_folder(tmp_path / "folder", overwrite=True) as folder:
        (folder / "new").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


@pytest.mark.parametrize("common", [{}, {"a": 1}, {"z": [2]}, {"a": {"y": 1, "b": None}, "z": "é"}])
def test_digests_of_many_objects_are_those_of_each(common):
    several = [{"images": ["a"], "label": None}, {"label": "x", "images": []}]
    expected = [files.digest({**common, **each}) for each in several]
    assert list(files.digests_with(common, several)) == expected


def test_digests_of_many_objects_refuse_keys_in_between():
    with pytest.raises(ValueError, match="among"):
        list(files.digests_with({"k": 1}, [{"images": 1, "label": 2}]))


def test_digests_are_remembered_while_a_file_stays_the_same(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_text(path.name)
    (first, second) = files.Digests(tmp_path / "digests.json").of(paths)
    assert first == files.file_digest(paths[0]) != second
    paths[1].write_text("changed")
    seen = []
    monkeypatch.setattr(files, "file_digest", lambda path: seen.append(path) or "new")
    assert files.Digests(tmp_path / "digests.json").of(paths) == [first, "new"]
    assert seen == [paths[1]]


ENCODED = {"mark": "utf-8-sig", "UTF-16": "utf-16", "UTF-16 without a mark": "utf-16-le"}


@pytest.mark.parametrize("kind", ENCODED)
def test_json_of_other_encodings_is_read(tmp_path, kind):
    path = tmp_path / "x.json"
    path.write_bytes('{"name": "Müller"}'.encode(ENCODED[kind]))
    assert files.read_json(path) == {"name": "Müller"}


REFUSED = {
    "a key given twice": (b'{"a": {"b": 1, "b": 2}}', "'b' is given twice"),
    "Latin-1": ('{"name": "Müller"}'.encode("latin-1"), "Save it in the encoding UTF-8"),
    "a comma too many": (b'{"a": 1,}', "line 1 column"),
    "a comment": (b'{ // text\n"a": 1}', "line 1 column"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_json_whose_meaning_is_not_clear_is_one_message(tmp_path, kind):
    content, message = REFUSED[kind]
    path = tmp_path / "x.json"
    path.write_bytes(content)
    for read in (files.read_json, files.Document.read):
        with pytest.raises(StorageError, match=rf"x\.json is not readable JSON: .*{message}"):
            read(path)


class Versioned(files.Document):
    schema_version: Literal[2] = 2


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1", "has format 1; this version of nnunet-core reads format 2"),
        ('"two"', "has format two"),
        ("1" + 30 * "0", "does not hold what a file of this kind holds: schema_version"),
        ("null", "has format None"),
    ],
)
def test_another_format_is_said_whatever_its_number(tmp_path, version, said):
    path = tmp_path / "file.json"
    path.write_text(f'{{"schema_version": {version}}}')
    with pytest.raises(StorageError, match=said):
        Versioned.read(path)
