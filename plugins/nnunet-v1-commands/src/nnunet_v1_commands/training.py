"""`nnUNet_train`, `nnUNet_train_DP` and `nnUNet_train_DDP`."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.experiment import VALIDATION
from nnunet_core.store.models import FILE
from nnunet_v1_commands.layout import show_model
from nnunet_v1_commands.methods import V1Method
from nnunet_v1_commands.plans import plans_of
from nnunet_v1_commands.plugin import PLANS, variant_name
from nnunet_v1_commands.predicting import with_best_weights
from nnunet_v1_commands.running import (
    CONFIGURATIONS,
    WORKERS,
    nnunet,
    note,
    processes,
    run,
    task_name,
    task_with_data,
    workspace,
)

_NOTES = {
    "use_compressed_data": "--use_compressed_data: prepared cases are always compressed, and "
    "patches are read from them",
    "disable_saving": "--disable_saving: the weights are kept; remove the fold's folder afterwards",
    "disable_postprocessing_on_folds": "--disable_postprocessing_on_folds: postprocessing is "
    "decided over all folds, by nnUNet_find_best_configuration or nnUNet_determine_postprocessing",
    "disable_validation_inference": "--disable_validation_inference: the fold is validated",
    "disable_next_stage_pred": "--disable_next_stage_pred: the cascade reads the validation of "
    "3d_lowres; nothing more is predicted",
}


def train(arguments: Sequence[str] | None = None) -> None:
    """Train a fold, on one GPU or a CPU."""
    run(_parser("nnUNet_train"), _train, arguments)


def train_dp(arguments: Sequence[str] | None = None) -> None:
    """Train a fold on several GPUs of this machine."""
    parser = _parser("nnUNet_train_DP")
    parser.add_argument("-gpus", type=int, required=True, help="number of GPUs")
    parser.add_argument("--dbs", action="store_true", help="the planned batch is that of all GPUs")
    run(parser, _train_dp, arguments)


def train_ddp(arguments: Sequence[str] | None = None) -> None:
    """Train a fold on several GPUs; started by `torchrun`."""
    parser = _parser("nnUNet_train_DDP")
    parser.add_argument("--local_rank", "--local-rank", type=int, help="set by the launcher")
    parser.add_argument("--dbs", action="store_true", help="the planned batch is that of all GPUs")
    run(parser, _train_ddp, arguments)


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(command)
    parser.add_argument("network", choices=CONFIGURATIONS)
    parser.add_argument("network_trainer")
    parser.add_argument("task", help="name or id")
    parser.add_argument("fold", help="0, 1, ..., or all")
    parser.add_argument("-val", "--validation_only", action="store_true")
    parser.add_argument("-c", "--continue_training", action="store_true")
    parser.add_argument("-p", default=PLANS, help="identifier of the plans")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--valbest", action="store_true", help="with -val: the best weights")
    parser.add_argument("--npz", action="store_true", help="keep validation probabilities")
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--val_folder", default="validation_raw")
    parser.add_argument("--val_disable_overwrite", action="store_true")
    parser.add_argument("-pretrained_weights", type=Path)
    parser.add_argument("--find_lr", action="store_true", help="a range test, and no training")
    for name in _NOTES:
        parser.add_argument(f"--{name}", action="store_true")
    return parser


def _train(options: argparse.Namespace, extra: Sequence[str] = ()) -> None:
    method = V1Method(options.network, options.network_trainer, options.p)
    task = task_with_data(options.task)
    _check(options)
    words = [*method.options(task), *_settings(options), *_precision(options, method)]
    fold, flag = _fold(options.fold), "--fold" if options.find_lr else "--folds"
    words += [*extra, "-c", options.network, flag, fold]
    if options.npz and not options.find_lr:
        words.append("--save-probabilities")
    if options.pretrained_weights is not None:
        words += ["--pretrained", str(_weights(options.pretrained_weights))]
    if workers := os.environ.get(WORKERS):
        words += ["--workers", workers]
    words += processes(None)
    if options.find_lr:
        place = method.folder(task) / f"find_lr_fold_{fold}"
        nnunet("find-lr", task, *words, "--output", place, "--overwrite")
        return
    if options.validation_only and options.valbest:
        _validate_best(method, task, options)
    elif options.validation_only:
        again = [] if options.val_disable_overwrite else ["--overwrite"]
        nnunet("validate", task, *words, *again)
    else:
        nnunet("train", task, *words)
    if os.environ.get("RANK", "0") == "0":  # of several processes, one writes
        show_model(method, task, _latest(method, task))


def _validate_best(method: V1Method, task: str, options: argparse.Namespace) -> None:
    """Predict the cases that a fold was validated on with its best weights, and measure them, into
    `validation_best` beside v1's names of the fold: the validation with the final weights stays,
    since choosing a model and its postprocessing go by it.

    Raises:
        UsageError: The fold has no validation, or no best weights.
    """
    fold = f"fold_{_fold(options.fold)}"
    model, output = _latest(method, task), method.folder(task) / fold / "validation_best"
    data = open_dataset(task, workspace().raw, Registry.discover())
    names = {path.name for path in (model / fold / VALIDATION).glob(f"*{data.label_ending}")}
    cases = [case for case in data.training if f"{case.name}{data.label_ending}" in names]
    if not cases:
        raise UsageError(f"--valbest: {model / fold} has no validation. Train it first.")
    words = _precision(options, method)
    if options.npz:
        words.append("--save-probabilities")
    if not options.val_disable_overwrite:
        words.append("--overwrite")
    with with_best_weights(model) as best, tempfile.TemporaryDirectory() as top:
        images, labels = Path(top) / "imagesTr", Path(top) / "labelsTr"
        for folder in (images, labels):
            folder.mkdir()
        for case in cases:
            for path in case.images:
                (images / path.name).symlink_to(path.absolute())
            if case.label is not None:
                (labels / case.label.name).symlink_to(case.label.absolute())
        words += ["--folds", options.fold, "--no-postprocessing"]
        nnunet("predict", best, images, output, *words)
        nnunet("evaluate", output, labels, "--dataset", data.folder, "--metrics", "overlap")


def _train_dp(options: argparse.Namespace) -> None:
    extra = _batch(options, options.gpus)
    if options.find_lr:
        note(f"--find_lr: the batch of {options.gpus} GPUs is computed on one")
    else:
        extra += ["--gpus", str(options.gpus)]
    _train(options, extra)


def _train_ddp(options: argparse.Namespace) -> None:
    if "WORLD_SIZE" not in os.environ:
        raise UsageError(
            "nnUNet_train_DDP is started by a launcher: torchrun --nproc-per-node 2 --no-python "
            "nnUNet_train_DDP CONFIG TRAINER TASK FOLD. Or use nnUNet_train_DP -gpus 2, which "
            "starts the processes itself."
        )
    _train(options, _batch(options, int(os.environ["WORLD_SIZE"])))


def _batch(options: argparse.Namespace, gpus: int) -> list[str]:
    """Return the batch size: without --dbs, the planned one is that of each GPU."""
    if options.dbs or gpus == 1:
        return []
    method = V1Method(options.network, options.network_trainer, options.p)
    task = task_name(options.task)
    plans = plans_of(task, method.options(task))
    size = plans.configuration(options.network).batch_size * gpus
    return ["--set", f"trainer.batch_size={size}"]


def _check(options: argparse.Namespace) -> None:
    if options.valbest and not options.validation_only:
        note("--valbest counts with -val alone")
    if options.val_folder != "validation_raw":
        raise UsageError(
            f"--val_folder {options.val_folder} has no counterpart: the validation of a fold is "
            "in its folder 'validation'. Leave it out."
        )
    for name, text in _NOTES.items():
        if getattr(options, name):
            note(text)
    if not (options.continue_training or options.validation_only or options.find_lr):
        note("a fold that is trained stays, and one that was stopped goes on, as with -c")


def _settings(options: argparse.Namespace) -> list[str]:
    return ["--set", "trainer.deterministic=true"] if options.deterministic else []


def _precision(options: argparse.Namespace, method: V1Method) -> list[str]:
    words = method.run_options()
    return [*words, "--precision", "float32"] if options.fp32 else words


def _fold(text: str) -> str:
    if text != "all" and not text.isdigit():
        raise UsageError(f"The fold is a number or 'all', not '{text}'.")
    return text


def _weights(path: Path) -> Path:
    """Return a file of weights; in v1's layout they are a link to ours."""
    if not path.exists():
        raise UsageError(f"-pretrained_weights: there is no file {path}.")
    return path.resolve() if path.is_symlink() else path


def _latest(method: V1Method, task: str) -> Path:
    """Return the model folder that was written last: some flags are part of its name."""
    pattern = f"{variant_name(method.trainer)}*/{method.configuration}/{FILE}"
    found = (workspace().results / task).glob(pattern)
    return max(found, key=lambda path: _changed(path.parent)).parent


def _changed(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in folder.glob("fold_*/run.json"))
