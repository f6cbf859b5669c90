"""Prepared cases on disk: what is written is read, in parts; what is damaged or half written is
never trusted.
"""

import contextlib
import dataclasses
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from anisotropic_case import GEOMETRY, PATCH, SHAPE, make_case
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_core.data.cases import ExtraArray, PreparedCase, PreparedGeometry
from nnunet_core.data.images import Geometry
from nnunet_core.errors import PluginError, StorageError
from nnunet_core.store.arrays import chunking
from nnunet_core.store.prepared import PreparedStore


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


BUILDERS = Path(__file__).parents[2] / "builders"
WRITER = """
    import sys, resource, os, signal
    from pathlib import Path
    sys.path.insert(0, {builders!r})
    from anisotropic_case import PATCH, make_case
    from nnunet_core.errors import StorageError
    from nnunet_core.store.prepared import PreparedStore
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
    code = textwrap.dedent(WRITER).format(builders=str(BUILDERS), folder=str(folder), setup=setup)
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
    stored.remove(NAME)  # as preprocessing begins
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


def with_arrays(case, **arrays):
    return dataclasses.replace(case, arrays=arrays)


def distances(dtype=np.float16, channels=2):
    random = np.random.default_rng(5)
    return ExtraArray(random.normal(size=(channels, *SHAPE)).astype(dtype), "image")


ANNOTATION = ExtraArray(
    np.random.default_rng(6).integers(0, 9, (1, *SHAPE)).astype(np.uint8), "label"
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_extra_arrays_and_values_are_read_as_they_were_written(tmp_path_factory, data):
    shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    names = data.draw(st.sets(st.text("ab_9", min_size=1, max_size=6), max_size=3))
    random, arrays = np.random.default_rng(data.draw(st.integers(0, 99))), {}
    for name in sorted(names):
        like = data.draw(st.sampled_from(["image", "label"]))
        integers = ["int8", "int16", "uint8"]
        dtype = data.draw(st.sampled_from(integers + ["float32", "float16"] * (like == "image")))
        values = random.integers(0, 100, (data.draw(st.integers(1, 3)), *shape))
        arrays[name] = ExtraArray(values.astype(dtype), like)
    objects = st.dictionaries(st.text(), JSON, max_size=3)
    extra, metadata = data.draw(objects), data.draw(objects)
    whole = tuple((0, size) for size in shape)
    geometry = PreparedGeometry(Geometry(shape), whole, (0, 1, 2), shape, (1.0, 1.0, 1.0), metadata)
    case = PreparedCase(
        "drawn",
        np.zeros((1, *shape), np.float32),
        np.zeros(shape, np.int8),
        geometry,
        extra=extra,
        arrays=arrays,
    )
    store = PreparedStore(tmp_path_factory.mktemp("drawn"))
    store.write(case, "key", (4, 4, 4))
    read = store.open("drawn", verify=True)
    assert (read.extra, read.geometry) == (extra, geometry)
    assert read.like == {name: array.like for name, array in arrays.items()}
    assert set(read.arrays) == set(arrays)
    for name, array in arrays.items():
        assert read.arrays[name].dtype == array.array.dtype
        np.testing.assert_array_equal(read.arrays[name][:], array.array)
    store.remove("drawn")
    assert list(store.folder.iterdir()) == []


@pytest.fixture
def stored_arrays(store) -> PreparedStore:
    store.write(with_arrays(make_case(), distance=distances(), second=ANNOTATION), "key", PATCH)
    return store


def test_patches_of_extra_arrays_are_read_in_parts(stored_arrays):
    read = stored_arrays.open(NAME).arrays["distance"]
    part = (slice(None), slice(3, 20), slice(0, 30), slice(40, 41))
    np.testing.assert_array_equal(read[part], distances().array[part])


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_truncated_extra_arrays_are_noticed_on_opening(stored_arrays, kept):
    path = stored_arrays.folder / f"{NAME}.array.distance.b2nd"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert not stored_arrays.is_current(NAME, "key")
    with pytest.raises(StorageError, match=r"array\.distance\.b2nd is damaged.*preprocess"):
        stored_arrays.open(NAME)


def test_missing_and_flipped_extra_arrays_are_noticed(stored_arrays):
    path = stored_arrays.folder / f"{NAME}.array.second.b2nd"
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(StorageError, match=r"array\.second\.b2nd.*does not exist"):
        stored_arrays.open(NAME)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    path.write_bytes(flipped)
    assert stored_arrays.is_current(NAME, "key")
    with pytest.raises(StorageError, match="content is not what was written"):
        stored_arrays.open(NAME, verify=True)


def test_extra_arrays_of_before_and_of_killed_writers_are_removed(stored_arrays):
    """A case whose name continues like a file of another one keeps its own files."""
    other = f"{NAME}.array.x"
    stored_arrays.write(with_arrays(make_case(other), x=ANNOTATION), "key", PATCH)
    for name in (f".{NAME}.array.old.b2nd.k3.tmp", f"{NAME}.array.old.b2nd"):
        (stored_arrays.folder / name).touch()
    stored_arrays.write(with_arrays(make_case(), second=ANNOTATION), "new", PATCH)
    assert set(stored_arrays.open(NAME, verify=True).arrays) == {"second"}
    stored_arrays.remove(NAME)
    assert set(stored_arrays.open(other, verify=True).arrays) == {"x"}
    stored_arrays.remove(other)
    assert list(stored_arrays.folder.iterdir()) == []


ONES = np.ones((1, *SHAPE), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"arrays": {"Distance Map": distances()}},
            "'Distance Map'; a name consists of a-z, 0-9 and _",
        ),
        (
            {"arrays": {"a": ExtraArray(ONES, "mask")}},
            "like 'mask'; it must be like 'image' or 'label'",
        ),
        ({"arrays": {"a": ExtraArray(ONES[0], "image")}}, r"of shape \(37, 52, 41\); it must be"),
        (
            {"arrays": {"a": ExtraArray(ONES[:, 1:], "image")}},
            r"of shape \(1, 36, 52, 41\); it must be",
        ),
        (
            {"arrays": {"a": ExtraArray(ONES[:0], "image")}},
            r"of shape \(0, 37, 52, 41\); .* K >= 1",
        ),
        (
            {"arrays": {"a": ExtraArray(ONES.astype(np.float64), "image")}},
            "float64; .* float32, float16",
        ),
        (
            {"arrays": {"a": ExtraArray(ONES, "label")}},
            "float32; like 'label' it must be one of int8",
        ),
        ({"extra": {"a": np.ones(3)}}, "returned extra .* no JSON object: a"),
        ({"extra": {"a": float("nan")}}, "returned extra .* no JSON object: .*not JSON compliant"),
        ({"extra": {"a": "x" * 70000}}, "70009 characters of JSON, at most 65536"),
    ],
)
def test_wrong_extra_data_of_a_preprocessor_is_refused(store, changes, message):
    with pytest.raises(PluginError, match=message):
        store.write(dataclasses.replace(make_case(), **changes), "key", PATCH)
    assert store.names() == ()


def test_wrong_metadata_of_a_preprocessor_is_refused(store):
    geometry = dataclasses.replace(GEOMETRY, metadata={"when": object()})
    with pytest.raises(PluginError, match=r"returned geometry\.metadata for case .*: when"):
        store.write(dataclasses.replace(make_case(), geometry=geometry), "key", PATCH)
