"""Names of a U-Net's tensors in the state dicts of nnU-Net v1 and v2, and here (docs:
reference/state-dicts).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import torch

from nnunet_core.errors import UsageError

State = dict[str, torch.Tensor]

_WRAPPERS = r"^(?:module\.|_orig_mod\.)+"
_ALIAS = re.compile(r"^decoder\.encoder\.|\.all_modules\.")
_FROM_V1 = (
    (r"^tu\.(\d+)\.(weight|bias)$", r"upsampling.\1.\2"),
    (r"^seg_outputs\.(\d+)\.(weight|bias)$", r"heads.\1.\2"),
    (
        r"^conv_blocks_context\.(\d+)\.(?:0\.)?blocks\.(\d+)\.(?:(conv)|inst(norm))\.(\w+)$",
        r"encoder.\1.\2.\3\4.\5",
    ),
    (
        r"^conv_blocks_localization\.(\d+)\.0\.blocks\.(\d+)\.(?:(conv)|inst(norm))\.(\w+)$",
        r"decoder.\1.\2.\3\4.\5",
    ),
)
_FROM_V2 = (
    (r"^decoder\.transpconvs\.(\d+)\.(weight|bias)$", r"upsampling.\1.\2"),
    (r"^decoder\.seg_layers\.(\d+)\.(weight|bias)$", r"heads.\1.\2"),
    (r"^encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)\.(\w+)$", r"encoder.\1.\2.\3.\4"),
    (r"^decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(\w+)$", r"decoder.\1.\2.\3.\4"),
    (r"^encoder\.stem\.convs\.0\.(conv|norm)\.(\w+)$", r"encoder.0.0.\1.\2"),
    (r"^(encoder\.\d+\.\d+)\.conv1\.(conv|norm)\.(\w+)$", r"\1.first.\2.\3"),
    (r"^(encoder\.\d+\.\d+)\.conv2\.conv\.(\w+)$", r"\1.second.\2"),
    (r"^(encoder\.\d+\.\d+)\.conv2\.norm\.(\w+)$", r"\1.norm.\2"),
    (r"^(encoder\.\d+\.\d+)\.skip\.[01]\.conv\.(\w+)$", r"\1.skip.\2"),
    (r"^(encoder\.\d+\.\d+)\.skip\.[01]\.norm\.(\w+)$", r"\1.skip_norm.\2"),
)
_OWN = re.compile(
    r"(encoder|decoder)\.(\d+)\.(\d+)\.(conv|norm)\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)


#: Layers of a residual block: here, and in v2, where {} is 1 after a mean of voxels and else 0.
_OF_BLOCKS = {
    "first.conv": "conv1.conv",
    "first.norm": "conv1.norm",
    "second": "conv2.conv",
    "norm": "conv2.norm",
    "skip": "skip.{}.conv",
    "skip_norm": "skip.{}.norm",
}
_OWN_RESIDUAL = re.compile(rf"encoder\.(\d+)\.(\d+)\.({'|'.join(_OF_BLOCKS)}|conv)\.(\w+)")
_THEIR_RESIDUAL = re.compile(r"^encoder\.stages\.(\d+)\.blocks\.(\d+)\.")


def from_v1(state: Mapping[str, torch.Tensor]) -> State:
    """Return the tensors of a v1 state dict (`Generic_UNet`) under the names of `network.UNet`.

    Raises:
        UsageError: A name that v1's plain U-Net does not have.
    """
    plain = without_wrappers(state)
    joints = [
        int(match[1])
        for name in plain
        if (match := re.match(r"conv_blocks_localization\.\d+\.0\.blocks\.(\d+)", name))
    ]
    last = (
        max(joints, default=-1) + 1
    )  # v1 keeps the last block of the bottleneck and of decoder stages apart
    joined = {
        re.sub(r"^(conv_blocks_\w+\.\d+)\.1\.blocks\.0\.", rf"\1.0.blocks.{last}.", n): t
        for n, t in plain.items()
    }
    return {_renamed(name, _FROM_V1, "v1"): tensor for name, tensor in joined.items()}


def from_v2(state: Mapping[str, torch.Tensor]) -> State:
    """Return the tensors of a v2 state dict under the names of `network.UNet`, each once.

    Raises:
        UsageError: A name that neither its `PlainConvUNet` nor its `ResidualEncoderUNet` has.
    """

    def counted(block: re.Match[str]) -> str:  # here, the stem is the first block
        return f"encoder.{block[1]}.{int(block[2]) + (block[1] == '0')}."

    plain = without_wrappers(state)
    return {
        _renamed(_THEIR_RESIDUAL.sub(counted, name), _FROM_V2, "v2"): tensor
        for name, tensor in plain.items()
        if not _ALIAS.search(name)
    }


def without_wrappers(state: Mapping[str, torch.Tensor]) -> State:
    """Return a state dict without the prefixes that wrappers add to names (`module.`,
    `_orig_mod.`).
    """
    return {re.sub(_WRAPPERS, "", name): tensor for name, tensor in state.items()}


def to_v1(state: Mapping[str, torch.Tensor]) -> State:
    """Return the state dict of a `network.UNet` under v1's names.

    Raises:
        UsageError: Transposed convolutions or heads have a bias other than 0; v1's have none.
    """
    depth = max(int(match[2]) for match in _own(state) if match[1] == "encoder")
    last = max(int(match[3]) for match in _own(state))

    def name_of(match: re.Match[str]) -> str:
        part, stage, block, layer, kind = match.groups()
        if part == "encoder" and int(stage) < depth:
            place = f"blocks.{block}"
        else:
            place = f"0.blocks.{block}" if int(block) < last else "1.blocks.0"
        side = "context" if part == "encoder" else "localization"
        return (
            f"conv_blocks_{side}.{stage}.{place}.{'conv' if layer == 'conv' else 'instnorm'}.{kind}"
        )

    renamed = _to(state, name_of, {"upsampling": "tu", "heads": "seg_outputs"})
    extra = [name for name in renamed if re.match(r"(tu|seg_outputs)\.\d+\.bias$", name)]
    if used := [name for name in extra if renamed[name].any()]:
        raise UsageError(
            "This network has no equal in nnU-Net v1, whose transposed convolutions and heads have "
            f"no bias: {', '.join(used)} are not 0. Train with network.layout=v1 for models that "
            "v1 can load."
        )
    return {name: tensor for name, tensor in renamed.items() if name not in extra}


def to_v2(state: Mapping[str, torch.Tensor]) -> State:
    """Return the state dict of a `network.UNet` under v2's names, with the second and third names
    that v2 has for tensors.

    Biases that the network does not have are 0. With kernels that differ between resolutions, only
    networks of the layout `v2` have the shapes of v2's.

    Raises:
        UsageError: A tensor of another network, or of a residual encoder of another layout.
    """

    def name_of(match: re.Match[str]) -> str:
        part, stage, block, layer, kind = match.groups()
        return (
            f"{part}.stages.{stage}.{'0.' if part == 'encoder' else ''}convs.{block}.{layer}.{kind}"
        )

    blocks = _residual_names(state)
    others = {name: tensor for name, tensor in state.items() if name not in blocks}
    ends = {"upsampling": "decoder.transpconvs", "heads": "decoder.seg_layers"}
    renamed = {theirs: state[name] for name, theirs in blocks.items()}
    renamed.update(_to(others, name_of, ends))
    for name, tensor in list(renamed.items()):
        if match := re.fullmatch(r"decoder\.(transpconvs|seg_layers)\.\d+\.weight", name):
            outputs = tensor.shape[1 if match[1] == "transpconvs" else 0]
            renamed.setdefault(name.replace("weight", "bias"), tensor.new_zeros(outputs))
    return {alias: tensor for name, tensor in renamed.items() for alias in _v2_names(name)}


def _residual_names(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return {name here: name in v2} of the tensors of a residual encoder; of another one, none."""
    if not any(".second." in name for name in state):
        return {}
    if "encoder.0.0.conv.bias" not in state:
        raise UsageError(
            "This network has no equal in nnU-Net v2, whose residual encoders take means where "
            "the resolution changes. Train with network.layout=v2 for models that v2 can load."
        )
    ups = sum(bool(re.fullmatch(r"upsampling\.\d+\.weight", name)) for name in state)
    names = {}
    for name in state:
        if match := _OWN_RESIDUAL.fullmatch(name):
            stage, block, layer, kind = match.groups()
            if (stage, block) == ("0", "0"):
                names[name] = f"encoder.stem.convs.0.{layer}.{kind}"
                continue
            up = state.get(f"upsampling.{ups - int(stage)}.weight")
            pooled = up is not None and any(size > 1 for size in up.shape[2:])
            place = f"encoder.stages.{stage}.blocks.{int(block) - (stage == '0')}"
            names[name] = f"{place}.{_OF_BLOCKS[layer].format(int(pooled))}.{kind}"
    return names


