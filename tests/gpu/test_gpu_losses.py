"""Values and gradients of every loss on a card are those of a CPU in float64."""

import pytest
import torch
from small_on_card import relative_error

from nnunet_builtin.losses.dice_ce import region_maps
from nnunet_builtin.plugin import nnunet_losses
from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Resolved
from nnunet_core.registry.settings import build

pytestmark = pytest.mark.gpu

LOSSES = {each.name: Resolved("loss", f"builtin/{each.name}", each) for each in nnunet_losses()}
IGNORED = 9
REGIONS = ((1, 2), (2,), (0,))


def kinds():
    """Return every loss with the kinds of labels that it is for."""
    found = []
    for name, record in LOSSES.items():
        for regions in (False, True):
            try:
                build(record).build(batch_dice=False, regions=regions)
            except UsageError:
                continue
            kind = "regions" if regions else "classes"
            found.append(pytest.param(name, regions, id=f"{name}-{kind}"))
    return found


def drawn(regions, ignore_label):
    """Return logits in float64, and the label as a training has it or maps of regions."""
    generator = torch.Generator().manual_seed(0)
    size = (6, 10, 8)
    logits = 2 * torch.randn(3, 3, *size, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (3, 1, *size), generator=generator).to(torch.int16)
    if ignore_label is not None:
        label[torch.rand(label.shape, generator=generator) < 0.2] = ignore_label
    return logits, region_maps(label, REGIONS, ignore_label) if regions else label


def value_and_gradient(loss, logits, target):
    logits = logits.requires_grad_()
    value = loss(logits, target)
    value.backward()
    return value, logits.grad


@pytest.mark.parametrize(("name", "regions"), kinds())
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("ignore_label", [None, IGNORED])
def test_values_and_gradients_are_those_of_a_cpu(device, name, regions, batch_dice, ignore_label):
    builder, ignoring = build(LOSSES[name]), {"ignore_label": ignore_label}
    loss = builder.build(batch_dice=batch_dice, regions=regions, **ignoring)
    logits, target = drawn(regions, ignore_label)
    expected, expected_gradient = value_and_gradient(loss, logits.clone(), target)
    on_device = logits.float().to(device)
    value, gradient = value_and_gradient(loss, on_device, target.to(device))
    assert value.device == gradient.device == device
    assert relative_error(value, expected) < 1e-5
    assert relative_error(gradient, expected_gradient) < 1e-4


@pytest.mark.parametrize(("name", "regions"), kinds())
def test_ignored_voxels_have_no_gradient(device, name, regions):
    loss = build(LOSSES[name]).build(batch_dice=True, ignore_label=IGNORED, regions=regions)
    logits, target = drawn(regions, IGNORED)
    _, gradient = value_and_gradient(loss, logits.float().to(device), target.to(device))
    ignored = (target[:, -1:] == (1 if regions else IGNORED)).expand(gradient.shape)
    assert not gradient.cpu()[ignored].any()
    assert gradient.cpu()[~ignored].any()
