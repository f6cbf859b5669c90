"""Who reads a folder: ours first, then the only one of others that fits; folders of images to
predict, too.
"""

import dataclasses

import pytest

from nnunet_core import Component, hookimpl
from nnunet_core.data.dataset import CaseFiles, DatasetContent
from nnunet_core.data.labels import Labels
from nnunet_core.errors import DatasetError, PluginError
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.stages.dataset import find_cases, find_dataset, open_dataset


class Flat:
    """Reads folders of CASE_image.nii.gz with CASE_mask.nrrd beside them."""

    looks_for = "CASE_image.nii.gz"

    def __init__(self, lesion: str = "lesion") -> None:
        self.lesion = lesion

    def fits(self, folder):
        return any(folder.rglob("*_image.nii.gz"))

    def cases(self, folder, dataset):
        found = folder.glob("*_image.nii.gz")
        return [CaseFiles(path.name.removesuffix("_image.nii.gz"), (path,)) for path in found]

    def read(self, folder, registry):
        del registry
        cases = [
            dataclasses.replace(case, label=folder / f"{case.name}_mask.nrrd")
            for case in self.cases(folder, None)
        ]
        labels = Labels.from_names({"background": 0, self.lesion: 1})
        return DatasetContent(("MRI",), labels, tuple(cases), label_ending=".nrrd")


class Unfinished:
    looks_for = "anything"

    def fits(self, folder):
        return True

    def read(self, folder, registry):
        raise NotImplementedError


class Plugin:
    def __init__(self, target="Flat", **settings):
        self.target, self.settings = target, settings

    @hookimpl
    def nnunet_dataset_readers(self):
        return [Component("flat", f"test_dataset_readers:{self.target}", "", self.settings)]


@pytest.fixture
def flat(tmp_path):
    for name in "ba":
        (tmp_path / "flat").mkdir(exist_ok=True)
        (tmp_path / "flat" / f"{name}_image.nii.gz").touch()
    return tmp_path / "flat"


@pytest.fixture
def registry(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.path.parent))
    return with_reader(Registry.discover(), "one")


def with_reader(registry, name, **options):
    registry.register(Plugin(**options), PluginInfo(name, name, name, "1", "active"))
    return registry


def test_what_a_reader_of_somebody_else_finds_is_a_dataset(flat, registry):
    dataset = open_dataset(str(flat), flat.parent, registry)
    assert (dataset.folder, dataset.name, dataset.names) == (flat, "flat", ("a", "b"))
    assert (dataset.ending, dataset.label_ending) == (".nii.gz", ".nrrd")
    assert dataset.label_format.endings == (".nrrd", ".seg.nrrd", ".nhdr")
    assert find_dataset("flat", flat.parent, registry) == flat
    assert [case.name for case in find_cases(flat, dataset, registry)] == ["a", "b"]


def test_channels_and_labels_are_part_of_the_identity_of_what_has_no_document(flat, registry):
    for name in "ab":
        (flat / f"{name}_mask.nrrd").touch()
    other = with_reader(Registry.discover(), "one", lesion="tumour")
    digests = {open_dataset(str(flat), flat, each).digest for each in (registry, other)}
    assert len(digests) == 2


def test_a_folder_of_ours_is_never_read_by_another_reader(tiny, registry):
    for folder in (tiny, tiny / "imagesTr"):
        (folder / "x_image.nii.gz").touch()
    dataset = open_dataset(str(tiny), tiny.parent, registry)
    assert dataset.names == tuple(f"case_{number}" for number in range(6))
    found = find_cases(tiny / "imagesTr", dataset, registry)
    assert [case.name for case in found] == list(dataset.names)


def test_two_readers_that_fit_are_an_error_with_the_way_out(flat, registry):
    with_reader(registry, "two")
    with pytest.raises(DatasetError, match=r"one/flat, two/flat\. Block .* --no-plugin"):
        open_dataset(str(flat), flat.parent, registry)


def test_a_reader_without_a_method_of_the_contract_is_refused(flat, registry):
    with_reader(registry, "two", target="Unfinished")
    with pytest.raises(PluginError, match=r"'two/flat' lacks cases; .*DatasetReader"):
        open_dataset(str(flat), flat.parent, registry)


def test_without_a_reader_the_message_names_what_is_blocked(tiny, monkeypatch):
    monkeypatch.setenv("NNUNET_DISABLE_PLUGINS", "datasets")
    with pytest.raises(
        DatasetError, match=r"Readers: none is active\. .*blocked or broken: .*datasets"
    ):
        open_dataset(str(tiny), tiny.parent, Registry.discover())


def test_images_that_no_reader_knows_name_what_the_readers_look_for(tmp_path, tiny, registry):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "brain.other").touch()
    dataset = open_dataset(str(tiny), tiny.parent, registry)
    with pytest.raises(DatasetError, match=r"images CASE_0000\.ext; one/flat looks for CASE_image"):
        find_cases(tmp_path / "images", dataset, registry)
    with pytest.raises(DatasetError, match=r"folder .* does not exist"):
        find_cases(tmp_path / "nothing", dataset, registry)
