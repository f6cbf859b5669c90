"""Prepared cases on disk: what is written is read, in parts; what is damaged or half written is never trusted."""

import contextlib
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_core.data.cases import PreparedCase, PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.errors import PluginError, StorageError
from nnunet_core.store.prepared import PreparedStore, chunking

SHAPE = (37, 52, 41)
PATCH = (24, 32, 24)
GEOMETRY = PreparedGeometry(
    Geometry(
        (40, 60, 50),
        (1.5, 0.7, 0.7),
        (1.0, -2.0, 3.5),
        (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    ),
    ((1, 40), (2, 58), (0, 49)),
    (2, 0, 1),
    SHAPE,
    (0.9, 1.1, 1.0 / 3.0),
)


def make_case(name="case.1 [a]", seed=0, dtype=np.int8) -> PreparedCase:
    random = np.random.default_rng(seed)
    images = random.normal(size=(2, *SHAPE)).astype(np.float32)
    label = random.integers(-1, 3, SHAPE).astype(dtype)
    locations = {
        2: np.argwhere(label == 2)[:50],
        1: np.argwhere(label == 1),
        7: np.empty((0, 3), np.int64),
    }
    return PreparedCase(name, images, label, GEOMETRY, locations)


@pytest.fixture
def store(tmp_path) -> PreparedStore:
    return PreparedStore(tmp_path / "prepared")


@pytest.fixture
def stored(store) -> PreparedStore:
    store.write(make_case(), "key", PATCH)
    return store


NAME = make_case().name


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("patch", [PATCH, (32, 24)])
def test_round_trip(store, dtype, patch):
    case = make_case(dtype=dtype)
    store.write(case, "key", patch)
    read = store.open(case.name, verify=True)
    np.testing.assert_array_equal(read.images[:], case.images)
    np.testing.assert_array_equal(read.label[:], case.label)
    assert (read.images.dtype, read.label.dtype) == (np.float32, dtype)
    assert read.geometry == case.geometry
    assert read.spatial_shape == SHAPE
    assert list(read.class_locations) == [2, 1, 7]
    for value, voxels in case.class_locations.items():
        np.testing.assert_array_equal(read.class_locations[value], voxels)


def test_locations_of_long_axes_do_not_wrap(store):
    shape = (1, 2, 300)
    geometry = PreparedGeometry(
        Geometry(shape), ((0, 1), (0, 2), (0, 300)), (0, 1, 2), shape, (1.0, 1.0, 1.0)
    )
    voxels = np.array([[0, 1, 299], [0, 0, 256]])
    case = PreparedCase(
        "long", np.zeros((1, *shape), np.float32), np.zeros(shape, np.int8), geometry, {1: voxels}
    )
    store.write(case, "key", (1, 1, 64))
    np.testing.assert_array_equal(store.open("long").class_locations[1], voxels)


@given(
    start=st.tuples(*[st.integers(0, n - 1) for n in SHAPE]),
    size=st.tuples(*[st.integers(1, 40)] * 3),
)
@settings(max_examples=30, deadline=None)
def test_patches_equal_slices_of_the_array(tmp_path_factory, start, size):
    folder = tmp_path_factory.getbasetemp() / "patches"
    store, case = PreparedStore(folder), make_case()
    if not store.names():
        store.write(case, "key", PATCH)
    read = store.open(case.name)
    part = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    np.testing.assert_array_equal(
        read.images[(slice(None), *part)], case.images[(slice(None), *part)]
    )
    np.testing.assert_array_equal(read.label[part], case.label[part])


def test_names_are_those_of_complete_cases(stored):
    stored.write(make_case("b"), "key", PATCH)
    stored.write(make_case("a.json"), "key", PATCH)
    (stored.folder / "b.json").unlink()
    assert stored.names() == ("a.json", NAME)
    assert PreparedStore(stored.folder / "absent").names() == ()


def test_a_case_is_current_for_its_key_only(stored):
    assert stored.is_current(NAME, "key")
    assert not stored.is_current(NAME, "other")
    assert not stored.is_current("absent", "key")


def test_a_case_that_was_replaced_is_not_opened_by_who_expects_the_old_one(stored):
    reader = PreparedStore(stored.folder, {NAME: "key"})
    assert reader.open(NAME).name == NAME
    stored.write(make_case(seed=1), "new", PATCH)
    with pytest.raises(StorageError, match="prepared anew from other data while this ran"):
        pickle.loads(pickle.dumps(reader)).open(NAME)


def test_writing_again_replaces(stored):
    stored.write(make_case(seed=1), "new", PATCH)
    assert stored.is_current(NAME, "new")
    np.testing.assert_array_equal(
        stored.open(NAME, verify=True).images[:], make_case(seed=1).images
    )


def test_remove_leaves_nothing(stored):
    (stored.folder / f".{NAME}.images.b2nd.x7.tmp").touch()
    stored.remove(NAME)
    assert list(stored.folder.iterdir()) == []
    stored.remove(NAME)


def test_a_store_is_pickled_for_readers(stored):
    assert (
        pickle.loads(pickle.dumps(stored)).open(NAME).images[0, 3, 4, 5]
        == make_case().images[0, 3, 4, 5]
    )


PARTS = [".images.b2nd", ".label.b2nd", ".locations.npz"]


@pytest.mark.parametrize("part", [*PARTS, ".json"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_truncated_files_are_noticed_on_opening(stored, part, kept):
    path = stored.folder / (NAME + part)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert not stored.is_current(NAME, "key")
    with pytest.raises(StorageError, match=r"case\.1 \[a\]" + part.replace(".", r"\.")):
        stored.open(NAME)


@pytest.mark.parametrize("part", PARTS)
def test_missing_files_are_noticed_on_opening(stored, part):
    (stored.folder / (NAME + part)).unlink()
    assert not stored.is_current(NAME, "key")
    with pytest.raises(StorageError, match=r"does not exist.*preprocess"):
        stored.open(NAME)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("place", [0.02, 0.5, 0.98])
def test_flipped_bytes_are_noticed_by_verification(stored, part, place):
    path = stored.folder / (NAME + part)
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"damaged.*Delete.*preprocess --verify"):
        stored.open(NAME, verify=True)
    assert stored.is_current(NAME, "key")
    assert not stored.is_current(NAME, "key", verify=True)


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_never_raise_anything_else(stored, seed):
    random = np.random.default_rng(seed)
    path = stored.folder / (NAME + PARTS[seed % 3])
    content = bytearray(path.read_bytes())
    edge = min(len(content), 400)
    place = int(
        random.choice([random.integers(0, edge), len(content) - 1 - random.integers(0, edge)])
    )
    content[place] ^= int(random.integers(1, 256))
    path.write_bytes(content)
    with contextlib.suppress(StorageError):
        case = stored.open(NAME)
        _ = case.images[:, 3:30, 4:9], case.label[3:30], case.class_locations


def test_a_swapped_file_is_noticed_by_its_size_or_by_verification(stored):
    stored.write(make_case("b", seed=3), "key", PATCH)
    (stored.folder / "b.images.b2nd").replace(stored.folder / (NAME + ".images.b2nd"))
    with pytest.raises(StorageError):
        stored.open(NAME, verify=True)


def test_an_absent_case_says_what_to_run(store):
    with pytest.raises(StorageError, match="nnunet preprocess"):
        store.open("absent")


WRITER = """
    import sys, resource, os, signal
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_storage import PATCH, PreparedStore, StorageError, make_case
    from nnunet_core.runtime import files
    from nnunet_core.store import prepared as storage
    {setup}
    try:
        PreparedStore(Path({folder!r})).write(make_case(seed=1), "new", PATCH)
    except StorageError as error:
        print(error)
        sys.exit(7)
"""


def run_writer(folder, setup) -> subprocess.CompletedProcess:
    code = textwrap.dedent(WRITER).format(
        tests=str(Path(__file__).parent), folder=str(folder), setup=setup
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_a_full_disk_leaves_no_half_case(stored):
    limit = (stored.folder / f"{NAME}.label.b2nd").stat().st_size * 2
    done = run_writer(
        stored.folder, f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    )
    assert done.returncode == 7, done.stderr
    assert "No space left" in done.stdout
    assert not stored.is_current(NAME, "new")
    assert not stored.is_current(NAME, "key")
    assert not list(stored.folder.glob("*.tmp"))
    stored.write(make_case(seed=1), "new", PATCH)
    assert stored.is_current(NAME, "new")


@pytest.mark.parametrize("writes", [0, 1, 2, 3])
def test_a_writer_killed_in_the_middle_leaves_no_half_case(stored, writes):
    setup = f"""
    done, write = [], files.write_with
    def write_or_die(path, content):
        if len(done) == {writes}:
            with files.atomic_path(path) as temporary:
                temporary.write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
        done.append(path)
        write(path, content)
    files.write_with = write_or_die
    """
    done = run_writer(stored.folder, textwrap.dedent(setup).strip())
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not stored.is_current(NAME, "new")
    assert not stored.is_current(NAME, "key")
    assert stored.names() == ()
    stored.write(make_case(seed=1), "new", PATCH)
    assert len(list(stored.folder.iterdir())) == 4
    np.testing.assert_array_equal(
        stored.open(NAME, verify=True).images[:], make_case(seed=1).images
    )


def test_wrong_arrays_of_a_preprocessor_are_refused(store):
    good = make_case()
    with pytest.raises(PluginError, match="shape"):
        store.write(PreparedCase(NAME, good.images[:, 1:], good.label, GEOMETRY), "key", PATCH)
    with pytest.raises(PluginError, match="float64"):
        store.write(
            PreparedCase(NAME, good.images.astype(np.float64), good.label, GEOMETRY), "key", PATCH
        )
    assert store.names() == ()


@given(
    shape=st.tuples(*[st.integers(1, 700)] * 3),
    patch=st.tuples(*[st.integers(4, 512)] * 3),
    planes=st.booleans(),
)
def test_blocks_fit_into_chunks_and_waste_little(shape, patch, planes):
    chunks, blocks = chunking((2, *shape), patch[1:] if planes else patch)
    assert (chunks[0], blocks[0]) == (1, 1)
    for size, chunk, block in zip(shape, chunks[1:], blocks[1:], strict=True):
        assert 1 <= block <= chunk <= size
        count = -(-size // block)
        assert count * block < size + count
    if planes:
        assert blocks[1] == 1
