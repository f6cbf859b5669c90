"""`nnUNet_predict`, `nnUNet_ensemble` and `nnUNet_evaluate_folder`."""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import FoldRecord
from nnunet_core.runtime import files
from nnunet_core.store.models import FILE, WEIGHTS, Model, weights_record
from nnunet_core.store.postprocessing import PostprocessingRecord
from nnunet_core.store.summaries import SUMMARY
from nnunet_v1_commands.methods import method_of
from nnunet_v1_commands.plugin import PLANS
from nnunet_v1_commands.running import CONFIGURATIONS, RESULTS, nnunet, note, run, task_name

_CHECKPOINT, _BEST = "model_final_checkpoint", "model_best"
_BEST_FILE = "weights_best.safetensors"  # of the trainer `v2`, beside the final ones


def predict(arguments: Sequence[str] | None = None) -> None:
    """Predict a folder of images CASE_0000.nii.gz."""
    parser = argparse.ArgumentParser("nnUNet_predict", description=predict.__doc__)
    parser.add_argument("-i", "--input_folder", required=True, type=Path)
    parser.add_argument("-o", "--output_folder", required=True, type=Path)
    parser.add_argument("-t", "--task_name", required=True, help="name or id")
    parser.add_argument("-tr", "--trainer_class_name")
    parser.add_argument("-ctr", "--cascade_trainer_class_name")
    parser.add_argument("-m", "--model", default="3d_fullres", choices=CONFIGURATIONS)
    parser.add_argument("-p", "--plans_identifier", default=PLANS)
    parser.add_argument("-f", "--folds", nargs="+", default=["None"], help="numbers, or all")
    parser.add_argument("-z", "--save_npz", action="store_true", help="keep probabilities")
    parser.add_argument("-l", "--lowres_segmentations", default="None")
    parser.add_argument("--part_id", type=int, default=0)
    parser.add_argument("--num_parts", type=int, default=1)
    parser.add_argument("--num_threads_preprocessing", type=int)
    parser.add_argument("--num_threads_nifti_save", type=int)
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring")
    parser.add_argument("--overwrite_existing", action="store_true")
    parser.add_argument("--mode", default="normal", choices=("normal", "fast", "fastest"))
    parser.add_argument("--all_in_gpu", default="None", choices=("None", "False", "True"))
    parser.add_argument("--step_size", type=float)
    parser.add_argument("-chk", default=_CHECKPOINT, help="checkpoint")
    parser.add_argument("--disable_mixed_precision", action="store_true")
    run(parser, _predict, arguments, [RESULTS])


def _predict(options: argparse.Namespace) -> None:
    _explain(options)
    flags = (options.trainer_class_name, options.cascade_trainer_class_name)
    method = method_of(options.model, *flags, options.plans_identifier)
    model = method.model(task_name(options.task_name), Registry.discover())
    words = [word for flag, word in _SWITCHES.items() if getattr(options, flag)]
    if options.folds != ["None"]:
        words += ["--folds", ",".join(options.folds)]
    if options.num_parts != 1:
        words += ["--part", f"{options.part_id + 1}/{options.num_parts}"]
    if options.step_size is not None:
        words += ["--step-size", str(options.step_size)]
    if options.disable_mixed_precision:
        words += ["--precision", "float32"]
    with contextlib.ExitStack() as stack:
        if options.chk.removesuffix(".model") == _BEST:
            model = stack.enter_context(with_best_weights(model))
        nnunet("predict", model, options.input_folder, options.output_folder, *words)


@contextlib.contextmanager
def with_best_weights(model: Path) -> Iterator[Path]:
    """Yield a copy of a model that predicts with the best weights of its trainings, as long as the
    block runs; as in v1, its label maps are cleaned as the final weights ask for.

    Raises:
        UsageError: It has none, or is a cascade.
    """
    found = Model.open(model)
    best = {
        fold: path
        for fold in found.trained()
        if (path := found.fold_folder(fold) / _BEST_FILE).is_file()
    }
    if not best or found.document.configuration.previous is not None:
        raise UsageError(
            f"{_BEST}: {model} has no {_BEST_FILE} in its folds, or is a cascade. Models that "
            "were trained here have them; import one of v1 with 'nnunet models import --checkpoint "
            "best'."
        )
    with tempfile.TemporaryDirectory() as top:
        copy = Path(top) / model.name
        found.document.write(copy / FILE)
        digests = {}
        for fold, path in best.items():
            folder = copy / f"fold_{fold}"
            folder.mkdir()
            (folder / WEIGHTS).symlink_to(path.absolute())
            weights = weights_record(folder)
            digests[fold] = weights[1]
            record = FoldRecord.read(found.fold_folder(fold) / RUN_FILE)
            record.model_copy(update={"weights": weights}).write(folder / RUN_FILE)
        for path in (model / "postprocessing").glob("*.json"):
            decided = PostprocessingRecord.read(path)
            kept = {fold: digests[fold] for fold in decided.weights if fold in digests}
            decided = decided.model_copy(update={"weights": kept})
            decided.write(copy / "postprocessing" / path.name)
        yield copy


