"""A model in a program: arrays, images and paths, threads, memory."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import small_training as small
from tiny_model import make_tiny_model

import nnunet_core
from nnunet_core.data.images import SLICE_SPACING_2D
from nnunet_core.errors import DatasetError, ImageError, NnunetError, PluginError, UsageError

SPACING = (1.5, 1.0, 0.8)
BUILDERS = Path(__file__).parents[2] / "builders"


def load(folder, **options):
    return nnunet_core.load_model(folder, "cpu", precision="float32", threads=1, **options)


def image_of(array, spacing=SPACING):
    """Return a SimpleITK image whose axes are flipped and whose origin is elsewhere."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((5.0, -7.0, 11.0)[: image.GetDimension()])
    if image.GetDimension() == 3:
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "3d_fullres"
    return make_tiny_model(place, settings={"mirroring": False})


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "3d_fullres"
    return make_tiny_model(place, predictor="bright:Bright")


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("two") / "3d_fullres", channels=("T1", "T2"))


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(100, 20, (12, 15, 11)).astype(np.float32)


def test_arrays_images_and_paths_give_the_same_label_map(folder, array, tmp_path):
    sitk.WriteImage(image_of(array), tmp_path / "scan.nii.gz")
    with load(folder) as model:
        label, probabilities = model.predict(array, SPACING, probabilities=True)
        of_channels = model.predict(array[None].astype(np.float64), SPACING)
        images = [image_of(array), str(tmp_path / "scan.nii.gz"), [tmp_path / "scan.nii.gz"]]
        others = [model.predict(image, probabilities=True) for image in images]
    assert label.dtype == np.uint8
    assert probabilities.shape == (3, *array.shape)
    np.testing.assert_array_equal(probabilities.argmax(axis=0), label)
    np.testing.assert_array_equal(of_channels, label)
    for found, other in others:
        np.testing.assert_array_equal(other, probabilities)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), label)
        assert found.GetOrigin() == (5.0, -7.0, 11.0)
        assert found.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
        np.testing.assert_allclose(found.GetSpacing(), SPACING[::-1])


@pytest.mark.parametrize("folds", ["01", "1,01", (1,), ("01",), "1"])
def test_folds_are_named_as_people_write_them(folder, array, folds):
    with load(folder, folds=("1",)) as model:
        _, expected = model.predict(array, SPACING, probabilities=True)
    with load(folder, folds=folds) as model:
        _, found = model.predict(array, SPACING, probabilities=True)
    np.testing.assert_array_equal(found, expected)


def test_channels_are_an_axis_a_list_of_images_or_a_list_of_files(two_channels, array, tmp_path):
    both = np.stack([array, array[::-1]])
    images = [image_of(channel) for channel in both]
    paths = [tmp_path / "t1.mha", tmp_path / "t2.mha"]
    for image, path in zip(images, paths, strict=True):
        sitk.WriteImage(image, path)
    with load(two_channels) as model:
        assert model.channels == ("T1", "T2")
        _, expected = model.predict(both, SPACING, probabilities=True)
        for given in (images, paths):
            np.testing.assert_array_equal(model.predict(given, probabilities=True)[1], expected)
        _, exchanged = model.predict(both[::-1], SPACING, probabilities=True)
    assert not np.allclose(exchanged, expected)


def test_a_model_of_2d_images(tmp_path):
    folder = make_tiny_model(
        tmp_path / "2d",
        network=small.isotropic(2, 2, output_channels=3, base_features=4),
        patch_size=(8, 8),
        spacing=(SLICE_SPACING_2D, 1.0, 1.0),
        median_shape=(1, 14, 12),
        preprocessor="planes",
    )
    array = np.random.default_rng(0).normal(size=(14, 12)).astype(np.float32)
    with load(folder) as model:
        label, probabilities = model.predict(array, (1.0, 1.0), probabilities=True)
        assert label.shape == (14, 12)
        assert probabilities.shape == (3, 14, 12)
        np.testing.assert_array_equal(model.predict(array[None], (1.0, 1.0)), label)
        found = model.predict(image_of(array, (1.0, 1.0)))
        assert found.GetDimension() == 2
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), label)
        with pytest.raises(UsageError, match=r"takes \(C, Y, X\) or \(Y, X\)"):
            model.predict(np.stack([array] * 3), (1.0, 1.0))
        with pytest.raises(ImageError, match="takes 2D images"):
            model.predict(image_of(np.ones((3, 4, 5), np.float32)))


def test_a_cascade_predicts_its_low_resolution_first(folder, array, tmp_path):
    make_tiny_model(tmp_path / "3d_lowres", spacing=(2.0, 2.0, 2.0))
    network = small.CONFIGURATION.network.model_copy(update={"input_channels": 3})
    cascade = make_tiny_model(tmp_path / "cascade", network=network, previous="3d_lowres")
    with load(cascade) as model, load(tmp_path / "3d_lowres") as before:
        label, found = model.predict(array, SPACING, probabilities=True)
        assert label.shape == array.shape
        assert not np.allclose(found, before.predict(array, SPACING, probabilities=True)[1])


