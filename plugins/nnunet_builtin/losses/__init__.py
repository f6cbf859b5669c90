"""Losses and what they are made of."""
