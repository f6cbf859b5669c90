"""The residual-encoder U-Nets of nnU-Net v2 and their planners, as a plugin of nnunet-core."""
