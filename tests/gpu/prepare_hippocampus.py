"""Makes the folder of prepared cases that stage e trains on, from the Decathlon's Hippocampus.

Usage: python tests/gpu/prepare_hippocampus.py DIR TASK_FOLDER [--peer PYTHON]

DIR/ours holds a store of prepared cases, plans, labels and splits; with --peer, the Python of an
environment with nnunetv2, DIR/v2 holds what its own planning and preprocessing made. Both sides
have the same folds. The stage reads nothing else: no images, no SimpleITK.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from nnunet_builtin.datasets.reading import read_labels
from nnunet_core.data.splits import Splits, five_folds
from nnunet_core.store.prepared import PreparedStore

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

CONFIGURATION = "3d_fullres"


def prepare_ours(source: Path, work: Path, target: Path) -> None:
    """Plan and prepare with this package; keep the store, plans, labels and folds."""
    from preprocessing_sides import Ours, run

    side = Ours(source, work)
    run(side.whole(), side.environment)
    target.mkdir(parents=True)
    (plans,) = side.folder.glob("plans/*.json")
    (prepared,) = side.folder.glob("prepared/*")
    shutil.copy(plans, target / "plans.json")
    shutil.copytree(prepared, target / "prepared", ignore=shutil.ignore_patterns(".*"))
    document = json.loads((source / "dataset.json").read_text())
    labels = read_labels(document, source / "dataset.json")
    (target / "labels.json").write_text(labels.model_dump_json(indent=1))
    names = PreparedStore(target / "prepared").names()
    Splits(folds=five_folds(names)).write(target / "splits.json")


def prepare_v2(source: Path, work: Path, target: Path, python: Path, splits: Splits) -> None:
    """Plan and preprocess with nnunetv2's command; keep what its trainer reads, with our folds."""
    from preprocessing_sides import V2, run

    side = V2(source, work, python)
    side.lay_out()
    run(side.whole(), side.environment)
    folder = target / side.dataset
    shutil.copytree(side.folder, folder, ignore=shutil.ignore_patterns("gt_segmentations"))
    folds = [{"train": list(fold.train), "val": list(fold.val)} for fold in splits.folds]
    (folder / "splits_final.json").write_text(json.dumps(folds))


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("folder", type=Path, help="folder to make; it must not exist")
    parser.add_argument("task", type=Path, help="Task004_Hippocampus")
    parser.add_argument("--peer", type=Path, help="python of an environment with nnunetv2")
    arguments = parser.parse_args()
    folder, source = arguments.folder.absolute(), arguments.task.resolve()
    if folder.exists():
        sys.exit(f"{folder} exists. Delete it, or name another folder.")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        prepare_ours(source, work, folder / "ours")
        print(f"ours: {megabytes(folder / 'ours'):.1f} MB", flush=True)
        if arguments.peer is not None:
            splits = Splits.read(folder / "ours" / "splits.json")
            prepare_v2(source, work, folder / "v2", arguments.peer.absolute(), splits)
            print(f"nnunetv2: {megabytes(folder / 'v2'):.1f} MB")


if __name__ == "__main__":
    main()
