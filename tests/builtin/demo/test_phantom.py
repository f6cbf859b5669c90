"""The phantom dataset: complete, the same for the same seed, and neither trivial nor empty."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_builtin.datasets.verification import verify
from nnunet_builtin.demo.phantom import LESION, ORGAN, VESSEL, make_phantom
from nnunet_core.data.dataset import Dataset
from nnunet_core.errors import StorageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime import files
from nnunet_core.stages.dataset import find_cases, open_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six training and two test cases."""
    raw = tmp_path_factory.mktemp("raw")
    make_phantom(raw / "Dataset999_Phantom", cases=6, test_cases=2)
    return open_dataset("999", raw, Registry.discover())


def test_it_is_a_dataset_without_errors_or_warnings(dataset: Dataset) -> None:
    report = verify(dataset)
    assert (report.errors, report.warnings) == ((), ())
    assert (len(report.cases), len(report.test_cases)) == (6, 2)
    tests = find_cases(dataset.folder / "imagesTs", dataset, Registry.discover())
    for case in tests:
        dataset.load_label(dataset.folder / "labelsTs" / f"{case.name}.nii.gz")
    assert dataset.folder.name == "Dataset999_Phantom"


def test_cases_differ_in_size_spacing_and_content(dataset: Dataset) -> None:
    report = verify(dataset)
    assert len({case.content for case in (*report.cases, *report.test_cases)}) == 8
    assert len({case.spacing for case in report.cases}) > 1
    assert len({case.shape for case in report.cases}) > 1
    (low, high), (small, large) = report.shape_range, report.spacing_range
    assert all(20 <= a <= b <= 56 for a, b in zip(low, high, strict=True))
    assert small == pytest.approx((2.5, 1.2, 1.2), rel=0.1)
    assert large == pytest.approx((2.5, 1.2, 1.2), rel=0.1)


def test_every_case_has_every_label_and_the_lesion_lies_in_the_organ(dataset: Dataset) -> None:
    for files_ in dataset.training:
        label = dataset.load(files_).label
        counts = np.bincount(label.ravel(), minlength=4)
        assert (counts[1:] > 50).all()
        lesion = np.argwhere(label == LESION).mean(axis=0).round().astype(int)
        organ = np.argwhere((label == ORGAN) | (label == LESION))
        assert (organ.min(axis=0) <= lesion).all()
        assert (lesion <= organ.max(axis=0)).all()


def test_no_threshold_separates_the_labels(dataset: Dataset) -> None:
    case = dataset.load(dataset.training[0])
    image, label = case.images[0], case.label
    for value in (ORGAN, VESSEL, LESION):
        inside = np.percentile(image[label == value], (10, 90))
        alike = (image > inside[0]) & (image < inside[1]) & (label != value)
        assert alike.sum() > 0.25 * (label == value).sum()


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> list[bytes]:
        folder = make_phantom(tmp_path / name, cases=1, seed=seed, test_cases=1)
        return [path.read_bytes() for path in sorted(folder.rglob("*.nii.gz"))]

    assert len(content("a", 3)) == 4
    assert content("b", 3) == content("c", 3)
    assert content("d", 3) != content("e", 4)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(StorageError, match="exists already"):
        make_phantom(tmp_path / "mine", cases=1)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "notes.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with files.atomic_folder(tmp_path / "data", overwrite=True) as folder:
            (folder / f"{number}.txt").write_text(str(1 / number))

    write(1)
    with pytest.raises(ZeroDivisionError):
        write(0)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["1.txt", "data"]
    write(2)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["2.txt", "data"]
