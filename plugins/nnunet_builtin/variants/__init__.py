"""Variants as tables: listed, shown, compared."""
