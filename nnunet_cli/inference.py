"""`nnunet predict inference.json`: what `nnunet find-best` selected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_cli.reporter import make_reporter, out
from nnunet_core.errors import counted
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.infer import predict_inference, predict_inference_file
from nnunet_core.stages.predict import PredictionOptions, is_file_output


def carry_out(
    path: Path,
    images: Sequence[Path],
    output: Path,
    registry: Registry,
    options: PredictionOptions,
    trust: bool,
) -> None:
    """Predict as an inference.json says, and print where the predictions are."""
    report = make_reporter()
    if not options.ending and is_file_output(output, registry):
        predict_inference_file(path, images, output, registry, options, report, trust)
        out().print(str(output), soft_wrap=True)
        return
    written = predict_inference(path, images, output, registry, options, report, trust)
    out().print(f"{counted(len(written), 'case')} in {output}", soft_wrap=True)
