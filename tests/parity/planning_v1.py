"""Compare our plans of random dataset fingerprints with those of nnU-Net v1 1.7.1, value by value.

Usage: python tests/parity/planning_v1.py --v1-python /path/to/nnunet/venv/bin/python [--count 500]
[--seed 0] [--variants]

Prints a table and the first differences of each planner. Exit code 1 when any value differs. Where
v1 fails there is nothing to compare with; these are counted by reason.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from described_datasets import described, stage_as_v1
from rich.console import Console
from rich.table import Table

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.networks.residual_unet import ResidualUNet
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.errors import NnunetError
from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build

#: {class in v1: our component}
PLANNERS = {
    "ExperimentPlanner3D_v21": "v21",
    "ExperimentPlanner3D_v21_11GB": "v21_11GB",
    "ExperimentPlanner3D_v21_16GB": "v21_16GB",
    "ExperimentPlanner3D_v21_32GB": "v21_32GB",
    "ExperimentPlanner2D_v21": "v21_2d",
}
#: The last five have older rules of pooling, spacing and memory in v1; peer_v1_plans.py gives them
#: those of v21, as ours have.
VARIANTS = {
    "ExperimentPlanner3D_v21_3cps": "v21_3convs",
    "ExperimentPlanner3DFabiansResUNet_v21": "v21",
    "ExperimentPlanner3D_v21_customTargetSpacing_2x2x2": "v21_fixed_spacing",
    "ExperimentPlanner3D_v21_noResampling": "v21_no_resampling",
    "ExperimentPlannerAllConv3x3": "v21_all_conv3",
    "ExperimentPlanner3D_IsoPatchesInVoxels": "v21_isotropic_voxels",
    "ExperimentPlannerIso": "v21_isotropic_mm",
    "ExperimentPlannerCT2": "v21_ct2",
    "ExperimentPlannernonCT": "v21_nonct",
}
#: {class in v1: our network}, where it is another one.
NETWORKS: dict[str, Any] = {"ExperimentPlanner3DFabiansResUNet_v21": ResidualUNet()}
CHANNELS = ("CT", "ct", "MRI", "noNorm", "CTA")
SCHEMES = {"zscore": "nonCT", "none": "noNorm"}
PREPROCESSORS = {
    "default": "GenericPreprocessor",
    "planes": "PreprocessorFor2D",
    "no_resampling": "PreprocessorFor3D_NoResampling",
}
#: {style: (lowest and highest size of each axis, lowest and highest spacing of each axis)}, before
#: axes are permuted
STYLES: dict[str, Any] = {
    "isotropic": ([(40, 400)] * 3, [(0.4, 3)] * 3),
    "anisotropic": ([(8, 150), (64, 640), (64, 640)], [(1.5, 12), (0.3, 1.5), (0.3, 1.5)]),
    "slices": ([(1, 1), (64, 1500), (64, 1500)], [(1, 999), (0.5, 1), (0.5, 1)]),
    "tiny": ([(1, 24)] * 3, [(0.3, 3)] * 3),
    "huge": ([(300, 1200)] * 3, [(0.1, 1)] * 3),
    "ratio four": (
        [(224, 224), (160, 160), (256, 256)],
        [(1, 1)] * 3,
    ),  # exactly four patches of v21
}


@dataclass
class Tally:
    """What became of the fingerprints of one planner."""

    agreeing: int = 0
    differing: list[str] = field(default_factory=list)
    undefined: Counter[str] = field(default_factory=Counter)


def draw(seed: int, index: int) -> dict[str, Any]:
    """Return a fingerprint: cases of one style or of two mixed ones, with their own axis order."""
    rng = np.random.default_rng((seed, index))
    count = int(rng.choice(np.array([1, rng.integers(2, 10), rng.integers(10, 61)])))
    styles = rng.choice(
        np.array(list(STYLES)),
        2 if rng.random() < 0.3 else 1,
        p=[0.26, 0.3, 0.13, 0.13, 0.15, 0.03],
    )
    prototypes = [_prototype(rng, *STYLES[style]) for style in styles]
    identical = rng.random() < 0.2 or "ratio four" in styles
    order = rng.permutation(3) if rng.random() < 0.4 else np.arange(3)
    cases = [prototypes[rng.integers(len(prototypes))] for _ in range(count)]
    if not identical:
        cases = [_varied(rng, *case) for case in cases]
    reduction = rng.choice([0.3, 0.75, 1.0])
    spread = rng.choice([0, 0.1])
    return {
        "style": " + ".join(styles),
        "sizes": [np.array(size)[order].tolist() for size, _ in cases],
        "spacings": [np.array(spacing)[order].tolist() for _, spacing in cases],
        "modalities": rng.choice(CHANNELS, rng.integers(1, 5)).tolist(),
        "num_classes": int(rng.integers(1, 7)),
        "size_reductions": np.clip(reduction + rng.uniform(-spread, spread, count), 0, 1).tolist(),
    }


def _prototype(
    rng: np.random.Generator, sizes: Any, spacings: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a size and a spacing; in half of them axes share the numbers that they can share."""
    shared = rng.uniform(size=2) if rng.random() < 0.5 else rng.uniform(size=(3, 2))
    part = np.broadcast_to(shared, (3, 2))
    (low, high), (fine, coarse) = np.transpose(sizes), np.transpose(spacings)
    size = np.round(low * (high / low) ** part[:, 0]).astype(int)
    return size, np.round(fine * (coarse / fine) ** part[:, 1], 3)


