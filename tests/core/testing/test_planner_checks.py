"""Each check of planners finds the planner that breaks it."""

import itertools
import random
from dataclasses import dataclass

import pytest
from kit import assert_fails, row_of

from nnunet_builtin.networks.plain_unet import PlainUNet
from nnunet_builtin.planning.planner import PlannerV21
from nnunet_core.testing import checks_of

_count = itertools.count()


def changed(plans, **changes):
    """Return plans with fields of each configuration changed, by functions of it or to values."""
    configurations = {
        name: found.model_copy(
            update={key: new(found) if callable(new) else new for key, new in changes.items()}
        )
        for name, found in plans.configurations.items()
    }
    return plans.model_copy(update={"configurations": configurations})


@dataclass
class NoConfiguration(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        plans = super().plan(dataset, fingerprint, network)
        return plans.model_copy(update={"configurations": {}})


@dataclass
class OneNormalization(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        plans = super().plan(dataset, fingerprint, network)
        return changed(plans, normalization=lambda found: found.normalization[:1])


@dataclass
class ClassesOfRegions(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        plans = super().plan(dataset, fingerprint, network)
        three = {"output_channels": 3}
        return changed(plans, network=lambda found: found.network.model_copy(update=three))


@dataclass
class UnknownPreprocessor(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        return changed(super().plan(dataset, fingerprint, network), preprocessor="mine")


@dataclass
class Counting(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        plans = super().plan(dataset, fingerprint, network)
        return plans.model_copy(update={"notes": (f"plan {next(_count)}",)})


@dataclass
class Drawing(PlannerV21):
    def fingerprint(self, dataset, workers, progress=None):
        found = super().fingerprint(dataset, workers, progress)
        cases = list(found.cases)
        cases[0] = cases[0].model_copy(update={"size_reduction": random.random()})
        return found.model_copy(update={"cases": tuple(cases)})


@dataclass
class BudgetInFingerprint(PlannerV21):
    def fingerprint(self, dataset, workers, progress=None):
        found = super().fingerprint(dataset, workers, progress)
        return found.model_copy(update={"channels": (f"{self.gpu_memory_gb}",)})


@dataclass
class OddPatch(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        plans = super().plan(dataset, fingerprint, network)
        return changed(plans, patch_size=lambda found: tuple(n + 1 for n in found.patch_size))


@dataclass
class Cubes(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        plans = super().plan(dataset, fingerprint, network)
        return changed(plans, patch_size=lambda found: (64,) * found.dimensions)


class Sevens(PlainUNet):
    def divisor(self, spec):
        return (7,) * spec.dimensions


@dataclass
class LessIsMore(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        other = PlannerV21(gpu_memory_gb=60 - self.gpu_memory_gb)
        return other.plan(dataset, fingerprint, network)


@dataclass
class Littering(PlannerV21):
    def plan(self, dataset, fingerprint, network):
        (dataset.folder / "plans.txt").write_text("here")
        return super().plan(dataset, fingerprint, network)


WRONG = [
    (NoConfiguration, "planner_plans_every_dataset", "no configuration"),
    (OneNormalization, "planner_plans_every_dataset", "normalisations"),
    (ClassesOfRegions, "planner_plans_every_dataset", "outputs; the labels need 2"),
    (UnknownPreprocessor, "planner_plans_every_dataset", "no preprocessor named 'mine'"),
    (Counting, "planner_is_deterministic", "another plans the second time"),
    (Drawing, "planner_is_deterministic", "another fingerprint the second time"),
    (BudgetInFingerprint, "planner_fingerprint_depends_on_no_setting", "gpu_memory_gb"),
    (OddPatch, "planner_patch_fits_the_network", "is no multiple of"),
    (LessIsMore, "planner_smaller_budget_never_has_a_larger_patch", "has more voxels"),
    (Littering, "planner_changes_no_file", "changed"),
]


@pytest.mark.parametrize(("planner", "check", "message"), WRONG)
def test_a_wrong_planner_fails(planner, check, message, request):
    if planner is Littering:  # the toys are everybody's
        from nnunet_core.testing.toys import shared_toys

        litter = shared_toys().folder("3d") / "plans.txt"
        request.addfinalizer(litter.unlink)
    assert_fails(planner, check, message, "planner")


def test_every_check_of_planners_has_a_wrong_planner():
    own = {check.name for check in checks_of("planner") if check.name.startswith("planner_")}
    assert own == {check for _, check, _ in WRONG}


def test_a_planner_is_checked_with_the_network_of_its_variant(tmp_plugin):
    plugin = (
        "from nnunet_core import Component, Variant, hookimpl\n"
        "@hookimpl\n"
        "def nnunet_planners():\n"
        f"    return [Component('cubes', '{__name__}:Cubes')]\n"
        "@hookimpl\n"
        "def nnunet_networks():\n"
        f"    return [Component('sevens', '{__name__}:Sevens')]\n"
        "@hookimpl\n"
        "def nnunet_variants():\n"
        "    return [Variant('v', 'x', planner='tmpsevens/cubes', network='tmpsevens/sevens')]\n"
    )
    registry = tmp_plugin("tmpsevens.plugin", {"tmpsevens/plugin.py": plugin})
    check = "planner_patch_fits_the_network"
    assert_fails("cubes", check, "(7, 7), the divisor of Sevens", registry=registry)
    plain = {"network": "builtin/plain_unet"}
    assert "Sevens" not in row_of("cubes", check, registry=registry, partners=plain).message