@pytest.mark.parametrize(
    ("change", "spacing", "words"),
    [
        (lambda a: a[0], SPACING, ["(15, 11)", "(C, Z, Y, X) or (Z, Y, X)", "1 channel (MRI)"]),
        (lambda a: np.stack([a, a]), SPACING, ["(2, 12, 15, 11)", "1 channel"]),
        (lambda a: a[..., None], SPACING, ["np.moveaxis(array, -1, 0)"]),
        (lambda a: a[:0], SPACING, ["(1, 0, 15, 11)"]),
        (lambda a: a, None, ["The spacing is None", "(z, y, x)"]),
        (lambda a: a, "abc", ["The spacing is abc", "(z, y, x)"]),
        (lambda a: a, 1.0, ["The spacing is 1.0", "(z, y, x)"]),
        (lambda a: a, (1, 1), ["3 positive numbers"]),
        (lambda a: a, (1, 1, -1), ["3 positive numbers"]),
        (lambda a: a, (1, 1, float("nan")), ["3 positive numbers"]),
        (lambda a: np.where(a > 120, np.nan, a), SPACING, ["NaN or infinite"]),
        (lambda a: a.astype(complex), SPACING, ["complex128", "real numbers"]),
        (lambda a: a * 0, SPACING, ["zero"]),
        (image_of, SPACING, ["have their own"]),
        (lambda a: [image_of(a), image_of(a)], None, ["2 channels", "takes 1"]),
        (lambda a: image_of(np.where(a > 120, np.nan, a)), None, ["NaN or infinite"]),
        (lambda a: [a, a], None, ["got ndarray"]),
        (lambda a: 5, None, ["got int"]),
        (lambda a: [], None, ["got an empty list"]),
        (lambda a: "missing.nii.gz", None, ["missing.nii.gz does not exist"]),
    ],
)
def test_what_cannot_be_predicted_is_one_clear_error(folder, array, change, spacing, words):
    with load(folder) as model, pytest.raises(NnunetError) as error:
        model.predict(change(array), spacing)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"folds": ["7"]}, UsageError, "Fold 7"),
        ({"settings": {"step_siz": 1}}, UsageError, "step_size"),
        ({"predictor": "sliding_windo"}, UsageError, "Did you mean"),
        ({"device": "cuda:99"}, UsageError, "cuda:99"),
    ],
)
def test_wrong_options_are_refused(folder, options, kind, words):
    with pytest.raises(kind, match=words):
        nnunet_core.load_model(folder, **{"device": "cpu", **options})


def test_code_that_no_plugin_registers_needs_trust(bright, tmp_path):
    with pytest.raises(PluginError, match="bright:Bright"):
        load(bright)


def test_what_is_no_model_says_what_is(folder, tmp_path):
    with pytest.raises(UsageError, match=r"no inference.json.*results/DATASET/VARIANT/CONFIG"):
        load(tmp_path)
    with pytest.raises(UsageError, match="there is no such folder"):
        load("Dataset001_Tiny/default/3d_fullres")
    with pytest.raises(UsageError, match=rf"Models in it: {folder};.*find-best"):
        load(folder.parent)
    with load(folder) as model, pytest.raises(DatasetError, match="The file or folder nope"):
        model.predict("nope.nii.gz")


def test_a_closed_model_says_so(folder, array):
    with load(folder) as model:
        pass
    with pytest.raises(UsageError, match="closed"):
        model.predict(array, SPACING)


@pytest.mark.slow
def test_several_threads_get_what_one_would(folder):
    """Images of different sizes, so that a mixture would be seen."""
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(9 + n, 12, 10 + n)).astype(np.float32) for n in range(6)]
    with load(folder) as model:
        expected = [model.predict(array, SPACING, probabilities=True) for array in arrays]
        found = [None] * 12

        def predict(number):
            found[number] = model.predict(arrays[number % 6], SPACING, probabilities=True)

        threads = [threading.Thread(target=predict, args=[n]) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, (label, probabilities) in enumerate(found):
        np.testing.assert_array_equal(label, expected[number % 6][0])
        np.testing.assert_array_equal(probabilities, expected[number % 6][1])


@pytest.mark.slow
def test_a_hundred_calls_take_no_more_memory_than_ten_and_start_no_process(bright):
    array = np.random.default_rng(0).normal(size=(40, 60, 60)).astype(np.float32)
    process = psutil.Process()
    children = set(process.children())
    with load(bright, trust=True, postprocess=False) as model:
        for _ in range(10):
            model.predict(array, SPACING)
        before = process.memory_info().rss
        for _ in range(90):
            model.predict(array, SPACING)
        grown = process.memory_info().rss - before
        assert set(process.children()) <= children
    assert grown < 8 * 2**20, f"{grown / 2**20:.1f} MiB; one image has {array.nbytes / 2**20:.1f}"


PROGRAM = """
import sys
import numpy as np
import nnunet_core
quick = {"step_size": 1, "mirroring": False}
with nnunet_core.load_model(sys.argv[1], "cpu", threads=1, settings=quick) as model:
    array = np.random.default_rng(0).normal(size=(8, 48, 48)).astype(np.float32)
    print(model.predict(array, (2.0, 2.0, 2.0)).shape)
    print([line for line in open("/proc/self/maps") if "/dev/shm" in line])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux")
def test_a_program_needs_no_more_shared_memory_than_64_mb(folder):
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    small_mount = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    limited = ["unshare", "-m", "sh", "-c", small_mount, "sh"]
    allowed = subprocess.run([*limited, "true"], capture_output=True, check=False).returncode == 0
    environment = {k: v for k, v in os.environ.items() if not k.lower().startswith("nnunet")}
    done = subprocess.run(
        [*(limited if allowed else []), *command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "(8, 48, 48)\n[]\n"
