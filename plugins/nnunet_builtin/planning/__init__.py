"""Planners: fingerprint, patch and network sizes."""
