"""Compare whole predictions, from the start of the command to the files on disk, with nnU-Net v2 on
this machine, in one run: the same weights, the same cases.

Usage: python tests/benchmarks/compare_prediction.py --work DIR --model MODEL.zip --images DIR
       --v2-python PYTHON [--cases 10] [--repeat 3] [--no-mirroring] [--device cpu]
       [--output FILE.md]

MODEL.zip is a model of nnU-Net v2 (a folder DATASET/TRAINER__PLANS__CONFIGURATION with its folds);
`nnunet models import` makes it one of ours. All sides predict the first --cases images with fold 0,
in turns, each in a fresh process into an empty folder; ours in its default precision and in
float32. Shown are the seconds of the whole command, seconds per case in the network (with mirroring
and copies to and from the device) and outside of it, the memory of all its processes, and the Dice
of the label maps of ours and theirs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from compare_preprocessing import Results, peak_memory, timed
from preprocessing_sides import HERE, run

from nnunet_builtin.formats.simpleitk import SimpleItkFormat


@dataclass
class Side:
    """A framework that predicts.

    Attributes:
        name: In the table.
        command: Its command, without the output folder.
        output: That folder.
        environment: Of the command.
    """

    name: str
    command: list[str]
    output: Path
    environment: dict[str, str]

    def predict(self, results: Results, cases: int) -> None:
        words = [*self.command, str(self._empty())]
        seconds, printed = timed(words, self.environment)
        network = json.loads(printed.strip().splitlines()[-1])["network"]
        results.add("whole command: s", self, seconds)
        results.add("per case in the network: s", self, network / cases)
        results.add("per case outside of it: s", self, (seconds - network) / cases)

    def measure_memory(self, results: Results) -> None:
        words = [*self.command, str(self._empty())]
        results.add("peak memory: MB", self, peak_memory(words, self.environment) / 1e6)

    def labels(self) -> dict[str, np.ndarray]:
        found = sorted(self.output.glob("*.nii.gz"))
        return {path.name: SimpleItkFormat().read(path).array[0] for path in found}

    def _empty(self) -> Path:
        shutil.rmtree(self.output, ignore_errors=True)
        return self.output


def sides_of(arguments: argparse.Namespace) -> list[Side]:
    """Lay out the images and the model, and return the sides."""
    work, images = arguments.work, arguments.work / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    chosen = sorted(path for path in arguments.images.iterdir() if path.suffix == ".gz")
    for path in chosen[: arguments.cases]:
        name = path.name if path.name.endswith("_0000.nii.gz") else f"{path.name[:-7]}_0000.nii.gz"
        (images / name).symlink_to(path.resolve())
    with zipfile.ZipFile(arguments.model) as archive:
        archive.extractall(work / "model")
    (plans,) = (work / "model").rglob("plans.json")
    space = work / "workspace"
    shutil.rmtree(space, ignore_errors=True)
    program = str(Path(sys.executable).with_name("nnunet"))
    run(
        [program, "models", "import", str(arguments.model), "--workspace", str(space)],
        dict(os.environ),
    )
    (document,) = space.rglob("model.json")
    plain = [] if arguments.mirroring else ["--no-mirroring"]
    options = ["--device", arguments.device, "--folds", "0", *plain]
    sides = []
    for name, precision in (("ours", "auto"), ("ours float32", "float32")):
        words = [sys.executable, str(HERE / "own_predict.py"), *options, "--precision", precision]
        words += ["--workspace", str(space), str(document.parent), str(images)]
        sides.append(Side(name, words, work / name.replace(" ", "_"), dict(os.environ)))
    words = [str(arguments.v2_python.absolute()), str(HERE / "peer_predict_v2.py")]
    words += ["-i", str(images), "-m", str(plans.parent), "-f", "0", "-device", arguments.device]
    words += [*([] if arguments.mirroring else ["--disable_tta"]), "-o"]
    unused = {name: str(work) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return [*sides, Side("v2", words, work / "v2", os.environ | unused)]


def dice_of(mine: Side, theirs: Side) -> list[float]:
    """Return the Dice of each label of each case that both have."""
    found, others = mine.labels(), theirs.labels()
    assert found
    assert set(found) == set(others)
    values = []
    for name, label in found.items():
        other = others[name]
        for value in np.unique(label[label > 0]):
            both = ((label == value) & (other == value)).sum()
            values.append(float(2 * both / ((label == value).sum() + (other == value).sum())))
    return values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--v2-python", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--mirroring", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    arguments = parser.parse_args()
    sides, results = sides_of(arguments), Results()
    cases = len(list((arguments.work / "images").iterdir()))
    for _ in range(arguments.repeat):
        for side in sides:
            side.predict(results, cases)
    for side in sides[:2]:
        values = dice_of(side, sides[2])
        results.add("lowest Dice of labels, with v2", side, min(values))
        results.add("mean Dice of labels, with v2", side, float(np.mean(values)))
    for side in sides if arguments.memory else []:
        side.measure_memory(results)
    print(results.markdown())
    if arguments.output:
        arguments.output.write_text(results.markdown() + "\n")


if __name__ == "__main__":
    main()
