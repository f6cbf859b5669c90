"""The training loop makes the steps of nnU-Net v1: losses and final weights of its V2 trainer,
stored in the repository.
"""

import json

import pytest
import training_v1 as v1


@pytest.fixture(scope="module")
def figures():
    return json.loads(v1.FIGURES.read_text())


@pytest.mark.parametrize("name", ["2d", "3d"])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_thirty_steps_are_those_of_v1(figures, name, kind):
    figure = figures[name]
    loss, norms = v1.differences(v1.our_steps(name, figure["shapes"], kind), figure[kind])
    limits = v1.LIMITS[kind]
    assert loss < limits[0]
    assert norms < limits[1]
    assert figure[kind]["losses"][-1] < figure[kind]["losses"][0]


@pytest.mark.parametrize(
    "other",
    [{"weight_decay": 0.0}, {"gradient_clip": 12.5}, {"momentum": 0.98}, {"poly_power": 1.0}],
)
def test_the_comparison_sees_other_settings(figures, other):
    figure = figures["2d"]
    loss, norms = v1.differences(
        v1.our_steps("2d", figure["shapes"], "float64", **other), figure["float64"]
    )
    assert loss > v1.LIMITS["float64"][0] or norms > v1.LIMITS["float64"][1]
