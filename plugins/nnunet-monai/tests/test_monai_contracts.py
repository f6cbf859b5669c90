"""What nnunet-core's kit asks of every component; networks with fewer features than they have by
default.
"""

import pytest

from nnunet_core.testing import check_component, parametrize_with_checks

SMALL = {
    "segresnet": {"init_filters": 8},
    "segresnet_ds": {"init_filters": 8, "blocks_down": [1, 1, 1], "dsdepth": 2},
    "swinunetr": {"feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]},
    "unetr": {"feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2},
    "dynunet": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_networks_keep_their_contract(name):
    rows = check_component(f"monai/{name}", "network", settings=SMALL[name])
    assert len(rows) > 10
    wrong = {row.check: row.message for row in rows if row.outcome == "failed"}
    assert not wrong


@parametrize_with_checks([("planner", "monai/v21_even")])
def test_contract(component, check):
    check(component)
