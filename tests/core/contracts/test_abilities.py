"""Optional abilities: declared, found in one place, and refused where they are misspelt."""

from dataclasses import dataclass

import pytest

from nnunet_builtin.planning.planner import PlannerV21
from nnunet_builtin.training.trainer import TrainerV2
from nnunet_core.contracts.abilities import (
    CONTRACTS,
    ChangesGraph,
    ChangesWithEpochs,
    Mirrors,
    PreparesLabels,
    ability,
    built,
)
from nnunet_core.errors import PluginError
from nnunet_core.registry.components import Component
from nnunet_core.registry.discovery import Registry, Resolved


class Plain:
    def prepare(self, case, configuration, foreground=()): ...

    def restore(self, probabilities, geometry): ...


class Able(Plain):
    def prepare_label(self, label, geometry): ...


class Misspelt(Plain):
    def prepare_labels(self, label, geometry): ...


class Heir(Misspelt):
    """Inherits the slip."""


class Incomplete:
    def prepare(self, case, configuration, foreground=()): ...


@dataclass
class SettingsLikeAbilities:
    """`mirror_axes` is a setting of this augmentation, no misspelt `mirrored_axes`."""

    mirror_axes: tuple[int, ...] = (0,)

    def generator_patch_size(self, configuration): ...

    def augment(self, batch, configuration, seed): ...


class Loss:
    def set_epochs(self, epoch): ...


class Network:
    graph_changes = True


def resolved(kind, name):
    target = f"{__name__}:{name}"
    return Resolved(kind, target, Component(name, target))


def test_an_ability_is_found():
    able = built(resolved("preprocessor", "Able"))
    assert ability(able, PreparesLabels) is able


def test_what_is_not_there_is_not_found():
    assert ability(built(resolved("preprocessor", "Plain")), PreparesLabels) is None


@pytest.mark.parametrize("name", ["Misspelt", "Heir"])
def test_a_misspelt_ability_is_an_error_that_says_what_was_meant(name):
    with pytest.raises(PluginError, match=r"prepare_labels.*mean 'prepare_label'\?"):
        built(resolved("preprocessor", name))


def test_a_component_without_a_method_of_its_contract_is_refused():
    with pytest.raises(PluginError, match=r"lacks restore; a preprocessor has prepare, restore"):
        built(resolved("preprocessor", "Incomplete"))


class DoesWhatItWants:
    built = False

    def __init__(self):
        DoesWhatItWants.built = True

    def prepare(self, case, configuration, foreground=()): ...


def test_a_class_of_another_kind_is_not_constructed():
    with pytest.raises(PluginError, match="lacks restore"):
        built(resolved("preprocessor", "DoesWhatItWants"))
    assert not DoesWhatItWants.built


def test_a_setting_may_be_called_nearly_like_an_ability():
    augmentation = built(resolved("augmentation", "SettingsLikeAbilities"))
    assert ability(augmentation, Mirrors) is None


class Rates(TrainerV2):
    def rates(self, epoch, losses): ...


class Patches(PlannerV21):
    def choose_patches(self, stage): ...


class Own(TrainerV2):
    """A method of one's own beside an overridden one."""

    def rate(self, epoch, losses):
        return self.halved(epoch)

    def halved(self, epoch): ...


class Swapped(Plain):
    def restore(self, probabilities): ...


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [("trainer", "Rates", "rate"), ("planner", "Patches", "choose_patch")],
)
def test_a_misspelt_seam_is_an_error(kind, name, meant):
    with pytest.raises(PluginError, match=rf"mean '{meant}'\?"):
        built(resolved(kind, name))


def test_methods_of_ones_own_are_no_error():
    built(resolved("trainer", "Own"))


def test_a_method_with_other_arguments_is_refused_before_it_is_called():
    with pytest.raises(
        PluginError,
        match=r"restore\(probabilities\); it is called as restore\(probabilities, geometry\)",
    ):
        built(resolved("preprocessor", "Swapped"))


def test_what_a_component_builds_is_checked_too():
    assert ability(Network(), ChangesGraph).graph_changes
    with pytest.raises(PluginError, match=r"Loss has 'set_epochs'.*'set_epoch'"):
        ability(Loss(), ChangesWithEpochs)


@pytest.mark.parametrize("kind", CONTRACTS)
def test_every_built_in_component_keeps_its_contract(kind):
    components = Registry.discover().components(kind)
    assert components
    for component in components:
        if not component.component.requires:
            built(component)
