"""Clean the label maps of a folder, as a postprocessor decides or has decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_core.contracts.abilities import built
from nnunet_core.contracts.postprocessor import Postprocessor
from nnunet_core.data.folders import label_files
from nnunet_core.data.images import Geometry, ImageFormat, ending_of
from nnunet_core.data.labels import Labels, label_type
from nnunet_core.errors import (
    DatasetError,
    ImageError,
    MissingFolderError,
    NnunetError,
    StorageError,
    UsageError,
    counted,
    listed,
)
from nnunet_core.prediction.averaging import LabelFiles
from nnunet_core.registry.discovery import Registry, Resolved
from nnunet_core.registry.provenance import component_record
from nnunet_core.runtime import files
from nnunet_core.runtime.names import below
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.stages.evaluate import brought_together, read_label_image
from nnunet_core.stages.formats import find_format, known_endings
from nnunet_core.store.postprocessing import PostprocessingRecord
from nnunet_core.store.predictions import RECORD, PredictionRecord

FILE = "postprocessing.json"
Pairs = Sequence[tuple[Path, Path]]


@dataclass(frozen=True)
class Cleaning:
    """A postprocessor and what it does to every label map.

    Attributes:
        postprocessor: The component.
        state: What it decided.
        record: The same as a file; None where it came from one.
    """

    postprocessor: Postprocessor
    state: Mapping[str, Any]
    record: PostprocessingRecord | None = None


def kind_of(folder: Path, declared: LabelFiles | None, registry: Registry) -> LabelFiles | str:
    """Return what is known of the label files of a folder: what its predictions.json says, what is
    declared, or only the ending that all of them have.

    Raises:
        MissingFolderError: There is no such folder.
        DatasetError: Files of several endings, or none.
    """
    if not folder.is_dir():
        raise MissingFolderError(folder, "It should hold label maps.")
    if declared is not None:
        return declared
    if (folder / RECORD).is_file():
        record = PredictionRecord.read(folder / RECORD)
        return LabelFiles(record.labels, record.label_ending, record.label_format)
    known = known_endings(registry)
    endings = {ending_of(path.name, known) for path in folder.iterdir() if path.name[0] != "."}
    found = sorted(endings - {""})
    if len(found) != 1:
        raise DatasetError(
            f"{folder} holds {'files ending in ' + ', '.join(found) if found else 'no label map'}. "
            "Give the dataset (--dataset), which says how its label maps end."
        )
    return found[0]


def fit_folder(
    pairs: Pairs,
    labels: Labels,
    image_format: ImageFormat,
    component: Resolved,
    report: Reporter,
) -> Cleaning:
    """Let a postprocessor decide from predictions and references; without any, its settings must.

    Args:
        pairs: Label files (prediction, reference); empty where there are no references.
        labels: What their values mean.
        image_format: Reads them.
        component: The postprocessor with its settings.
        report: Where progress goes.

    Raises:
        ImageError: A file is unreadable, or two lie on different grids.
        UsageError: The settings leave the decision to references, and there are none.
    """

    def read() -> Iterator[tuple[np.ndarray, np.ndarray, Geometry]]:
        if not pairs:
            raise UsageError(
                f"The postprocessor '{component.reference}' decides from references: give their "
                "folder (--references), a file of what was decided (--postprocessing), or the "
                "settings that decide ('nnunet plugins show "
                f"{component.name} --kind postprocessor')."
            )
        with report.track("fit", len(pairs)) as tracker:
            for prediction, reference in pairs:
                yield _read_pair(prediction, reference, image_format)
                tracker.advance(1, prediction.name)

    postprocessor = built(component)
    state = dict(postprocessor.fit(read, labels))
    record = PostprocessingRecord(
        component=component_record(component),
        folds=(),
        weights={},
        inputs=files.digest([files.file_digest(path) for path, _ in pairs]),
        state=state,
    )
    return Cleaning(postprocessor, state, record)


def clean_folder(
    folder: Path,
    output: Path,
    kind: LabelFiles | str,
    cleaning: Cleaning,
    registry: Registry,
    overwrite: bool,
    report: Reporter,
) -> list[Path]:
    """Write the cleaned label maps of a folder into another one, and `postprocessing.json` beside
    them where something was fitted; return the label files.

    Raises:
        UsageError: The output is the same folder, or holds such files and is not to be overwritten.
        NnunetError: Files failed, after the others are written.
    """
    if folder.resolve() == output.resolve():
        raise UsageError(
            f"The cleaned label maps cannot be written to {output}, where they come from. Choose "
            "another output folder."
        )
    ending = kind if isinstance(kind, str) else kind.ending
    named = None if isinstance(kind, str) else kind.format
    image_format = find_format(ending, registry, named, "the label maps", "label_format")
    sources = label_files(folder, ending)
    outputs = {name: below(output, path.name) for name, path in sources.items()}
    there = [path.name for path in (*outputs.values(), output / FILE) if path.exists()]
    if there and not overwrite:
        raise UsageError(
            f"{output} holds {listed(there)}. Choose another output folder, or pass --overwrite."
        )
    failures = []
    with report.track("postprocess", len(sources)) as tracker:
        for name, source in sources.items():
            try:
                _clean(source, outputs[name], image_format, cleaning)
            except StorageError:
                raise
            except NnunetError as error:
                failures.append(f"{name}: {error}")
            tracker.advance(1, name)
    if failures:
        raise NnunetError(
            f"{len(failures)} of {counted(len(sources), 'label map')} failed:\n"
            + "\n".join(failures)
        )
    if cleaning.record is not None:
        cleaning.record.write(output / FILE)
    return list(outputs.values())


def _clean(source: Path, output: Path, image_format: ImageFormat, cleaning: Cleaning) -> None:
    image = read_label_image(source, image_format)
    label = image.array[0]
    if label.min() < 0:
        raise ImageError(f"{source} holds negative values; a label map holds labels from 0 on.")
    label = label.astype(label_type(int(label.max())))
    cleaned = cleaning.postprocessor.apply(label, image.geometry, cleaning.state)
    image_format.write(output, cleaned, image.geometry)


def _read_pair(
    prediction: Path, reference: Path, image_format: ImageFormat
) -> tuple[np.ndarray, np.ndarray, Geometry]:
    predicted, true = (read_label_image(path, image_format) for path in (prediction, reference))
    turned = brought_together(predicted, true, (prediction, reference))
    return turned.array[0], true.array[0], true.geometry