def _varied(
    rng: np.random.Generator, size: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    size = np.where(size == 1, 1, np.round(size * rng.uniform(0.7, 1.3, 3))).astype(int)
    return np.maximum(size, 1), spacing * rng.choice(
        [1, 1, 0.5, 0.9, 1.25, 1.1, 2], rng.choice([1, 3])
    )


def plan(content: dict[str, Any], planners: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return our plans in the words of v1, or the error, for each class of v1."""
    registry = Registry.discover()
    dataset, fingerprint = described(
        content["sizes"],
        content["spacings"],
        content["modalities"],
        content["num_classes"],
        content["size_reductions"],
    )
    result = {}
    for theirs, ours in planners.items():
        stages = ["2d"] if ours == "v21_2d" else ["3d_lowres", "3d_fullres"]
        planner = build(registry.resolve("planner", ours).with_settings({"configurations": stages}))
        try:
            result[theirs] = as_v1(
                planner.plan(dataset, fingerprint, NETWORKS.get(theirs, PlainUNet())), stages
            )
        except (NnunetError, ValueError, ArithmeticError) as error:
            result[theirs] = {"error": f"{type(error).__name__}: {error}"}
    return result


def as_v1(plans: Plans, stages: list[str]) -> dict[str, Any]:
    """Return plans in the words of v1's file."""
    found = [plans.configurations[name] for name in stages if name in plans.configurations]
    last = found[-1]
    return {
        "num_stages": len(found),
        "num_modalities": last.network.input_channels,
        "num_classes": last.network.output_channels - 1,
        "base_num_features": last.network.base_features,
        "conv_per_stage": last.network.convs_per_stage,
        "normalization_schemes": [SCHEMES.get(n.scheme, n.scheme) for n in last.normalization],
        "use_mask_for_norm": [n.use_mask for n in last.normalization],
        "transpose_forward": list(last.transpose_forward),
        "transpose_backward": [last.transpose_forward.index(axis) for axis in range(3)],
        "preprocessor_name": PREPROCESSORS.get(last.preprocessor, last.preprocessor),
        "plans_per_stage": [_stage_as_v1(configuration, last.spacing) for configuration in found],
    }


def _stage_as_v1(
    configuration: Configuration, original: tuple[float, float, float]
) -> dict[str, Any]:
    return {
        **stage_as_v1(configuration),
        "current_spacing": list(configuration.spacing),
        "original_spacing": list(original),
    }


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Return "key: ours ..., v1 ..." of every value that differs; spacings may differ by rounding
    (1e-9 of their size).
    """
    if isinstance(theirs, dict) and isinstance(
        ours, list
    ):  # v1 keys channels and stages by their index
        theirs = [theirs[key] for key in sorted(theirs, key=int)]
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(set(ours) | set(theirs))
        return [
            d for key in keys for d in differences(ours.get(key), theirs.get(key), f"{path}/{key}")
        ]
    if "plans_per_stage" in path and path.endswith("stage") and len(ours) == len(theirs):
        return [
            d
            for i, pair in enumerate(zip(ours, theirs, strict=True))
            for d in differences(*pair, f"{path}/{i}")
        ]
    close = (
        np.allclose(ours, theirs, rtol=1e-9, atol=0) if path.endswith("spacing") else ours == theirs
    )
    return [] if close else [f"{path[1:]}: ours {ours}, v1 {theirs}"]


def compare(
    fingerprints: list[dict[str, Any]], ours: list[Any], theirs: list[Any], planner: str
) -> Tally:
    """Compare the plans of one planner."""
    tally = Tally()
    for index, fingerprint in enumerate(fingerprints):
        mine, other = ours[index][planner], dict(theirs[index][planner])
        if "error" in other:
            both = "both fail" if "error" in mine else "ours plans it"
            tally.undefined[f"{re.sub('[0-9]+', 'N', other['error'])[:90]} ({both})"] += 1
            continue
        if planner in NETWORKS:
            other["plans_per_stage"] = {
                k: _without_blocks(v) for k, v in other["plans_per_stage"].items()
            }
        other.setdefault(
            "conv_per_stage", 2
        )  # plans of 2D planners leave it out (spec: planning, section 9)
        found = differences(mine, other)
        if found:
            found.insert(0, f"fingerprint {index} ({fingerprint['style']})")
            tally.differing.append("\n    ".join(found))
        else:
            tally.agreeing += 1
    return tally


def _without_blocks(stage: dict[str, Any]) -> dict[str, Any]:
    """Return a stage of a residual network in the words of the others: no blocks, no leading pool
    of ones.
    """
    others = {key: value for key, value in stage.items() if not key.startswith("num_blocks")}
    return {**others, "pool_op_kernel_sizes": stage["pool_op_kernel_sizes"][1:]}


def run_v1(
    python: Path, fingerprints: list[dict[str, Any]], planners: list[str], processes: int
) -> list[Any]:
    """Plan with v1, in its own interpreter."""
    script = Path(__file__).with_name("peer_v1_plans.py")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fingerprints.json", Path(folder) / "plans.json"
        source.write_text(json.dumps({"fingerprints": fingerprints, "planners": planners}))
        command = [str(python), str(script), str(source), str(target), str(processes)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(target.read_text())


def report(tallies: dict[str, Tally], shown: int) -> None:
    """Print the table, the first differences and the reasons of v1's failures."""
    console = Console(width=130, highlight=False)
    table = Table("planner of v1", "agreeing", "differing", "v1 fails")
    for name, tally in tallies.items():
        table.add_row(
            name, *map(str, (tally.agreeing, len(tally.differing), tally.undefined.total()))
        )
    console.print(table)
    for name, tally in tallies.items():
        for reason, count in tally.undefined.most_common():
            console.print(f"{name}: v1 fails {count} times: {reason}", markup=False)
        for difference in tally.differing[:shown]:
            console.print(f"{name}: {difference}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--v1-python", type=Path, required=True, help="python of an environment with nnunet 1.7.1"
    )
    parser.add_argument("--count", type=int, default=500, help="fingerprints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", action="store_true", help="compare the variant planners, too")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--shown", type=int, default=3, help="differences shown of each planner")
    arguments = parser.parse_args()
    planners = PLANNERS | VARIANTS if arguments.variants else PLANNERS
    known = {resolved.name for resolved in Registry.discover().components("planner")}
    for name in set(planners.values()) - known:
        print(f"there is no planner '{name}'; it is left out")
    planners = {name: component for name, component in planners.items() if component in known}
    fingerprints = [draw(arguments.seed, index) for index in range(arguments.count)]
    with multiprocessing.Pool(arguments.processes) as pool:
        ours = pool.map(functools.partial(plan, planners=planners), fingerprints, chunksize=4)
    theirs = run_v1(arguments.v1_python, fingerprints, list(planners), arguments.processes)
    tallies = {name: compare(fingerprints, ours, theirs, name) for name in planners}
    report(tallies, arguments.shown)
    sys.exit(any(tally.differing for tally in tallies.values()))


if __name__ == "__main__":
    main()
