"""Executors: where the jobs of a benchmark run."""
