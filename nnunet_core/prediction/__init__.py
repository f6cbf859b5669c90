"""What trained models are used for: they predict, alone and together, and the best is found."""
