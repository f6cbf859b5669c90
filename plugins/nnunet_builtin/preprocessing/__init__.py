"""Cropping, resampling and normalisation, and the way back."""
