"""Models of nnU-Net v2, imported: they predict what v2 predicted, in every layout that such models
have in the wild.
"""

import json
import shutil
import tarfile
import zipfile

import commands
import numpy as np
import pytest
import SimpleITK as sitk
import torch
import v2_models as v2
from safetensors.torch import load_file

from nnunet_builtin.models import v2 as reader
from nnunet_builtin.models.foreign import ImportOptions
from nnunet_core import read_probabilities
from nnunet_core.errors import DatasetError, StorageError, UsageError
from nnunet_core.runtime.reporting import Silence
from nnunet_core.store.models import ModelDocument

REAL = {
    "plain_3d": "nnUNetTrainer__nnUNetPlansSmall/3d_fullres",
    "plain_2d": "nnUNetTrainer__nnUNetPlansSmall/2d",
    "resenc_3d": "nnUNetTrainer__nnUNetPlansResEncSmall/3d_fullres",
}
DATASET = "Dataset004_Hippocampus"


def imported(source, workspace, *options):
    done = commands.nnunet("models", "import", source, "--workspace", workspace, *options)
    assert done.returncode == 0, done.stderr
    return done


def predict(workspace, model, images, output):
    done = commands.nnunet(
        *("predict", model, images, output, "--workspace", workspace),
        *("--precision", "float32", "--device", "cpu", "--save-probabilities"),
    )
    assert done.returncode == 0, done.stderr
    return done


def compare(models, workspace, model, name, output, cases=3):
    """Predict inputs, and compare with what v2 predicted."""
    images = output / "images"
    images.mkdir(parents=True)
    for image in sorted((models / "inputs").iterdir())[:cases]:
        shutil.copy(image, images)
    predict(workspace, model, images, output / "ours")
    for image in images.iterdir():
        case = image.name.removesuffix("_0000.nii.gz")
        with np.load(models / "v2" / f"predictions_{name}" / f"{case}.npz") as content:
            theirs = content["probabilities"]
        ours = read_probabilities(output / "ours" / f"{case}.b2nd").astype(np.float32)
        assert np.abs(ours - theirs).mean() <= 2e-4  # a tenth of what is asked for
        maps = [
            sitk.GetArrayFromImage(sitk.ReadImage(folder / f"{case}.nii.gz"))
            for folder in (output / "ours", models / "v2" / f"predictions_{name}")
        ]
        assert (maps[0] == maps[1]).mean() >= 0.999


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_an_imported_model_predicts_what_v2_predicted(models, tmp_path, name):
    done = imported(models / "v2" / f"{DATASET}_{name}.zip", tmp_path)
    assert f"nnunet predict {DATASET}/{REAL[name]}" in done.stdout
    compare(models, tmp_path, f"{DATASET}/{REAL[name]}", name, tmp_path / "out")


def rewritten(folder, change):
    """Let a function change every checkpoint of a folder."""
    for path in folder.rglob("*.pth"):
        content = torch.load(path, weights_only=False)
        torch.save(change(content), path)


@pytest.mark.shared
@pytest.mark.slow
def test_a_bare_folder_with_foreign_names_and_wrappers_predicts_the_same(models, tmp_path):
    """As on Hugging Face: another name, a trainer that nobody has, prefixes of wrappers, one fold
    more than v2 needs, no fingerprint.
    """
    with zipfile.ZipFile(models / "v2" / f"{DATASET}_plain_3d.zip") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "my-model"
    (tmp_path / DATASET / REAL["plain_3d"].replace("/", "__")).rename(folder)
    (folder / "dataset_fingerprint.json").unlink(missing_ok=True)

    def change(content):
        prefixed = {f"module._orig_mod.{k}": t for k, t in content["network_weights"].items()}
        return {**content, "network_weights": prefixed, "trainer_name": "MyOwnTrainer"}

    rewritten(folder, change)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive:
        archive.add(folder, "any/prefix/my-model")
    done = imported(tmp_path / "model.tar.gz", tmp_path / "ws", "--name", "Mine")
    assert "The trainer is MyOwnTrainer. Its code is not needed" in done.stderr
    model = "Mine/MyOwnTrainer__nnUNetPlansSmall/3d_fullres"
    compare(models, tmp_path / "ws", model, "plain_3d", tmp_path / "out", cases=1)


def converted(folder, **options):
    (found,) = reader.find(folder)
    return found.convert(ImportOptions(**options), Silence())


def small(tmp_path, configuration=None, dataset=None, name="3d_fullres", state=None, **changes):
    """Write a small model as v2 writes it, and convert it."""
    state = v2.network().state_dict() if state is None else state
    plans = v2.plans({name: configuration or v2.configuration(), **changes.pop("others", {})})
    plans |= changes.pop("plans", {})
    folder = tmp_path / f"nnUNetTrainer__nnUNetPlans__{name}"
    content = v2.checkpoint(state, name, **changes.pop("said", {}))
    v2.write(folder, plans, dataset or v2.dataset(), {"0": content}, **changes)
    return converted(tmp_path)


