"""The commands of nnU-Net v1 over nnunet-core: each turns its flags into calls of `nnunet`."""
