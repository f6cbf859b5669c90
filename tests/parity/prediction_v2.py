"""Compare predictions of imported models with those of nnU-Net v2 itself.

Small networks with random weights stand for everything that v2 can do to an image: cropping,
permuted axes, resampling along axes of low resolution, every normalisation, regions, batch norm,
images that are turned to RAS, cascades, resampling by PyTorch.

Usage: PYTHONPATH=tests/builders python tests/parity/prediction_v2.py --v2-python V2/bin/python
    [--work FOLDER] [NAME ...]
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import commands
import numpy as np
import SimpleITK as sitk
import v2_models as v2

from nnunet_core import read_probabilities

TORCH = "resample_torch_fornnunet"
LIP = (-1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0)  # not RAS, and axes in another order
OBLIQUE = tuple(
    float(value)
    for value in (
        np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])
        @ np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]])
    ).ravel()
)


def image(path, shape, spacing, seed, direction=None):
    """Write smooth random values with a border of zeros, so that something is cropped."""
    random = np.random.RandomState(seed)
    array = sitk.GetArrayFromImage(
        sitk.SmoothingRecursiveGaussian(
            sitk.GetImageFromArray(random.randn(*shape).astype(np.float32)), 1.0
        )
    )
    array = (array * 200 + 20).round() + 0.5
    array[:, :3] = array[:, :, -4:] = 0
    written = sitk.GetImageFromArray(array)
    written.SetSpacing(spacing[::-1])
    written.SetOrigin((11.0, -7.0, 3.0))
    if direction is not None:
        written.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(written, path)


def network(configuration, folds=1, mirrored=None, **sizes):
    """Return random folds; without mirroring, which would hide an axis that is taken in reverse."""
    name = configuration
    return {
        str(fold): v2.checkpoint(
            v2.network(seed=fold, **sizes).state_dict(),
            name,
            inference_allowed_mirroring_axes=mirrored,
        )
        for fold in range(folds)
    }


def batch_norm(found):
    arguments = found["architecture"]["arch_kwargs"]
    arguments["norm_op"] = "torch.nn.modules.batchnorm.BatchNorm3d"
    return found


def torch_resampling(separate):
    return v2.ways(TORCH, {"force_separate_z": separate, "memefficient_seg_resampling": False})


def models():
    """Return {name: (plans, dataset.json, folds, shape, spacing, direction) of an image}."""
    plain, flat = v2.configuration(), v2.configuration((16, 16), (1.0, 1.0))
    masked = v2.configuration(use_mask_for_norm=[True])
    two = {"normalization_schemes": ["CTNormalization", "RescaleTo01Normalization"]}
    mixed = v2.configuration(residual=True, use_mask_for_norm=[False, False], **two)
    usual = ((12, 30, 34), (2.5, 0.9, 1.1), None)
    reorient = {"image_reader_writer": "NibabelIOWithReorient"}
    turned = {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    flat_turned = {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    no = {"normalization_schemes": ["NoNormalization"]}
    unnormed = v2.configuration((16, 16), (1.2, 0.8), **no)
    regions = v2.dataset(v2.REGIONS, regions_class_order=[1, 2])

    def of(configuration, **changes):
        return v2.plans({"3d_fullres": configuration}, **changes)

    def folds(*args, **kwargs):
        return network("3d_fullres", *args, **kwargs)

    return {
        "plain": (of(masked), v2.dataset(), folds(2, (0, 1, 2)), *usual),
        "residual": (
            of(mixed, **turned),
            v2.dataset(channels=("CT", "rescale_to_0_1")),
            folds(residual=True, channels=2),
            (30, 12, 34),
            (0.9, 4.5, 1.1),
            None,
        ),
        "thick": (of(plain), v2.dataset(), folds(), (6, 40, 40), (7.0, 0.7, 0.7), None),
        "slices": (of(flat), v2.dataset(), folds(dimensions=2), *usual),
        "slices_turned": (
            of(unnormed, **flat_turned),
            v2.dataset(),
            folds(dimensions=2),
            (30, 34, 6),
            (0.9, 1.1, 2.5),
            None,
        ),
        "regions": (
            of(batch_norm(v2.configuration())),
            regions,
            folds(outputs=2, norm="batch"),
            *usual,
        ),
        "reoriented": (of(plain, **reorient), v2.dataset(), folds(), *usual[:2], LIP),
        "oblique": (of(plain, **reorient), v2.dataset(), folds(), *usual[:2], OBLIQUE),
        "torch": (of({**plain, **torch_resampling(False)}), v2.dataset(), folds(), *usual),
        "torch_apart": (
            of({**plain, **torch_resampling(None)}),
            v2.dataset(),
            folds(),
            (6, 40, 40),
            (7.0, 0.7, 0.7),
            None,
        ),
        "small": (of(plain), v2.dataset(), folds(), (4, 13, 14), (3.0, 1.0, 1.0), None),
    }


def cascade(folder):
    """Write the two stages of a cascade; return their folders."""
    low = v2.configuration(spacing=(3.0, 1.6, 1.6))
    full = v2.configuration(previous_stage="3d_lowres")
    plans = v2.plans({"3d_lowres": low, "3d_cascade_fullres": full})
    base = folder / "Dataset900_Small"
    names = ("3d_lowres", "3d_cascade_fullres")
    return [
        v2.write(
            base / f"nnUNetTrainer__nnUNetPlans__{name}",
            plans,
            v2.dataset(),
            network(name, channels=channels),
        )
        for name, channels in zip(names, (1, 3), strict=True)
    ]


def peer(python, jobs, work):
    (work / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).parent / "peer_v2_prediction.py"
    folders = {f"nnUNet_{kind}": str(work) for kind in ("raw", "preprocessed", "results")}
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "2", "HOME": str(work), **folders}
    done = subprocess.run(
        [python, script, work / "jobs.json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])


def compare(name, ours, theirs):
    """Print how two folders of predictions differ; outside the crop box ours are 0."""
    with np.load(theirs / "case.npz") as content:
        expected = content["probabilities"]
    found = read_probabilities(ours / "case.b2nd").astype(np.float32)
    inside = np.broadcast_to(found.any(0), found.shape)
    labels = [
        sitk.GetArrayFromImage(sitk.ReadImage(folder / "case.nii.gz")) for folder in (ours, theirs)
    ]
    if found.shape != expected.shape or name in ("reoriented", "oblique"):
        expected = found  # v2 stores the probabilities of turned images as it turned them
    apart = np.abs(found - expected)[inside]
    counts = np.bincount(labels[1].ravel(), minlength=3) / labels[1].size
    equal = (labels[0] == labels[1]).mean()
    print(f"{name:14} labels {equal:.6f}  mean {apart.mean():.1e}  max {apart.max():.1e}  {counts}")
    return equal >= 0.999 and apart.mean() <= 2e-3


def nnunet(*arguments):
    done = commands.nnunet(*arguments)
    if done.returncode:
        raise SystemExit(done.stderr)


def run(python, work, wanted):
    jobs, pairs = [], {}
    for name, (plans, dataset, folds, shape, spacing, direction) in models().items():
        if wanted and name not in wanted:
            continue
        place = work / name
        model = v2.write(place / "nnUNetTrainer__nnUNetPlans__3d_fullres", plans, dataset, folds)
        for channel in dataset["channel_names"]:
            file = place / "images" / f"case_000{channel}.nii.gz"
            image(file, shape, spacing, int(channel), direction)
        nnunet("models", "import", model, "--workspace", place, "--name", name)
        reference = f"{name}/nnUNetTrainer__nnUNetPlans/3d_fullres"
        pairs[name] = predicted(place, reference)
        job = {"model": model, "images": place / "images", "output": place / "theirs"}
        jobs.append({**{k: str(v) for k, v in job.items()}, "folds": list(folds)})
    if not wanted or "cascade" in wanted:
        place = work / "cascade"
        low, full = cascade(place)
        image(place / "images" / "case_0000.nii.gz", (12, 30, 34), (2.5, 0.9, 1.1), 0)
        nnunet("models", "import", place / "Dataset900_Small", "--workspace", place)
        reference = "Dataset900_Small/nnUNetTrainer__nnUNetPlans/3d_cascade_fullres"
        pairs["cascade"] = predicted(place, reference)
        images, folds = str(place / "images"), ["0"]
        before = str(place / "low")
        jobs += [
            {"model": str(low), "images": images, "output": before, "folds": folds},
            {
                "model": str(full),
                "images": images,
                "output": str(place / "theirs"),
                "folds": folds,
                "previous": before,
            },
        ]
    peer(python, jobs, work)
    fine = [compare(name, *folders) for name, folders in pairs.items()]
    return 0 if all(fine) else 1


def predicted(place, reference):
    """Predict with our model; return where our predictions are, and where v2's will be."""
    nnunet(
        *("predict", reference, place / "images", place / "ours", "--workspace", place),
        *("--save-probabilities", "--precision", "float32", "--device", "cpu"),
    )
    return place / "ours", place / "theirs"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--v2-python", required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        raise SystemExit(run(options.v2_python, options.work or Path(temporary), options.names))