def settings(model, kind):
    return model.components[kind][1]


def test_weights_are_read_once_under_our_names(tmp_path):
    state = v2.network().state_dict()
    model = small(tmp_path, state=state)
    weights = model.folds["0"]()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)
    assert (model.dataset, model.variant, model.configuration_name) == (
        "Dataset900_Small",
        "nnUNetTrainer__nnUNetPlans",
        "3d_fullres",
    )
    assert model.mirror_axes == (0, 1, 2)
    assert model.notes == ()


def test_plans_without_architecture_are_enough(tmp_path):
    new = small(tmp_path / "new")
    old = small(tmp_path / "old", v2.without_architecture(v2.configuration()))
    assert new.configuration == old.configuration
    assert new.components == old.components


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_weights_decide_about_the_network(tmp_path, residual, norm):
    """The plans say instance norm and other features: a trainer may have changed both."""
    state = v2.network(residual=residual, norm=norm, features=6).state_dict()
    model = small(tmp_path, v2.configuration(residual=residual), state=state)
    reference, found = model.components["network"]
    assert reference == f"builtin/{'residual' if residual else 'plain'}_unet"
    assert found["norm"] == norm
    assert model.configuration.network.base_features == 6
    done = imported(tmp_path, tmp_path / "ws")
    assert done.returncode == 0
    assert len(list((tmp_path / "ws").rglob("weights.safetensors"))) == 1


def test_configurations_inherit(tmp_path):
    base = v2.configuration()
    middle = {"inherits_from": "3d_fullres", "batch_size": 5}
    last = {"inherits_from": "bigger", "patch_size": [16, 32, 32]}
    others = {"3d_fullres": base, "bigger": middle}
    model = small(tmp_path, last, name="free name", others=others)
    assert model.configuration_name == "free name"
    assert model.configuration.patch_size == (16, 32, 32)
    assert model.configuration.batch_size == 5


def test_a_circle_of_configurations_is_refused(tmp_path):
    others = {"b": {"inherits_from": "a"}}
    with pytest.raises(StorageError, match="'b' inherits from 'a', which is a circle"):
        small(tmp_path, {"inherits_from": "b"}, name="a", others=others)


def test_regions_and_ignored_voxels(tmp_path):
    dataset = v2.dataset({**v2.REGIONS, "ignore": 3}, regions_class_order=[1, 2])
    model = small(tmp_path, dataset=dataset, state=v2.network(outputs=2).state_dict())
    assert model.labels.regions == ((1, 2), (2,))
    assert model.labels.region_order == (1, 2)
    assert model.labels.ignore == 3


def test_lists_of_one_value_are_no_regions(tmp_path):
    model = small(tmp_path, dataset=v2.dataset({"background": 0, "first": [1], "second": [2]}))
    assert not model.labels.regions
    assert model.labels.foreground == (1, 2)


def test_labels_with_gaps_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="must be consecutive"):
        small(tmp_path, dataset=v2.dataset({"background": 0, "first": 1, "second": 3}))


@pytest.mark.parametrize("said", [None, ...], ids=["None", "missing"])
def test_without_mirrored_axes_nothing_is_mirrored(tmp_path, said):
    model = small(tmp_path, said={"inference_allowed_mirroring_axes": said})
    assert model.mirror_axes == ()
    assert "nothing is mirrored" in model.notes[0]


def test_a_foreign_checkpoint_says_nothing_but_weights(tmp_path):
    folder = tmp_path / "somebodys-model"
    plans = v2.plans({"3d_fullres": v2.configuration(), "2d": v2.configuration((16, 16))})
    state = v2.to_v2(v2.network().state_dict())
    v2.write(folder, plans, None, {"all": state}, file="checkpoint_best.pth")
    with pytest.raises(UsageError, match="--dataset-json"):
        converted(tmp_path)
    (tmp_path / "elsewhere.json").write_text(json.dumps(v2.dataset()))
    with pytest.raises(UsageError, match=r"Its plans have: 3d_fullres, 2d\."):
        converted(folder, dataset_json=tmp_path / "elsewhere.json")
    model = converted(folder, dataset_json=tmp_path / "elsewhere.json", configuration="3d_fullres")
    assert list(model.folds) == ["all"]
    assert "No checkpoint_final.pth in fold_all" in model.notes[0]


