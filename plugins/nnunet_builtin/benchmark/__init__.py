"""Plugin `benchmark`: variants compared over datasets, folds and seeds."""
