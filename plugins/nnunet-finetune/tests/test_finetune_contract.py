"""What the package registers keeps the contracts of nnunet-core."""

from nnunet_core.testing import parametrize_with_checks


@parametrize_with_checks(
    [
        ("trainer", "nnunet-finetune/finetune"),
        ("planner", "nnunet-finetune/resenc_l_160"),
        ("variant", "nnunet-finetune/finetune_resenc_l"),
    ]
)
def test_contract(component, check):
    check(component)
