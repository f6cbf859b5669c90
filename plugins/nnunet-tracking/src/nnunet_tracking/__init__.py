"""Observers of nnunet-core that show trainings in Weights & Biases and MLflow; each is a plugin of
its own.
"""
