"""A step of augmentation as a stranger writes it from the page on augmentation, and a transform of batchgenerators by name."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_stranger import ENTRY, PROJECT, short_run

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/how-to/change-augmentation.md"
FILES = dict(re.findall(r'```python title="(\w+\.py)"\n(.*?)```', PAGE.read_text(), re.DOTALL))
LOOK = """
import json
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.method import choose
method = choose(Registry.discover(), variant="biased", choices={}, settings={})
print(json.dumps([name for name, _ in method.build("augmentation").ordered]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of the page's two modules, as a package that pip installed."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    project = PROJECT.format(name="my_plugin", version="1.0")
    modules = 'py-modules = ["my_plugin", "my_steps"]'
    project = project.replace('packages = ["my_plugin"]', modules)
    entry = ENTRY.format(name="my_plugin").replace("my_plugin.plugin", "my_plugin")
    (source / "pyproject.toml").write_text(project + entry)
    for name, code in FILES.items():
        (source / name).write_text(code)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--target", str(target))
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return target


def test_the_step_is_short():
    assert set(FILES) == {"my_steps.py", "my_plugin.py"}
    assert len(FILES["my_steps.py"].split("@dataclass")[1].split("\n")) <= 15
    assert "nnunet_builtin" not in "".join(FILES.values())


def test_its_variant_trains_with_both_steps_after_noise(installed, tiny):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", LOOK]
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    names = json.loads(found.stdout)
    place = names.index("noise")
    assert [name.rpartition(":")[2] for name in names[place + 1 : place + 3]] == [
        "Bias",
        "RicianNoiseTransform",
    ]
    record = short_run(installed, tiny, "--variant", "biased")
    assert record["status"] == "finished"
    assert list(record["components"]["augmentation"]["settings"]["extra_steps"]) == ["noise"]
