"""Random transforms of training patches, on arrays and on tensors."""
