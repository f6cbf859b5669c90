"""What makes convolutions faster on CPUs."""
