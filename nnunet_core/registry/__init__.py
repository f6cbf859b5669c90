"""Plugins: the records they return, hooks in life-cycle order, discovery, settings, provenance."""
