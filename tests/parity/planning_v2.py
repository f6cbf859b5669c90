"""Compare the plans of nnunet-resenc with those of nnU-Net v2 2.8.1, value by value: of the
datasets that its tests have, and of random ones.

Usage: python tests/parity/planning_v2.py --v2-python /path/to/nnunetv2/venv/bin/python
[--count 200] [--seed 0] [--write]

`--write` writes v2's plans into plugins/nnunet-resenc/tests/plans_v2.jsonl, which its tests compare
with. Exit code 1 when a value differs. Where v2 fails there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from planning_v1 import draw

PACKAGE = Path(__file__).parents[2] / "plugins" / "nnunet-resenc"
sys.path += [str(PACKAGE / "src"), str(PACKAGE / "tests")]

from resenc_datasets import as_v2, described, differences, planned  # noqa: E402

from nnunet_core.errors import NnunetError  # noqa: E402

FILE = PACKAGE / "tests" / "plans_v2.jsonl"
#: {our component, and its share of the dataset: class in v2, and its attributes}
PLANNERS: dict[str, Any] = {
    "resenc_m": ["nnUNetPlannerResEncM", {}],
    "resenc_l": ["nnUNetPlannerResEncL", {}],
    "resenc_xl": ["nnUNetPlannerResEncXL", {}],
    "resenc_l 0.05": ["nnUNetPlannerResEncL", {"max_dataset_covered": 0.05}],
}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def dataset(
    sizes: list[tuple[int, ...]],
    spacings: list[tuple[float, ...]],
    cases: int,
    channels: list[str],
    labels: dict[str, Any] | int,
    reduction: float = 1.0,
) -> dict[str, Any]:
    """Return a dataset of cases that repeat some sizes and spacings."""
    if isinstance(labels, int):
        labels = {"background": 0, **{f"label {i}": i for i in range(1, labels + 1)}}
    content: dict[str, Any] = {
        "sizes": [sizes[i % len(sizes)] for i in range(cases)],
        "spacings": [spacings[i % len(spacings)] for i in range(cases)],
        "size_reductions": [reduction] * cases,
        "channels": channels,
        "labels": labels,
    }
    if any(isinstance(value, list) for value in labels.values()):
        content["regions_class_order"] = [1, 2, 3]
    return with_outputs(content)


def with_outputs(content: dict[str, Any]) -> dict[str, Any]:
    labels = described(content)[0].labels
    return {**content, "outputs": labels.outputs}


DATASETS = {
    "hippocampus": dataset(
        [(36, 50, 35), (34, 53, 36), (37, 48, 34), (35, 52, 38)], [(1, 1, 1)], 260, ["MRI"], 2
    ),
    "liver": dataset(
        [(432, 512, 512), (220, 512, 512), (640, 512, 512)],
        [(1.0, 0.77, 0.77), (1.5, 0.7, 0.7), (0.8, 0.82, 0.82)],
        30,
        ["CT"],
        2,
    ),
    "prostate": dataset(
        [(20, 320, 320), (18, 320, 312), (24, 384, 384), (15, 256, 256)],
        [(3.6, 0.62, 0.62), (3.6, 0.6, 0.6), (3.0, 0.5, 0.5), (4.0, 0.75, 0.75)],
        32,
        ["T2", "ADC"],
        2,
    ),
    "tumours": dataset(
        [(138, 170, 138), (140, 171, 140), (136, 169, 137)],
        [(1, 1, 1)],
        40,
        ["FLAIR", "CTA", "T1", "T2"],
        REGIONS,
        reduction=0.5,
    ),
    "heart": dataset(
        [(9, 256, 216), (10, 232, 256), (6, 288, 288)],
        [(10.0, 1.56, 1.56), (5.0, 1.6, 1.6), (10.0, 1.37, 1.37)],
        20,
        ["MRI"],
        3,
    ),
    "photographs": dataset(
        [(1, 512, 512), (1, 600, 800)], [(999, 1, 1)], 11, ["rgb_to_0_1"] * 3, 1
    ),
    "sagittal, with an ignore label": dataset(
        [(201, 240, 33), (198, 251, 30)],
        [(0.9, 0.9, 3.5), (1.0, 1.0, 4.0)],
        7,
        ["MRI"],
        {"background": 0, "cartilage": 1, "ignore": 2},
    ),
    "tiny": dataset([(12, 20, 17), (13, 21, 17)], [(1.5, 1.0, 1.0)], 6, ["MRI"], 1),
}


def drawn(seed: int, index: int) -> dict[str, Any]:
    """Return a random dataset."""
    content = draw(seed, index)
    labels: dict[str, Any] = {"background": 0}
    labels.update({f"label {i}": i for i in range(1, content["num_classes"] + 1)})
    if index % 7 == 0:
        labels["ignore"] = len(labels)
    found = {**content, "labels": REGIONS if index % 5 == 0 else labels}
    found.update(channels=content["modalities"], regions_class_order=[1, 2, 3])
    return with_outputs(found)


def run_v2(python: Path, contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Plan with v2, in its own interpreter."""
    script = Path(__file__).with_name("peer_v2_plans.py")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fingerprints.json", Path(folder) / "plans.json"
        source.write_text(json.dumps({"fingerprints": contents, "planners": PLANNERS}))
        subprocess.run([str(python), str(script), str(source), str(target)], check=True)
        found: list[dict[str, Any]] = json.loads(target.read_text())
        return found


def ours(content: dict[str, Any], planner: str) -> dict[str, Any]:
    """Return our plans in the words of v2, or the error."""
    name, _, share = planner.partition(" ")
    settings = {"dataset_share": float(share)} if share else {}
    try:
        return as_v2(planned(content, name, **settings))
    except (NnunetError, ValueError, ArithmeticError) as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--v2-python", type=Path, required=True, help="it has nnunetv2 2.8.1")
    parser.add_argument("--count", type=int, default=200, help="random fingerprints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    arguments = parser.parse_args()
    contents = [*DATASETS.values(), *(drawn(arguments.seed, i) for i in range(arguments.count))]
    theirs = run_v2(arguments.v2_python, contents)
    if arguments.write:
        rows = {
            name: {"dataset": content, "plans": plans}
            for (name, content), plans in zip(DATASETS.items(), theirs, strict=False)
        }
        FILE.write_text("\n".join(json.dumps({name: row}) for name, row in rows.items()) + "\n")
    names = [*DATASETS, *(f"random {i}" for i in range(arguments.count))]
    counts: Counter[str] = Counter()
    for name, content, found in zip(names, contents, theirs, strict=True):
        for planner in PLANNERS:
            if "error" in found[planner]:
                counts["v2 fails"] += 1
                continue
            wrong = differences(ours(content, planner), found[planner])
            counts["differing" if wrong else "equal"] += 1
            if wrong:
                print(f"{name}, {planner}:", *wrong, sep="\n    ")
    print(dict(counts))
    sys.exit(counts["differing"] > 0)


if __name__ == "__main__":
    main()
