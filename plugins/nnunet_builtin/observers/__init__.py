"""Observers that show trainings elsewhere: what they share, and TensorBoard."""
