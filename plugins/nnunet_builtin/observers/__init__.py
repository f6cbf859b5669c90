"""Observers that show trainings in TensorBoard, Weights & Biases and MLflow; each is a plugin of
its own.
"""
