"""The trainers of v1 as variants: they are those of the page, and every setting exists."""

import re
import shlex
from pathlib import Path

import pytest

from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.method import choose
from nnunet_v1_commands import methods, plugin

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "v1-trainers.md"
VARIANTS = plugin.nnunet_variants()


def rows():
    """Return {first trainer: words of its options, None for none} of every row."""
    found = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            names, options, remark = (cell.strip() for cell in line.strip("| ").split("|"))
            words = [] if options.startswith("none") else shlex.split(options.strip("`"))
            name = re.findall("`(.+?)`", names)[0]
            name = f"nnUNetTrainer{name}" if name.startswith("V2") else name
            found[name] = None if remark.startswith("not covered") else words
    return found


def test_the_table_is_that_of_the_page():
    """Tests of that page build what its options choose."""
    known = plugin.trainers()
    for name, words in rows().items():
        configured = words is not None and "-c" in words
        at = words.index("-c") if configured else 0
        assert known[name] == (words[:at] + words[at + 2 :] if configured else words), name


def test_every_variant_names_components_that_exist():
    registry = Registry.discover()
    for variant in VARIANTS:
        method = choose(registry, choices=variant.choices(), settings=variant.settings)
        for kind, reference in variant.choices().items():
            assert method.components[kind].reference == reference


def test_plain_v2_is_the_default_method():
    (variant,) = (v for v in VARIANTS if v.name == "nnUNetTrainerV2__nnUNetPlansv2.1")
    assert variant.choices() == {}
    assert variant.settings == {}


@pytest.mark.parametrize(
    ("configuration", "trainer", "setting"),
    [
        ("2d", "nnUNetTrainerV2_DA2", "augmentation.rotation_axis_probability=1.0"),
        ("3d_fullres", "nnUNetTrainerV2_momentum09in2D", "trainer.momentum=0.99"),
        ("2d", "nnUNetTrainer", "augmentation.elastic_alpha=[0, 200]"),
    ],
)
def test_what_a_trainer_has_in_one_dimensionality_alone(configuration, trainer, setting):
    assert setting in methods.V1Method(configuration, trainer).options("Task004_Hippocampus")
    other = "3d_fullres" if configuration == "2d" else "2d"
    assert setting not in methods.V1Method(other, trainer).options("Task004_Hippocampus")
