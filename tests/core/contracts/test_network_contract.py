"""What a network builder says of its patches, and what it hears of them."""

import json

import pytest
import small_training as small

from nnunet_core.contracts.network import divisor_of
from nnunet_core.data.plans import Configuration, NetworkSpec
from nnunet_core.errors import PluginError

SPEC = small.CONFIGURATION.network


class Said:
    def __init__(self, divisor):
        self.found = divisor

    def divisor(self, spec):
        return self.found


@pytest.mark.parametrize("divisor", [8, (8, 8), (8, 8, 0), (8, 8, 8.0), None, "888"])
def test_a_divisor_that_is_none_is_refused_with_what_it_must_be(divisor):
    with pytest.raises(PluginError, match=r"divisor of the network Said is .*tuple of 3 positive"):
        divisor_of(Said(divisor), SPEC)


def test_a_divisor_has_a_number_for_each_axis():
    assert divisor_of(Said([8, 4, 2]), SPEC) == (8, 4, 2)


def test_a_network_hears_of_its_patch_and_plans_do_not_say_it_twice():
    content = json.loads(small.CONFIGURATION.model_dump_json())
    assert "patch_size" not in content["network"]
    found = Configuration.model_validate_json(json.dumps(content))
    assert found == small.CONFIGURATION
    assert found.network.patch_size == found.patch_size == small.PATCH
    assert NetworkSpec(**content["network"]).patch_size == ()
