"""The page on image formats: its own format reads what it wrote, and is found by the ending."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_core.data.images import Geometry
from nnunet_core.errors import ImageError
from nnunet_core.registry.discovery import PluginInfo, Registry
from nnunet_core.stages.formats import find_format

PAGE = Path(__file__).parents[2] / "docs/how-to/formats.md"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Return a registry with the plugin of the page."""
    for title, code in re.findall(
        r'```python title="([^"]+)"\n(.*?)```', PAGE.read_text(), re.DOTALL
    ):
        (tmp_path / title).parent.mkdir(exist_ok=True)
        (tmp_path / title).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    import mypkg.plugin

    found = Registry.discover()
    found.register(mypkg.plugin, PluginInfo("mypkg", "mypkg.plugin", "mypkg", "0.1", "active"))
    yield found
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypkg"]:
        del sys.modules[name]


def test_a_format_of_your_own(registry, tmp_path):
    ours = find_format(".npy", registry)
    volume, path = np.arange(24, dtype=np.int16).reshape(2, 3, 4), tmp_path / "case_0000.npy"
    ours.write(path, volume, Geometry(volume.shape))
    np.testing.assert_array_equal(ours.read(path).array, volume[None])
    assert ours.header(path).shape == (2, 3, 4)
    path.write_bytes(b"no array")
    with pytest.raises(ImageError, match="cannot be read"):
        ours.read(path)
