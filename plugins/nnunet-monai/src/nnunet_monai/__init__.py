"""MONAI's networks for nnunet-core."""