def test_the_best_checkpoint_can_be_asked_for(tmp_path):
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    states = {kind: v2.network(seed).state_dict() for seed, kind in enumerate(("final", "best"))}
    for kind, state in states.items():
        content, file = {"0": v2.checkpoint(state)}, f"checkpoint_{kind}.pth"
        v2.write(folder, v2.plans({"3d_fullres": v2.configuration()}), v2.dataset(), content, file)
    (folder / "fold_1").mkdir()
    for kind, state in states.items():
        model = converted(tmp_path, checkpoint=kind)
        name = "heads.1.weight"
        assert torch.equal(model.folds["0"]()[name], state[name])
        assert model.notes == ("No checkpoint in fold_1: not imported.",)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {"order": 3, "order_z": 0}),
        (v2.ways("no_resampling_hack", {}), {"resample": "none"}),
        (
            v2.ways("resample_torch_fornnunet", {"force_separate_z": False}),
            {"order": 1, "order_z": 0, "separate_z": False},
        ),
        (v2.ways("resample_torch_fornnunet", {}), {"order": 1, "order_z": 0}),
    ],
    ids=["splines", "none", "torch", "torch_apart"],
)
def test_ways_of_resampling(tmp_path, changes, found):
    model = small(tmp_path, v2.configuration(**changes))
    assert settings(model, "preprocessor") == found


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"resampling_fn_data": "my_resampling"}, "resampling by my_resampling"),
        (v2.ways("resample_data_or_seg_to_shape", v2.resampling(2)), "'order': 2"),
        ({"preprocessor_name": "MyPreprocessor"}, "the preprocessor MyPreprocessor"),
        ({"normalization_schemes": ["MyNormalization"]}, "the normalisation MyNormalization"),
        ({"patch_size": [60_000, 60_000, 60_000]}, "more than 1073741824 voxels"),
        ({"patch_size": [10**6, 8, 8]}, "patch_size.0"),
        ({"spacing": [0.0, 1.0, 1.0]}, "spacing.0"),
    ],
)
def test_what_has_no_equal_here_is_refused_by_name(tmp_path, changes, named):
    with pytest.raises(StorageError, match=named):
        small(tmp_path, v2.configuration(**changes))


@pytest.mark.parametrize(
    ("reader_name", "turned"),
    [("SimpleITKIO", None), ("NibabelIO", None), ("NibabelIOWithReorient", "RAS")],
)
def test_readers_decide_about_the_axes(tmp_path, reader_name, turned):
    model = small(tmp_path, plans={"image_reader_writer": reader_name})
    assert settings(model, "preprocessor").get("orientation") == turned
    with pytest.raises(StorageError, match="the reader MyIO"):
        small(tmp_path / "other", plans={"image_reader_writer": "MyIO"})


def test_tiff_files_have_their_spacing_beside_them(tmp_path):
    dataset = v2.dataset(file_ending=".tif")
    model = small(tmp_path, dataset=dataset, plans={"image_reader_writer": "Tiff3DIO"})
    assert model.image_format == "formats/tiff_sidecar"


def test_normalisation_and_flat_networks(tmp_path):
    schemes = ["CTNormalization", "ZScoreNormalization"]
    masks = {"normalization_schemes": schemes, "use_mask_for_norm": [True, True]}
    configuration = v2.configuration((16, 16), **masks)
    state = v2.network(dimensions=2, channels=2).state_dict()
    dataset = v2.dataset(channels=("CT", "MRI"))
    said = {"inference_allowed_mirroring_axes": (0, 1)}
    model = small(tmp_path, configuration, dataset, state=state, said=said)
    first, second = model.configuration.normalization
    assert (first.scheme, first.use_mask, first.statistics.sd) == ("CT", False, 30)
    assert (second.scheme, second.use_mask, second.statistics) == ("zscore", True, None)
    assert settings(model, "preprocessor")["resample"] == "in_plane"
    assert model.configuration.spacing == (3, 1, 1)


def test_weights_of_something_else_are_refused(tmp_path):
    with pytest.raises(StorageError, match=r"have 3 outputs, dataset\.json and plans declare 2"):
        small(tmp_path / "a", dataset=v2.dataset({"background": 0, "first": 1}))
    with pytest.raises(StorageError, match=r"have 3 axes, .* declare 2"):
        small(tmp_path / "b", v2.configuration((16, 16)))
    other = {"encoder.0.0.conv.weight": torch.ones(1)}
    with pytest.raises(StorageError, match="the network cannot be built here"):
        small(tmp_path / "c", state=other)


