"""What a training shows of its network: a table of layers, and a drawing of the U-Net (spec:
network, section 2).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nnunet_builtin.networks.unet import UNet
from nnunet_core.runtime.files import atomic_path, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from nnunet_core.contracts.trainer import TrainingTask
    from nnunet_core.data.plans import NetworkSpec

TABLE = "network.txt"
DRAWING = "network.png"
_BYTES = 4
# inches: boxes of stages, their rows, boxes of inputs and heads
_WIDTH = 1.85
_HEIGHT = 0.56
_ROW = 1.0
_SIDE = 1.75
_GAP, _SHIFT, _MARGIN = 0.5, 0.3, 0.3
_INK, _GREY, _HEAD, _INPUT = "#1d2733", "#6b7785", "#ffe3bf", "#e4e7ea"


def describe_network(network: nn.Module, task: TrainingTask, batch_size: int) -> None:
    """Write `network.txt`, and for the U-Net of the plans `network.png`, into the fold folder.

    What fails is a warning; random numbers are not used up, and the network stays as it is.

    Args:
        network: What is trained.
        task: The training.
        batch_size: Samples per update, of all processes together.
    """
    spec, patch = task.configuration.network, task.configuration.patch_size
    try:
        with torch.random.fork_rng(devices=[]):
            text = network_table(network, (batch_size, spec.input_channels, *patch))
        counted = task.network.memory(spec, patch) / 1e9
        write_text(
            task.folder / TABLE,
            f"{text}\nmemory of one patch, as planners count it: {counted:.2f} GB\n",
        )
        if type(network) is UNet:
            heads = len(spec.pool_kernels) if network.deep_supervision else 1
            network_picture(spec, patch, task.folder / DRAWING, batch_size, heads)
    except Exception as error:  # noqa: BLE001 - a picture that fails does not stop a training
        task.report.warning(
            f"The network cannot be shown: {type(error).__name__}: {error}. The training goes on."
        )


def network_table(network: nn.Module, shape: Sequence[int]) -> str:
    """Return a table of the layers with output shapes and parameters, and the memory of a training.

    Shapes are found on a copy without data (PyTorch's meta device): nothing is computed.

    Args:
        network: Any network.
        shape: Of a batch, (B, C, *patch).
    """
    import torchinfo

    statistics = torchinfo.summary(
        _without_data(network),
        input_data=torch.empty(tuple(shape), device="meta"),
        col_names=("output_size", "kernel_size", "num_params", "mult_adds"),
        row_settings=("var_names",),
        depth=10,
        mode="train",
        verbose=0,
    )
    weights = sum(parameter.numel() for parameter in network.parameters())
    trained = sum(
        parameter.numel() for parameter in network.parameters() if parameter.requires_grad
    )
    # it counts gradients too
    kept = (weights + 2 * trained) * _BYTES
    maps = statistics.total_output_bytes // 2
    size = " x ".join(map(str, shape))
    lines = [
        f"{type(network).__name__}, batch {size} (samples, channels, voxels)",
        "",
        str(statistics).partition("Total params")[0],
        f"parameters: {weights:,}, trained: {trained:,}",
        f"multiplications of a forward pass: {statistics.total_mult_adds:,}",
        f"memory of a training in float32, estimated: {(kept + maps) / 1e9:.2f} GB",
        f"  weights, gradients and momentum: {kept / 1e9:.2f} GB",
        f"  feature maps of the batch, kept for the gradients: {maps / 1e9:.2f} GB; about half in "
        "mixed precision",
    ]
    return "\n".join(lines)


def _without_data(network: nn.Module) -> nn.Module:
    """Return a copy whose parameters and buffers have shapes only."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in network.parameters()
    }
    memo.update({id(buffer): buffer.to("meta") for buffer in network.buffers()})
    return copy.deepcopy(network, memo)


def network_picture(
    spec: NetworkSpec,
    patch_size: Sequence[int],
    path: Path,
    batch_size: int,
    heads: int | None = None,
) -> None:
    """Draw the U-Net of a specification: features, shape and kernels of each stage, strides, skips
    and heads.

    Args:
        spec: The network.
        patch_size: Voxels.
        path: PNG to write.
        batch_size: For the title.
        heads: Outputs that are trained, from the finest resolution on; None is all of them.
    """
    from matplotlib.figure import Figure

    layout = _Layout.of(spec, patch_size, heads)
    figure = Figure(figsize=(layout.width, layout.height), dpi=110, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(0, layout.height))
    axes.set_axis_off()
    for box in (layout.image, *layout.encoder, *layout.decoder, *layout.heads):
        box.draw(axes)
    _connect(axes, layout, spec)
    patches = f"{spec.dimensions}D patches of {_times(patch_size)} voxels"
    title = f"U-Net for {patches}, batch size {batch_size}"
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": _INK}
    axes.text(layout.width / 2, layout.height - 0.3, title, fontsize=12, fontweight="bold", **style)
    note = "box: features, size in voxels; below: convolutions, each with norm and activation"
    axes.text(layout.width / 2, 0.2, note, fontsize=8, **{**style, "color": _GREY})
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


