"""How this package, nnU-Net v1 and v2 plan, preprocess and read patches from a command line
(compare_preprocessing.py).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from patch_reading import EDGE

HERE = Path(__file__).parent
PROCESSES = 2
READS = 200
SPACING, PATCH = [1.5, 1.0, 1.0], [EDGE] * 3  # imposed on the plans of part (b): mm, voxels


def run(command: list[str], environment: dict[str, str]) -> str:
    """Run a command; return what it prints."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, check=False, env=environment, text=True, **pipes)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def link(source: Path, target: Path) -> None:
    """Make a dataset of links to the training files of another, in the place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    for part in ("imagesTr", "labelsTr"):
        (target / part).mkdir(parents=True)
        for path in (source / part).iterdir():
            (target / part / path.name).symlink_to(path.resolve())


def bytes_of(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


class Ours:
    """This package."""

    name = "ours"

    def __init__(self, source: Path, work: Path) -> None:
        self.source = source
        self.workspace = work / "ours" / source.name
        self.folder = self.workspace / "preprocessed" / source.name
        self.environment = dict(os.environ)

    def lay_out(self) -> None:
        """Datasets are read where they are."""

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def whole(self) -> list[str]:
        return self._command("preprocess", "-c", "3d_fullres")

    def plan(self) -> None:
        run(self._command("plan"), self.environment)
        (path,) = self.folder.glob("plans/*.json")
        content = json.loads(path.read_text())
        content["configurations"]["3d_fullres"].update(spacing=SPACING, patch_size=PATCH)
        path.write_text(json.dumps(content))

    def clear_prepared(self) -> None:
        shutil.rmtree(self.folder / "prepared", ignore_errors=True)

    def prepare(self) -> list[str]:
        return self._command("preprocess", "-c", "3d_fullres")

    def read(self) -> list[str]:
        return [
            sys.executable,
            str(HERE / "compare_preprocessing.py"),
            "--work",
            str(self._store()),
            "--read",
        ]

    def sizes(self) -> dict[str, int]:
        return {"files": bytes_of(self._store(), "*")}

    def _store(self) -> Path:
        (folder,) = self.folder.glob("prepared/*")
        return folder

    def _command(self, step: str, *options: str) -> list[str]:
        program = str(Path(sys.executable).with_name("nnunet"))
        space = ["--workspace", str(self.workspace), "--processes", str(PROCESSES)]
        return [program, step, str(self.source), *options, *space]


class V1:
    """nnU-Net 1.7.1."""

    name = "v1"

    def __init__(self, source: Path, work: Path, python: Path) -> None:
        self.source, self.python = source, python
        self.raw, self.preprocessed = work / "v1" / "raw", work / "v1" / "preprocessed"
        folders = {"nnUNet_raw_data_base": self.raw, "nnUNet_preprocessed": self.preprocessed}
        self.environment = (
            os.environ
            | {k: str(v) for k, v in folders.items()}
            | {"RESULTS_FOLDER": str(work / "v1")}
        )
        self.folder = self.preprocessed / source.name

    def lay_out(self) -> None:
        link(self.source, self.raw / "nnUNet_raw_data" / self.source.name)
        shutil.copy(self.source / "dataset.json", self.raw / "nnUNet_raw_data" / self.source.name)

    def clear(self) -> None:
        for folder in (self.folder, self.raw / "nnUNet_cropped_data" / self.source.name):
            shutil.rmtree(folder, ignore_errors=True)

    def whole(self) -> list[str]:
        program = str(self.python.with_name("nnUNet_plan_and_preprocess"))
        number = str(int(self.source.name[4:7]))
        return [
            program,
            "-t",
            number,
            "-pl2d",
            "None",
            "-tl",
            str(PROCESSES),
            "-tf",
            str(PROCESSES),
        ]

    def plan(self) -> None:
        run([*self.whole(), "-no_pp"], self.environment)
        run(
            self._script("impose", ",".join(map(str, SPACING)), ",".join(map(str, PATCH))),
            self.environment,
        )

    def clear_prepared(self) -> None:
        for folder in self.folder.glob("*_stage*"):
            shutil.rmtree(folder)

    def prepare(self) -> list[str]:
        return self._script("prepare", str(PROCESSES))

    def read(self) -> list[str]:
        run(self._script("unpack", str(PROCESSES)), self.environment)
        return self._script("read", str(READS))

    def sizes(self) -> dict[str, int]:
        stage, properties = self.folder / "nnUNetData_plans_v2.1_stage0", "*.pkl"
        properties_size = bytes_of(stage, properties)
        unpacked = bytes_of(stage, "*.npy") + properties_size
        return {"files": bytes_of(stage, "*.npz") + properties_size, "unpacked": unpacked}

    def _script(self, step: str, *values: str) -> list[str]:
        return [
            str(self.python),
            str(HERE / "peer_preprocess_v1.py"),
            step,
            self.source.name,
            *values,
        ]


class V2:
    """nnunetv2."""

    name = "v2"

    def __init__(self, source: Path, work: Path, python: Path) -> None:
        self.source, self.python = source, python
        self.number, self.dataset = source.name[4:7], f"Dataset{source.name[4:]}"
        folders = {
            f"nnUNet_{name}": work / "v2" / name for name in ("raw", "preprocessed", "results")
        }
        self.raw = folders["nnUNet_raw"] / self.dataset
        self.folder = folders["nnUNet_preprocessed"] / self.dataset
        self.environment = os.environ | {name: str(folder) for name, folder in folders.items()}

    def lay_out(self) -> None:
        link(self.source, self.raw)
        content = json.loads((self.source / "dataset.json").read_text())
        converted = {
            "channel_names": content["modality"],
            "labels": {name: int(value) for value, name in content["labels"].items()},
            "numTraining": len(content["training"]),
            "file_ending": ".nii.gz",
        }
        (self.raw / "dataset.json").write_text(json.dumps(converted))

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def whole(self) -> list[str]:
        counts = ["-np", str(PROCESSES), "-npfp", str(PROCESSES)]
        return self._command("plan_and_preprocess", "-c", "3d_fullres", *counts)

    def plan(self) -> None:
        run([*self.whole(), "--no_pp"], self.environment)
        path = self.folder / "nnUNetPlans.json"
        content = json.loads(path.read_text())
        content["configurations"]["3d_fullres"].update(spacing=SPACING, patch_size=PATCH)
        path.write_text(json.dumps(content))

    def clear_prepared(self) -> None:
        shutil.rmtree(self.folder / "nnUNetPlans_3d_fullres", ignore_errors=True)

    def prepare(self) -> list[str]:
        return self._command("preprocess", "-c", "3d_fullres", "-np", str(PROCESSES))

    def read(self) -> list[str]:
        folder = str(self.folder / "nnUNetPlans_3d_fullres")
        return [str(self.python), str(HERE / "peer_preprocess_v2.py"), folder, str(READS)]

    def sizes(self) -> dict[str, int]:
        return {"files": bytes_of(self.folder / "nnUNetPlans_3d_fullres", "*")}

    def _command(self, step: str, *options: str) -> list[str]:
        return [str(self.python.with_name(f"nnUNetv2_{step}")), "-d", self.number, *options]


Side = Ours | V1 | V2
