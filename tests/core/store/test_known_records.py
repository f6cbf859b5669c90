"""What a store remembers of its records: a rerun reads none of them, and still notices every
change.
"""

import os

import pytest
from plain_cases import make_dataset, prepare

from nnunet_core.store import entries
from nnunet_core.store.entries import KNOWN
from nnunet_core.store.prepared import CaseRecord, PreparedStore


@pytest.fixture
def store(tmp_path):
    """Return a store of the cases a to e, prepared as a run does it."""
    folder = tmp_path / "store"
    prepare(make_dataset(tmp_path), PreparedStore(folder))
    keys = {name: PreparedStore(folder).record(name).key for name in "abcde"}
    return PreparedStore(folder, keys)


def test_a_rerun_reads_no_record(store, monkeypatch):
    monkeypatch.setattr(CaseRecord, "read", lambda path: pytest.fail(f"{path} was read"))
    assert store.missing() == {}


@pytest.mark.parametrize("part", [".images.b2nd", ".label.b2nd", ".locations.npz", ".json"])
def test_removed_and_truncated_files_are_noticed_by_a_rerun(store, part):
    assert store.missing() == {}
    (store.folder / f"b{part}").unlink()
    path = store.folder / f"d{part}"
    path.write_bytes(path.read_bytes()[:-9])
    assert list(store.missing()) == ["b", "d"]


def test_a_record_that_was_written_again_is_read_again(store):
    assert store.missing() == {}
    path = store.folder / "c.json"
    record = store.record("c")
    record.model_copy(update={"key": record.key[::-1]}).write(path)  # of the same size
    assert list(store.missing()) == ["c"]
    record.write(path)
    assert store.missing() == {}


def test_files_of_equal_size_are_noticed_where_all_is_read(store):
    path = store.folder / "a.label.b2nd"
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert store.missing() == {}
    assert list(store.missing(verify=True)) == ["a"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}'])
def test_a_damaged_memory_is_made_anew(store, content):
    path = store.folder / KNOWN
    before = path.read_bytes()
    path.write_bytes(content)
    assert store.missing() == {}
    assert path.read_bytes() == before
    assert store.names() == tuple("abcde")


def test_nothing_is_kept_on_a_disk_that_cannot_be_written(store, monkeypatch):
    def refuse(path, _):
        raise entries.StorageError(f"{path} cannot be written")

    (store.folder / KNOWN).unlink()
    monkeypatch.setattr(entries.files, "write_bytes", refuse)
    assert store.missing() == {}
