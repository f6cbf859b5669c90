"""Skeleton recall, boundary loss and unified focal loss for nnunet-core."""
