"""The plugin `demo`: a dataset to try things with, and the variant that trains on it in minutes."""

from __future__ import annotations

from nnunet_core import Component, Variant, hookimpl


@hookimpl
def nnunet_datasets() -> list[Component]:
    """Return the phantom dataset."""
    return [
        Component(
            "demo", "nnunet_builtin.demo.dataset:Demo", "a small phantom dataset, made in seconds"
        )
    ]


@hookimpl
def nnunet_variants() -> list[Variant]:
    """Return a short training for a first look."""
    return [
        Variant(
            "demo",
            "a training of minutes, for small data and a first look",
            settings={
                "planner": {"max_batch_size": 2},
                "trainer": {"epochs": 10, "iterations_per_epoch": 20, "validation_iterations": 4},
            },
        )
    ]
