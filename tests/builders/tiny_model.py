"""A model folder that was never trained: random weights, ready in milliseconds."""

from pathlib import Path

import small_training as small

from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.records import FILE as RUN_FILE
from nnunet_core.registry.records import FoldRecord
from nnunet_core.stages.method import choose
from nnunet_core.store.models import FILE, ModelDocument, weights_record


def make_tiny_model(
    folder: Path,
    declared=None,
    folds=2,
    channels=("MRI",),
    predictor=None,
    settings=None,
    ending=".nii.gz",
    **changes,
):
    """Write a model of three classes; return its folder.

    Args:
        folder: Its own.
        declared: Labels as in dataset.json.
        folds: How many.
        channels: Their names.
        predictor: Reference in place of the default one.
        settings: Of the predictor.
        ending: Of images and label maps.
        changes: Of the configuration.
    """
    network = small.CONFIGURATION.network.model_copy(update={"input_channels": len(channels)})
    normalization = small.CONFIGURATION.normalization * len(channels)
    updates = {"network": network, "normalization": normalization, **changes}
    configuration = small.CONFIGURATION.model_copy(update=updates)
    folder.mkdir(parents=True)
    trained = small.make_model(folder, declared, configuration, folds)
    method = choose(
        Registry.discover(),
        choices={"predictor": predictor} if predictor else {},
        settings={"predictor": settings or {}},
    )
    document = ModelDocument(
        dataset="Dataset001_Tiny",
        variant="default",
        configuration_name=folder.name,
        channels=channels,
        labels=trained.labels,
        file_ending=ending,
        label_ending=ending,
        mirror_axes=trained.mirror_axes,
        configuration=trained.configuration,
        components=method.records(trained.configuration),
    )
    document.write(folder / FILE)
    for number, fold in enumerate(trained.folds):
        FoldRecord(
            status="finished",
            dataset="Dataset001_Tiny",
            dataset_digest="",
            variant="default",
            configuration=folder.name,
            fold=str(number),
            seed=0,
            inputs_digest="",
            model_digest=document.digest(),
            components=document.components,
            weights=weights_record(fold),
        ).write(fold / RUN_FILE)
    return folder
