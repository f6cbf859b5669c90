"""`nnunet dataset list`: what each dataset holds; one that cannot be used is a row with the
reason.
"""

import json
import re
import subprocess
import sys


def test_datasets_are_listed_and_unusable_ones_say_why(tiny):
    broken = tiny.with_name("Dataset002_Broken")
    broken.mkdir()
    (broken / "dataset.json").write_text('{"labels": {"background": 0, "a": 1}}')
    command = [
        sys.executable,
        "-m",
        "nnunet_cli",
        "dataset",
        "list",
        "--workspace",
        str(tiny.parents[1]),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Dataset001_Tiny" in shown
    assert "channel_names" in re.sub(r"[│\s]", "", shown)  # wherever the cell breaks its line
    first, second = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    )
    assert first == {
        "name": "Dataset001_Tiny",
        "channels": ["MRI"],
        "labels": ["cube"],
        "cases": 6,
        "file_ending": ".nii.gz",
    }
    assert second["name"] == "Dataset002_Broken"
    assert "channel_names" in second["error"]
