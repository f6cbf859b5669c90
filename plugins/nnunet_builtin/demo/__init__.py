"""A phantom dataset, and the variant that trains on it in minutes."""
