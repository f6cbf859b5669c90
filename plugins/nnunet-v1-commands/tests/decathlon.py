"""Two tasks of the decathlon in small: Hippocampus (one channel), Prostate (two, in 4D files)."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

_SHAPE = (16, 20, 18)


def make_tasks(folder: Path, cases: int = 5) -> None:
    """Write Task04_Hippocampus and Task05_Prostate, and references of their test cases, which the
    decathlon keeps.
    """
    _make(folder / "Task04_Hippocampus", "hippocampus", ["MRI"], (1.0, 1.0, 1.0), cases)
    _make(folder / "Task05_Prostate", "prostate", ["T2", "ADC"], (0.6, 0.6, 2.0), cases)


def _make(task: Path, name: str, channels: list[str], spacing: tuple, cases: int) -> None:
    rng = np.random.default_rng(len(channels))
    training = []
    for index in range(cases + 2):
        part = "Tr" if index < cases else "Ts"
        case = f"{name}_{index:03d}"
        label = _label(rng)
        images = [(100 + 60 * label + rng.normal(0, 8, _SHAPE)).astype("f4") for _ in channels]
        _write(task / f"images{part}" / f"{case}.nii.gz", images, spacing)
        _write(task / f"labels{part}" / f"{case}.nii.gz", [label], spacing)
        if part == "Tr":
            entry = {kind: f"./{kind}s{part}/{case}.nii.gz" for kind in ("image", "label")}
            training.append(entry)
    (task / "labelsTs").rename(task.with_name(f"{task.name}_labelsTs"))
    (task / "imagesTr" / f"._{name}_000.nii.gz").write_bytes(b"of a Mac")
    document = {
        "name": task.name[7:],
        "tensorImageSize": "4D" if len(channels) > 1 else "3D",
        "modality": {str(index): channel for index, channel in enumerate(channels)},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": cases,
        "numTest": 2,
        "training": training,
        "test": [f"./imagesTs/{name}_{index:03d}.nii.gz" for index in range(cases, cases + 2)],
    }
    (task / "dataset.json").write_text(json.dumps(document))


def _label(rng: np.random.Generator) -> np.ndarray:
    label = np.zeros(_SHAPE, np.uint8)
    z, y, x = rng.integers(2, 6, 3)
    label[z : z + 5, y : y + 8, x : x + 8] = 1
    label[z + 5 : z + 9, y : y + 8, x : x + 8] = 2
    return label


def _write(path: Path, arrays: list[np.ndarray], spacing: tuple) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [sitk.GetImageFromArray(array) for array in arrays]
    for image in images:
        image.SetSpacing(spacing)
    sitk.WriteImage(sitk.JoinSeries(images) if len(images) > 1 else images[0], str(path))
