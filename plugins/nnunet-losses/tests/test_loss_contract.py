"""What the package registers keeps the contracts of nnunet-core."""

from nnunet_core.testing import parametrize_with_checks


@parametrize_with_checks(
    [
        ("loss", "nnunet-losses/skeleton_recall"),
        ("loss", "nnunet-losses/boundary"),
        ("loss", "nnunet-losses/unified_focal"),
        ("preprocessor", "nnunet-losses/skeletons"),
        ("preprocessor", "nnunet-losses/distances"),
        ("variant", "nnunet-losses/skeleton_recall"),
        ("variant", "nnunet-losses/boundary"),
        ("variant", "nnunet-losses/unified_focal"),
    ]
)
def test_contract(component, check):
    check(component)
