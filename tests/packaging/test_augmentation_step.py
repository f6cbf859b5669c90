"""A step of augmentation as a stranger writes it from the page on augmentation, and a transform of
batchgenerators by name.
"""

import re
from pathlib import Path

import pytest
from strangers import install, on_path, short_run

from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.method import choose

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/how-to/change-augmentation.md"
FILES = dict(re.findall(r'```python title="(\w+\.py)"\n(.*?)```', PAGE.read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of the page's two modules, as a package that pip installed."""
    modules = {Path(name).stem: code for name, code in FILES.items()}
    return install(tmp_path_factory.mktemp("package"), "my_plugin", "1.0", modules, "my_plugin")


def test_the_step_is_short():
    assert set(FILES) == {"my_steps.py", "my_plugin.py"}
    assert len(FILES["my_steps.py"].split("@dataclass")[1].split("\n")) <= 15
    assert "nnunet_builtin" not in "".join(FILES.values())


def test_its_variant_trains_with_both_steps_after_noise(installed, tiny):
    with on_path(installed):
        method = choose(Registry.discover(), variant="biased", choices={}, settings={})
        names = [name for name, _ in method.build("augmentation").ordered]
    place = names.index("noise")
    assert [name.rpartition(":")[2] for name in names[place + 1 : place + 3]] == [
        "Bias",
        "RicianNoiseTransform",
    ]
    record = short_run(installed, tiny, "--variant", "biased")
    assert record["status"] == "finished"
    assert list(record["components"]["augmentation"]["settings"]["extra_steps"]) == ["noise"]
