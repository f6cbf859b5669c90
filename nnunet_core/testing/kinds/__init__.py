"""The checks: a file per kind of component, and what every kind has to keep."""