def test_the_cleaning_of_the_cross_validation_comes_along(tmp_path):
    small(tmp_path)
    place = next(tmp_path.glob("nnUNet*")) / "crossval_results_folds_0_1"
    place.mkdir()
    name = "remove_all_but_largest_component_from_segmentation"
    arguments = [{"labels_or_regions": [1, [1, 2]]}, {"labels_or_regions": 2}]
    said = {"postprocessing_fns": [name, name], "postprocessing_kwargs": arguments}
    (place / "postprocessing.json").write_text(json.dumps(said))
    (place / "postprocessing.pkl").write_bytes(b"never read")
    model = converted(tmp_path)
    assert model.components["postprocessor"][0] == "builtin/largest_component"
    assert model.postprocessing["for_which_classes"] == [[1, 2], [2]]
    assert model.postprocessing["corners"]
    said["postprocessing_fns"][0] = "os.system"
    (place / "postprocessing.json").write_text(json.dumps(said))
    with pytest.raises(StorageError, match=r"names the function os\.system"):
        converted(tmp_path)


def picture(path, direction, seed=0):
    """Write an image with other values everywhere, so that no axis can be mistaken for another."""
    random = np.random.RandomState(seed)
    image = sitk.GetImageFromArray(random.randn(10, 20, 22).astype(np.float32))
    image.SetSpacing((1.0, 1.1, 2.5))
    image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, path)
    return image


def test_turned_images_get_the_same_labels_in_the_world(tmp_path):
    """A network that was trained on images in RAS predicts one image in every order of its axes."""
    once = {"inference_allowed_mirroring_axes": None}  # mirroring would hide a reversed axis
    small(tmp_path, said=once, plans={"image_reader_writer": "NibabelIOWithReorient"})
    imported(tmp_path, tmp_path / "ws")
    image = picture(tmp_path / "images" / "case_0000.nii.gz", (1, 0, 0, 0, 1, 0, 0, 0, 1))
    for axes in ("RAS", "LIP", "SAL"):
        turned = sitk.DICOMOrient(image, axes)
        sitk.WriteImage(turned, tmp_path / "images" / f"{axes}_0000.nii.gz")
    model = "Dataset900_Small/nnUNetTrainer__nnUNetPlans/3d_fullres"
    predict(tmp_path / "ws", model, tmp_path / "images", tmp_path / "out")
    expected = sitk.ReadImage(tmp_path / "out" / "case.nii.gz")
    assert len(np.unique(sitk.GetArrayFromImage(expected))) > 1
    for axes in ("RAS", "LIP", "SAL"):
        found = sitk.ReadImage(tmp_path / "out" / f"{axes}.nii.gz")
        image_of = sitk.ReadImage(tmp_path / "images" / f"{axes}_0000.nii.gz")
        assert np.allclose(found.GetDirection(), image_of.GetDirection())
        back = sitk.DICOMOrient(found, "LPS")
        assert np.array_equal(*map(sitk.GetArrayFromImage, (back, expected)))
        probabilities = read_probabilities(tmp_path / "out" / f"{axes}.b2nd")
        winners = probabilities.argmax(0)
        assert (winners == sitk.GetArrayFromImage(found)).mean() > 0.999  # they are rounded


def test_a_cascade_predicts_its_first_stage_by_itself(tmp_path):
    base = tmp_path / "Dataset900_Small"
    low, full = v2.configuration(), v2.configuration(previous_stage="3d_lowres")
    plans = v2.plans({"3d_lowres": low, "3d_cascade_fullres": full})
    for name, channels in (("3d_lowres", 1), ("3d_cascade_fullres", 3)):
        state = v2.network(channels=channels).state_dict()
        folder = base / f"nnUNetTrainer__nnUNetPlans__{name}"
        v2.write(folder, plans, v2.dataset(), {"0": v2.checkpoint(state, name)})
    done = imported(base, tmp_path / "ws")
    assert "It needs the model of '3d_lowres' beside it" in done.stderr
    picture(tmp_path / "images" / "case_0000.nii.gz", (1, 0, 0, 0, 1, 0, 0, 0, 1))
    model = "Dataset900_Small/nnUNetTrainer__nnUNetPlans/3d_cascade_fullres"
    predict(tmp_path / "ws", model, tmp_path / "images", tmp_path / "out")
    found = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out" / "case.nii.gz"))
    assert len(np.unique(found)) > 1


def test_what_is_imported_is_listed_and_described(tmp_path):
    small(tmp_path)
    imported(tmp_path, tmp_path / "ws")
    folder = tmp_path / "ws/results/Dataset900_Small/nnUNetTrainer__nnUNetPlans/3d_fullres"
    document = ModelDocument.read(folder / "model.json")
    assert document.origin == "nnU-Net v2, trainer nnUNetTrainer, plans nnUNetPlans"
    assert (
        load_file(folder / "fold_0/weights.safetensors").keys() == v2.network().state_dict().keys()
    )
    listed = commands.nnunet("models", "list", "--workspace", tmp_path / "ws")
    assert "nnUNetTrainer__nnUNetPlans" in listed.stdout
