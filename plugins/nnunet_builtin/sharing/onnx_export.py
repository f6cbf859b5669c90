"""The network of a fold as ONNX: fixed patch, float32, compared with PyTorch before it is kept."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_builtin.computing.heads import heads_of, set_deep_supervision
from nnunet_builtin.networks.weights import load_weights
from nnunet_core.contracts.abilities import built
from nnunet_core.errors import NnunetError, UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.files import atomic_path
from nnunet_core.runtime.reporting import Reporter
from nnunet_core.store.models import WEIGHTS, Model, check_weights

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-3  # of the logits, for each unit of the largest one
INPUT, OUTPUT = "images", "logits"
#: Name of the metadata entry with what a program needs beside the network, JSON.
METADATA = "nnunet"


class _FullResolution(torch.nn.Module):
    """A network without its coarser outputs."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Take images (1, C, *patch) to logits (1, K, *patch)."""
        return heads_of(self.network(images))[0]


def write_onnx(model: Model, fold: str, file: Path, registry: Registry, report: Reporter) -> float:
    """Write the network of a fold: input `images` float32 (1, C, *patch), prepared as the model's
    preprocessor does it; output `logits` float32 (1, K, *patch), axes in the order of the patch.

    The metadata entry `nnunet` holds what else is needed: channels, labels, spacing (mm),
    normalisation, mirror axes. Of a cascade it is the network of its last stage.

    Args:
        model: A trained model.
        fold: Name of the fold.
        file: What to write.
        registry: Where the network's builder is.
        report: Told of other versions of plugins.

    Returns:
        The largest difference of a logit from PyTorch's on random images, which is small.

    Raises:
        UsageError: onnx, onnxscript or onnxruntime is not installed, or the fold is not trained.
        PluginError: The network's package is missing, or its code is not trusted.
        NnunetError: The network cannot be written as ONNX, or computes something else there.
    """
    _check_installed()
    model.check_trusted(["network"], report)
    (folder,) = model.folds((fold,))
    check_weights(folder)
    configuration = model.document.configuration
    network = built(model.component(registry, "network", report)).build(configuration.network)
    load_weights(network, folder / WEIGHTS)
    set_deep_supervision(network, False)
    plain = _FullResolution(network).eval()
    shape = (1, configuration.network.input_channels, *configuration.patch_size)
    images = torch.from_numpy(np.random.RandomState(0).standard_normal(shape).astype(np.float32))
    with atomic_path(file) as temporary:
        _convert(plain, images, temporary)
        _describe(temporary, _facts(model))
        difference, largest = _difference(plain, images, temporary)
        if not difference <= _TOLERANCE * max(1.0, largest):
            raise NnunetError(
                f"The network as ONNX differs from PyTorch's by {difference:.2g} in a logit (they "
                f"reach {largest:.2g}), so it was not kept. Another version of onnxscript or torch "
                "may convert it right."
            )
    return difference


def _check_installed() -> None:
    missing = []
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UsageError(
            f"Writing ONNX needs {', '.join(missing)}. Run: pip install 'nnunet-core[onnx]'"
        )


def _convert(network: torch.nn.Module, images: torch.Tensor, path: Path) -> None:
    talk = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(talk),
            contextlib.redirect_stderr(talk),
            torch.inference_mode(),
        ):
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            torch.onnx.export(
                network,
                (images,),
                str(path),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise NnunetError(
            f"The network cannot be written as ONNX: {type(error).__name__}: {error}"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _describe(path: Path, facts: dict[str, Any]) -> None:
    import onnx

    written = onnx.load(path)
    entry = written.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(facts)
    onnx.save(written, path)


def _facts(model: Model) -> dict[str, Any]:
    document, configuration = model.document, model.document.configuration
    plain = configuration.model_dump(mode="json")
    names = ("spacing", "patch_size", "transpose_forward", "normalization", "previous")
    return {
        "channels": document.channels,
        "labels": document.labels.model_dump(mode="json"),
        "mirror_axes": document.mirror_axes,
        **{name: plain[name] for name in names},
    }


def _difference(network: torch.nn.Module, images: torch.Tensor, path: Path) -> tuple[float, float]:
    """Return the largest difference of both, and the largest logit."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
    with torch.inference_mode():
        expected = network(images).numpy()
    if found.shape != expected.shape:
        raise NnunetError(f"The network as ONNX returns {found.shape} instead of {expected.shape}.")
    return float(np.abs(found - expected).max()), float(np.abs(expected).max())