def _v2_names(name: str) -> Iterator[str]:
    """Yield every name that v2 has for a tensor: blocks list their layers twice, and the decoder
    holds the encoder.
    """
    for own in dict.fromkeys(
        (name, name.replace(".conv.", ".all_modules.0.").replace(".norm.", ".all_modules.1."))
    ):
        yield own
        if own.startswith("encoder."):
            yield f"decoder.{own}"


def _own(state: Mapping[str, torch.Tensor]) -> list[re.Match[str]]:
    return [match for name in state if (match := _OWN.fullmatch(name))]


def _to(
    state: Mapping[str, torch.Tensor],
    name_of: Callable[[re.Match[str]], str],
    others: Mapping[str, str],
) -> State:
    renamed = {}
    for name, tensor in state.items():
        match = _OWN.fullmatch(name)
        part, _, rest = name.partition(".")
        if match is None and part not in others:
            raise UsageError(
                f"'{name}' is no tensor of a U-Net that nnU-Net v1 or v2 has; only those have "
                "names there."
            )
        renamed[f"{others[part]}.{rest}" if match is None else name_of(match)] = tensor
    return renamed


def _renamed(name: str, rules: tuple[tuple[str, str], ...], version: str) -> str:
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    raise UsageError(
        f"'{name}' is no tensor of a U-Net of nnU-Net {version}. Taken over are plain U-Nets, and "
        "residual encoders of v2; no other networks."
    )