@dataclass(frozen=True)
class _Box:
    """A rectangle around its centre (x, y), in inches, with two lines of text."""

    x: float
    y: float
    width: float
    colour: str
    title: str
    line: str

    @property
    def left(self) -> tuple[float, float]:
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y

    def draw(self, axes: Axes) -> None:
        from matplotlib.patches import FancyBboxPatch

        corner, inset = (self.left[0] + 0.05, self.y - _HEIGHT / 2 + 0.05), 0.1
        style: dict[str, Any] = {
            "boxstyle": "round,pad=0.05",
            "facecolor": self.colour,
            "edgecolor": _INK,
            "linewidth": 0.8,
        }
        axes.add_patch(FancyBboxPatch(corner, self.width - inset, _HEIGHT - inset, **style))
        text: dict[str, Any] = {"ha": "center", "va": "center", "color": _INK}
        axes.text(self.x, self.y + 0.11, self.title, fontsize=9, fontweight="bold", **text)
        axes.text(self.x, self.y - 0.12, self.line, fontsize=8, **text)


@dataclass(frozen=True)
class _Layout:
    """Where everything is; resolution 0, the finest, is on top, and the bottleneck is the last of
    the encoder.
    """

    width: float
    height: float
    image: _Box
    encoder: tuple[_Box, ...]
    decoder: tuple[_Box, ...]
    heads: tuple[_Box, ...]

    @classmethod
    def of(cls, spec: NetworkSpec, patch_size: Sequence[int], heads: int | None = None) -> _Layout:
        depth, sizes = len(spec.pool_kernels), [_times(size) for size in _sizes(spec, patch_size)]
        offsets = [_WIDTH / 2 + _GAP + (depth - 1 - d) * _SHIFT for d in range(depth)]
        reach = offsets[0] + _WIDTH / 2 + _GAP + _SIDE
        centre, height = reach + _MARGIN, (depth + 1) * _ROW + 0.9
        rows = [height - 0.95 - d * _ROW for d in range(depth + 1)]

        def stage(x: float, d: int, kernel: Sequence[int]) -> _Box:
            features = spec.features(d)
            line = f"{spec.convs_per_stage} × conv {_times(kernel)}"
            return _Box(
                x, rows[d], _WIDTH, _shade(features, spec), f"{features} × {sizes[d]}", line
            )

        def head(d: int) -> _Box:
            line = "segmentation" if d == 0 else "deep supervision"
            x = centre + reach - _SIDE / 2
            return _Box(x, rows[d], _SIDE, _HEAD, f"{spec.output_channels} × {sizes[d]}", line)

        left = [centre - offset for offset in offsets] + [centre]
        return cls(
            width=2 * centre,
            height=height,
            image=_Box(
                _MARGIN + _SIDE / 2,
                rows[0],
                _SIDE,
                _INPUT,
                f"{spec.input_channels} × {sizes[0]}",
                "input",
            ),
            encoder=tuple(stage(x, d, spec.conv_kernels[d]) for d, x in enumerate(left)),
            decoder=tuple(
                stage(centre + offsets[d], d, spec.conv_kernels[d + 1]) for d in range(depth)
            ),
            heads=tuple(head(d) for d in range(heads or depth)),
        )


def _connect(axes: Axes, layout: _Layout, spec: NetworkSpec) -> None:
    """Draw the ways through the network, and say what they do."""
    encoder, decoder = layout.encoder, layout.decoder
    _arrow(axes, layout.image.right, encoder[0].left)
    for d, stride in enumerate(spec.pool_kernels):
        down, up, text = encoder[d + 1], (*decoder, encoder[-1])[d + 1], _times(stride)
        last = d + 1 == len(decoder)
        edge = _HEIGHT / 2
        x_down = encoder[d].x if last else down.x
        x_up = decoder[d].x if last else up.x
        if last:
            _arrow(
                axes,
                (x_down, encoder[d].y - edge),
                down.left,
                connectionstyle="angle,angleA=-90,angleB=180,rad=6",
            )
            _arrow(
                axes,
                up.right,
                (x_up, decoder[d].y - edge),
                connectionstyle="angle,angleA=0,angleB=90,rad=6",
            )
        else:
            _arrow(axes, (x_down, encoder[d].y - edge), (x_down, down.y + edge))
            _arrow(axes, (x_up, up.y + edge), (x_up, decoder[d].y - edge))
        middle = encoder[d].y - _ROW / 2
        _note(axes, x_down - 0.08, middle, f"stride {text}", "right")
        _note(axes, x_up + 0.08, middle, f"transposed conv {text}", "left")
        _arrow(axes, encoder[d].right, decoder[d].left, linestyle=(0, (3, 2)), color=_GREY)
        _note(axes, (encoder[d].x + decoder[d].x) / 2, encoder[d].y + 0.09, "skip", "center")
    for stage, head in zip(decoder, layout.heads, strict=False):
        _arrow(axes, stage.right, head.left)
        _note(axes, head.left[0] - 0.08, head.y + 0.1, _times((1,) * spec.dimensions), "right")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    chosen = {
        "arrowstyle": "-|>",
        "color": _INK,
        "linewidth": 1.0,
        "shrinkA": 1,
        "shrinkB": 1,
        **style,
    }
    axes.annotate("", xy=end, xytext=start, arrowprops=chosen)


def _note(axes: Axes, x: float, y: float, text: str, side: str) -> None:
    axes.text(x, y, text, fontsize=7.5, color=_GREY, ha=side, va="center")


def _sizes(spec: NetworkSpec, patch_size: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the voxels at each resolution, finest first."""
    sizes = [tuple(patch_size)]
    for stride in spec.pool_kernels:
        sizes.append(tuple(size // step for size, step in zip(sizes[-1], stride, strict=True)))
    return sizes


def _shade(features: int, spec: NetworkSpec) -> str:
    """Return a blue that is the darker the more features there are."""
    most = spec.features(len(spec.pool_kernels))
    share = 0.15 + 0.85 * features / most
    return f"#{round(244 - 92 * share):02x}{round(249 - 56 * share):02x}ff"


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))
