"""Each check of dataset readers and makers finds the one that breaks it."""

import itertools
import json
from dataclasses import dataclass, replace

import pytest
from kit import assert_fails, row_of

from nnunet_builtin.datasets.reading import NnunetReader
from nnunet_builtin.demo.dataset import Demo
from nnunet_core.data.dataset import CaseFiles, DatasetContent
from nnunet_core.data.labels import Labels
from nnunet_core.testing import checks_of

_count = itertools.count()


class Greedy(NnunetReader):
    def fits(self, folder):
        return folder.is_dir()


class Falling(NnunetReader):
    def fits(self, folder):
        return bool(json.loads((folder / "dataset.json").read_text()))


class Changed(NnunetReader):
    """Reads a dataset as the built-in reader does, with other training cases."""

    def change(self, cases):
        raise NotImplementedError

    def read(self, folder, registry):
        content = super().read(folder, registry)
        return replace(content, training=tuple(self.change(content.training)))


class Nothing(Changed):
    def change(self, cases):
        return ()


class Twins(Changed):
    def change(self, cases):
        return (*cases, cases[0])


class Unlabelled(Changed):
    def change(self, cases):
        return [replace(case, label=None) for case in cases]


class Elsewhere(Changed):
    def change(self, cases):
        return [replace(case, label=case.label.with_name("no.nii.gz")) for case in cases]


class Paths(Changed):
    def change(self, cases):
        return [replace(case, name=f"../{case.name}") for case in cases]


class Shuffled(Changed):
    def change(self, cases):
        shift = next(_count) % len(cases)
        return (*cases[shift:], *cases[:shift])


class Lenient(NnunetReader):
    def read(self, folder, registry):
        paths = sorted((folder / "imagesTr").glob("*_0000.nii.gz"))
        cases = [
            CaseFiles(
                path.name.removesuffix("_0000.nii.gz"),
                (path,),
                folder / "labelsTr" / path.name.replace("_0000", ""),
            )
            for path in paths
        ]
        labels = Labels.from_names({"background": 0, "shell": 1, "core": 2})
        there = tuple(case for case in cases if case.label.is_file())
        return DatasetContent(channels=("MRI",), labels=labels, training=there)


class NoneToPredict(NnunetReader):
    def cases(self, folder, dataset):
        return ()


WRONG_READERS = [
    (Greedy, "reader_fits_only_its_layout", "True of a folder that is empty"),
    (Falling, "reader_fits_only_its_layout", "FileNotFoundError"),
    (Nothing, "reader_reads_every_case", "no training case"),
    (Twins, "reader_reads_every_case", "two cases have one name"),
    (Unlabelled, "reader_reads_every_case", "needs a label"),
    (Elsewhere, "reader_reads_every_case", "no.nii.gz does not exist"),
    (Paths, "reader_reads_every_case", "cannot be that of a file"),
    (Shuffled, "reader_is_deterministic", "another content"),
    (NoneToPredict, "reader_lists_cases_to_predict", "no case in imagesTr"),
    (Lenient, "reader_names_a_missing_file", "leaves out the case"),
]


@pytest.mark.parametrize(("reader", "check", "message"), WRONG_READERS)
def test_a_wrong_reader_fails(reader, check, message):
    assert_fails(reader, check, message, "dataset_reader")


class Flat:
    """A reader of a layout of its own."""

    looks_for = "images named CASE_image.nii.gz"

    def fits(self, folder):
        return any(folder.glob("*_image.nii.gz"))

    def cases(self, folder, dataset=None):
        found = sorted(folder.glob("*_image.nii.gz"))
        return [CaseFiles(path.name.removesuffix("_image.nii.gz"), (path,)) for path in found]

    def read(self, folder, registry):
        training = [replace(c, label=folder / f"{c.name}_mask.nii.gz") for c in self.cases(folder)]
        labels = Labels.from_names({"background": 0, "shell": 1, "core": 2})
        return DatasetContent(channels=("MRI",), labels=labels, training=tuple(training))


def test_a_reader_of_another_layout_needs_an_example(toy_datasets, tmp_path):
    check = "reader_reads_every_case"
    row = row_of(Flat, check, "dataset_reader")
    assert row.outcome == "skipped"
    assert "Give a folder" in row.message
    source = toy_datasets.folder("3d")
    for name in ("case_0", "case_1"):
        image = (source / "imagesTr" / f"{name}_0000.nii.gz").read_bytes()
        label = (source / "labelsTr" / f"{name}.nii.gz").read_bytes()
        (tmp_path / f"{name}_image.nii.gz").write_bytes(image)
        (tmp_path / f"{name}_mask.nii.gz").write_bytes(label)
    row = row_of(Flat, "reader_is_deterministic", "dataset_reader", example=tmp_path)
    assert row.outcome == "passed", row.message
    # nobody registers it, so that `nnunet run` would not find it
    assert_fails(Flat, check, "No dataset reader", "dataset_reader", example=tmp_path)


@dataclass
class Astray(Demo):
    def make(self, raw, report):
        return super().make(raw / "deeper", report)


@dataclass
class Remade(Demo):
    def make(self, raw, report):
        folder = super().make(raw, report)
        (folder / "made.txt").write_text(str(next(_count)))
        return folder


@dataclass
class Numbered(Demo):
    def make(self, raw, report):
        folder = super().make(raw, report)
        (folder / "where.txt").write_text(str(folder))
        return folder


@dataclass
class NoVariant(Demo):
    variant: str = "no_such_variant"


@dataclass
class NoFolder(Demo):
    def make(self, raw, report):
        return raw / "missing"


WRONG_MAKERS = [
    (Astray, "dataset_is_made_once", "does not lie in the raw folder"),
    (NoFolder, "dataset_is_made_once", "no folder"),
    (Remade, "dataset_is_made_once", "Files changed the second time"),
    (Numbered, "dataset_is_the_same_everywhere", "where.txt"),
    (NoVariant, "dataset_can_be_run", "no variant named"),
]


@pytest.mark.parametrize(("maker", "check", "message"), WRONG_MAKERS)
def test_a_wrong_maker_fails(maker, check, message):
    assert_fails(maker, check, message, "dataset")


@pytest.mark.parametrize(
    ("kind", "begins", "wrong"),
    [("dataset_reader", "reader_", WRONG_READERS), ("dataset", "dataset_", WRONG_MAKERS)],
)
def test_every_check_has_a_wrong_one(kind, begins, wrong):
    own = {check.name for check in checks_of(kind) if check.name.startswith(begins)}
    assert own == {check for _, check, _ in wrong}
