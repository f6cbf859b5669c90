"""Plans of another dataset: what is taken, what the dataset decides, and what is refused."""

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import commands
import pytest
import v2_models as v2
from described_datasets import described
from tiny_dataset import make_tiny
from v1_models import v1_plans

from nnunet_builtin.models.copied.planner import CopiedPlans
from nnunet_builtin.models.copied.reading import read_source
from nnunet_builtin.models.foreign import ImportOptions
from nnunet_builtin.models.v1 import find as find_v1
from nnunet_builtin.models.v2 import find as find_v2
from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_builtin.planning.planner import PlannerV21
from nnunet_core.data.plans import Plans
from nnunet_core.errors import StorageError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.stages.method import choose

LARGE = ([(300, 256, 256)] * 4, [(2.0, 0.8, 0.8)] * 4, ["CT"], 2)
BRIEF = [
    *("--device", "cpu", "--workers", "0", "--processes", "1"),
    *("--set", "trainer.epochs=1", "--set", "trainer.iterations_per_epoch=1"),
    *("--set", "trainer.validation_iterations=0"),
]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the file of the plans of a dataset of large CT volumes, with a cascade."""
    dataset, fingerprint = described(*LARGE)
    path = tmp_path_factory.mktemp("large") / "v21.json"
    PlannerV21().plan(dataset, fingerprint, PlainUNet()).write(path)
    return path


def copied(source, sizes, spacings, channels=("CT",), classes=3, network=None):
    dataset, fingerprint = described(sizes, spacings, channels, classes)
    return CopiedPlans(str(source)).plan(dataset, fingerprint, network or PlainUNet())


def test_all_is_as_in_the_source_but_classes_and_the_median_case(large):
    source = Plans.read(large).configurations
    plans = copied(large, [(200, 100, 120)] * 3, [(1.0, 1.6, 0.8)] * 3, classes=5)
    assert list(plans.configurations) == list(source)
    for name, found in plans.configurations.items():
        changing = {"median_shape", "network", "notes", *(["spacing"] if name == "2d" else [])}
        assert found.model_dump(exclude=changing) == source[name].model_dump(exclude=changing)
        sizes = {"input_channels", "output_channels"}
        network = source[name].network
        assert found.network.model_dump(exclude=sizes) == network.model_dump(exclude=sizes)
        assert found.network.output_channels == 6
        assert found.network.input_channels == (6 if name == "3d_cascade_fullres" else 1)
    assert plans.configurations["3d_fullres"].median_shape == (100, 200, 120)
    assert plans.configurations["2d"].spacing[0] == 1.0  # nothing is resampled across slices


def test_channels_of_another_number_are_refused_and_other_names_said(large):
    sizes, spacings = [(200, 100, 120)] * 3, [(1.0, 1.6, 0.8)] * 3
    with pytest.raises(UsageError, match=r"for 1 image channel, and .* has 2 \(CT, PET\)"):
        copied(large, sizes, spacings, ("CT", "PET"))
    notes = copied(large, sizes, spacings, ("T1",)).notes
    assert not any("normalised as" in note for note in notes)  # a plans file names no channels


def test_volumes_are_no_patches_for_single_slices(large):
    plans = copied(large, [(1, 256, 256)] * 3, [(999.0, 1.0, 1.0)] * 3)
    assert list(plans.configurations) == ["2d"]
    assert "every case is a single slice" in plans.skipped["3d_fullres"]
    content = json.loads(large.read_text())
    del content["configurations"]["2d"]
    volumes = large.with_name("volumes.json")
    volumes.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"Nothing of .* every case is a single slice"):
        copied(volumes, [(1, 256, 256)] * 3, [(999.0, 1.0, 1.0)] * 3)


def test_code_that_a_source_names_is_not_taken(large, tmp_path):
    content = json.loads(large.read_text())
    content["configurations"]["3d_fullres"]["extra"] = {"reader": "os:system"}
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(content))
    assert "names code (os:system)" in copied(path, *LARGE[:2]).skipped["3d_fullres"]


def test_a_patch_that_the_network_cannot_take_is_left_out_with_the_reason(large, tmp_path):
    content = json.loads(large.read_text())
    content["configurations"]["3d_lowres"]["patch_size"][1] += 1
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(content))
    plans = copied(path, *LARGE[:2])
    assert "no multiple of" in plans.skipped["3d_lowres"]
    assert plans.skipped["3d_cascade_fullres"] == "there is no 3d_lowres"
    assert list(plans.configurations) == ["2d", "3d_fullres"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("plans.json", None, UsageError, "there is no"),
        ("plans.zip", b"PK", UsageError, "models import"),
        ("plans.json", b"{", StorageError, "plans.json"),
        ("plans.json", b'{"a": 1}', StorageError, "plans.json"),
        ("plans.pkl", b"cos\nsystem\n(S'true'\ntR.", StorageError, "plans.pkl"),
        ("plans.pkl", pickle.dumps({"a": 1}), StorageError, "plans.pkl"),
        ("other.txt", b"", UsageError, r"holds no model\.json"),
    ],
)
def test_what_holds_no_plans_is_refused_by_name(tmp_path, name, content, error, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        read_source(tmp_path if name == "other.txt" else path)


def test_without_a_source_the_setting_is_named():
    dataset, fingerprint = described(*LARGE)
    with pytest.raises(UsageError, match=r"--set planner\.source="):
        CopiedPlans().plan(dataset, fingerprint, PlainUNet())


def test_old_plans_of_v1_have_their_kernels_derived(tmp_path):
    new, old = v1_plans(stages=2), v1_plans(stages=2, old=True)
    for plans in (new, old):
        plans["transpose_forward"], plans["transpose_backward"] = [0, 1, 2], [0, 1, 2]
        plans["preprocessor_name"] = "GenericPreprocessor"
        for stage in plans["plans_per_stage"].values():
            stage["num_pool_per_axis"] = [1, 2, 2]
            if plans is new:
                stage["pool_op_kernel_sizes"] = [[1, 2, 2], [2, 2, 2]]
    found = []
    for name, plans in (("new.pkl", new), ("old.pkl", old)):
        (tmp_path / name).write_bytes(pickle.dumps(plans))
        found.append(read_source(tmp_path / name))
    assert list(found[0].configurations) == ["3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    assert found[0] == found[1]


def test_old_plans_of_v2_are_those_of_today(tmp_path):
    found = v2.configuration()
    read = []
    for name, one in (("new.json", found), ("old.json", v2.without_architecture(found))):
        (tmp_path / name).write_text(json.dumps(v2.plans({"3d_fullres": one})))
        read.append(read_source(tmp_path / name).configurations["3d_fullres"].network)
    assert read[0].model_copy(update={"max_features": 320}) == read[1]


def test_what_v2_resamples_otherwise_is_left_out_with_the_reason(tmp_path):
    odd = v2.configuration(**v2.ways("resample_by_somebody", {}))
    plans = v2.plans({"3d_fullres": v2.configuration(), "odd": odd})
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    source = read_source(tmp_path)
    assert list(source.configurations) == ["3d_fullres"]
    assert "resample_by_somebody" in source.skipped["odd"]


def test_the_options_for_another_network_are_said_until_they_are_given(tmp_path):
    found = v2.configuration(residual=True)
    (tmp_path / "plans.json").write_text(json.dumps(v2.plans({"3d_fullres": found})))
    (tmp_path / "dataset.json").write_text(json.dumps(v2.dataset(channels=("MRI",))))
    sizes = ([(16, 40, 40)] * 2, [(3.0, 1.0, 1.0)] * 2)
    _, channel, options = copied(tmp_path, *sizes).notes
    assert "'CT' is normalised as 'MRI'" in channel
    for words in ("--network builtin/residual_unet", "network.blocks=[1, 2, 2]", "network.layout="):
        assert words in options
    network = ResidualUNet(blocks=(1, 2, 2), layout="v2")
    assert not any("add:" in note for note in copied(tmp_path, *sizes, network=network).notes)


def test_slices_are_prepared_by_a_preprocessor_that_never_resamples_across_them(tmp_path):
    found = v2.configuration(patch=(16, 16))
    (tmp_path / "plans.json").write_text(json.dumps(v2.plans({"2d": found})))
    source = read_source(tmp_path)
    assert source.configurations["2d"].preprocessor == "builtin/v2_planes"
    assert source.options("2d", PlainUNet(layout="v2")) == []


@pytest.mark.shared
def test_plans_of_v1_and_v2_are_what_their_imported_models_have(models, tmp_path):
    for path in sorted(models.glob("v?/*.zip")):
        with zipfile.ZipFile(path) as content:
            content.extractall(tmp_path / path.stem)
    found = [*find_v1(tmp_path), *find_v2(tmp_path)]
    assert len(found) == 5
    for one in found:
        model = one.convert(ImportOptions(), Silence())
        ours = read_source(one.folder).configurations[model.configuration_name]
        unlike = {"network", "preprocessor", "batch_dice"}  # v1 keeps the last beside the weights
        assert ours.model_dump(exclude=unlike) == model.configuration.model_dump(exclude=unlike)
        stages = range(len(ours.network.conv_kernels))
        network = model.configuration.network
        assert [ours.network.features(s) for s in stages] == [network.features(s) for s in stages]
        for name in ("pool_kernels", "conv_kernels", "convs_per_stage", "input_channels"):
            assert getattr(ours.network, name) == getattr(network, name)


def test_the_identity_is_what_the_source_holds_not_where_it_lies(large, tmp_path):
    registry = Registry.discover()

    def name(path):
        settings = {"planner": {"source": str(path)}}
        return choose(registry, choices={"planner": "copied"}, settings=settings).name

    moved = tmp_path / "elsewhere.json"
    shutil.copy(large, moved)
    before = name(moved)
    assert before == name(large)
    content = json.loads(moved.read_text())
    content["configurations"]["3d_fullres"]["batch_size"] += 1
    moved.write_text(json.dumps(content))
    assert name(moved) != before


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the model of a small dataset, and another dataset in its workspace, of more
    classes.
    """
    space = tmp_path_factory.mktemp("copied")
    make_tiny(space / "raw" / "Dataset001_Organs")
    other = make_tiny(space / "raw" / "Dataset002_Tumour")
    document = json.loads((other / "dataset.json").read_text())
    document["labels"]["rare"] = 2
    (other / "dataset.json").write_text(json.dumps(document))
    small = ("--set", "planner.base_features=4", "--set", "planner.max_batch_size=2")
    done = commands.nnunet("train", 1, "--workspace", space, *BRIEF, *small)
    assert done.returncode == 0, done.stderr
    (model,) = space.glob("results/Dataset001_Organs/*/3d_fullres")
    return space, model


def test_a_training_from_the_model_takes_over_all_tensors_but_heads(trained):
    space, model = trained
    commands.nnunet("plan", 2, "--workspace", space)
    options = ("--planner", "copied", "--set", f"planner.source={model}", "--pretrained", model)
    done = commands.nnunet("train", 2, "--workspace", space, *BRIEF, *options)
    assert done.returncode == 0, done.stderr
    (report,) = space.glob("results/Dataset002_Tumour/*/3d_fullres/fold_0/pretrained.txt")
    first, *others = report.read_text().splitlines()
    loaded, total = (int(word) for word in first.split() if word.isdigit())
    assert total - loaded == len(others) > 0
    assert all("initialised anew: heads." in line for line in others)
    plans = sorted(path.name for path in space.glob("preprocessed/Dataset002_Tumour/plans/*.json"))
    assert [name.partition("-")[0] for name in plans] == ["copied", "v21"]


def test_the_folder_of_a_variant_is_a_source_too(trained):
    _, model = trained
    assert read_source(model.parent) == read_source(model)
    renamed = shutil.copy(model / "model.json", model.parent / "organs.json")
    assert read_source(Path(renamed)) == read_source(model)