_SWITCHES = {
    "save_npz": "--save-probabilities",
    "disable_tta": "--no-mirroring",
    "overwrite_existing": "--overwrite",
}


def _explain(options: argparse.Namespace) -> None:
    """Say what flags mean here that are no option.

    Raises:
        UsageError: One asks for something else than this would do.
    """
    if options.chk.removesuffix(".model") not in (_CHECKPOINT, _BEST):
        raise UsageError(
            f"-chk {options.chk} has no counterpart: a training keeps its final weights and its "
            f"best ones: {_CHECKPOINT} or {_BEST}. Of a model of v1, 'nnunet models import "
            "--checkpoint best' takes the others."
        )
    if options.lowres_segmentations != "None":
        note("-l: the cascade predicts its low resolution itself; the folder is not read")
    if options.mode != "normal":
        note(f"--mode {options.mode}: there is one mode, which is as exact as normal")
    if options.all_in_gpu != "None":
        note("--all_in_gpu: what fits into memory stays there; see 'nnunet predict --memory-gb'")
    for flag in ("num_threads_preprocessing", "num_threads_nifti_save"):
        if getattr(options, flag) is not None:
            note(f"--{flag}: reading and writing have a thread each beside the network")


def ensemble(arguments: Sequence[str] | None = None) -> None:
    """Average folders of predictions with probabilities."""
    parser = argparse.ArgumentParser("nnUNet_ensemble", description=ensemble.__doc__)
    parser.add_argument("-f", "--folders", nargs="+", required=True, type=Path)
    parser.add_argument("-o", "--output_folder", required=True, type=Path)
    parser.add_argument("-t", "--threads", type=int, help="is one here")
    parser.add_argument("-pp", "--postprocessing_file", type=Path)
    parser.add_argument("--npz", action="store_true", help="keep the mean")
    run(parser, _ensemble, arguments, [])


def _ensemble(options: argparse.Namespace) -> None:
    if options.threads is not None:
        note("-t: cases are averaged one after the other, slab by slab")
    words: list[object] = ["--overwrite"]
    if options.postprocessing_file is not None:
        words += ["--postprocessing", options.postprocessing_file]
    if options.npz:
        words.append("--save-probabilities")
    nnunet("ensemble", *options.folders, options.output_folder, *words)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Compare predicted with reference label maps; write summary.json beside the former."""
    parser = argparse.ArgumentParser("nnUNet_evaluate_folder", description=evaluate.__doc__)
    parser.add_argument("-ref", required=True, type=Path, help="folder of references")
    parser.add_argument("-pred", required=True, type=Path, help="folder of predictions")
    parser.add_argument("-l", "--labels", nargs="+", type=int, required=True, help="labels")
    run(parser, _evaluate, arguments, [])


def _evaluate(options: argparse.Namespace) -> None:
    wanted = {str(label) for label in options.labels}
    highest = max(*options.labels, *_values(options.ref))
    labels = {"background": 0, **{str(value): value for value in range(1, highest + 1)}}
    declared = {"channel_names": {"0": "image"}, "labels": labels, "file_ending": ".nii.gz"}
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset.json"
        dataset.write_text(json.dumps(declared))
        words = ["--metrics", "overlap", "--no-pictures"]
        nnunet("evaluate", options.pred, options.ref, "--dataset", dataset, *words)
    path = options.pred / SUMMARY
    files.write_json(path, _only(files.read_json(path), wanted))


def _values(references: Path) -> list[int]:
    """Return the highest label of each reference: labels that nobody asks for are there, too."""
    import SimpleITK as sitk

    found = sorted(references.glob("*.nii.gz"))
    return [
        1,
        *(int(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).max()) for path in found),
    ]


def _only(summary: Any, wanted: set[str]) -> Any:
    """Return a summary of the labels that were asked for alone."""
    results = summary["results"]
    results["all"] = [
        {key: value for key, value in case.items() if not key.isdigit() or key in wanted}
        for case in results["all"]
    ]
    results["mean"] = {key: value for key, value in results["mean"].items() if key in wanted}
    return summary
