"""The v2.1 planner: from a fingerprint to plans, step by step."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_builtin.planning import normalizations
from nnunet_builtin.planning.assembly import cascade_of, configuration_of
from nnunet_builtin.planning.fingerprinting import Fingerprinting
from nnunet_builtin.planning.patches import Candidate, Grid, rounded_up
from nnunet_builtin.planning.reasons import Reasons
from nnunet_builtin.planning.steps import PlanningSteps
from nnunet_builtin.planning.target import Stage, Target
from nnunet_core.contracts.network import NetworkBuilder, divisor_of
from nnunet_core.data.dataset import Dataset
from nnunet_core.data.fingerprint import Fingerprint
from nnunet_core.data.labels import Labels
from nnunet_core.data.plans import Configuration, Plans
from nnunet_core.errors import UsageError, nearest

CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
_DECIMALS = 6  # of wished voxels: noise of floats must not add one


@dataclass
class PlannerV21(Fingerprinting, PlanningSteps):
    """Plans configurations as nnU-Net v2.1 (spec: planning).

    Args:
        gpu_memory_gb: GPU memory that 3D patches are sized for; 2D plans do not depend on it. 8 and
            16 hold v1's own constants, which are not quite proportional; every other value is.
        configurations: Which of 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres to plan; None plans
            all that apply.
        max_batch_size: Upper limit of every batch size.
        base_features: Features at full resolution.
        convs_per_stage: Convolutions per resolution, in 3D.
        target_spacing: mm (z, y, x) of 3D networks; None derives it from the dataset.
        low_resolution: Plan 3d_lowres and the cascade where the patch covers little of a case.
        low_resolution_coverage: Share of the median case below which it is little.
        shrink: Which axis of a 3D patch gets shorter until the network fits: the longest against
            the median case (`relative`), in mm, or in voxels.
        all_conv3: Kernels of 3 on every axis, at every resolution.
        schemes: {channel name: normalisation}; z-score for other names.
        preprocessor: Of 3D configurations.
    """

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder) -> Plans:
        """Return the plans (contracts.Planner).

        Raises:
            UsageError: `configurations` names one that this planner does not know, or the network's
                smallest patch does not fit the memory.
        """
        wanted = self._wanted()
        planned: dict[str, Configuration] = {}
        skipped: dict[str, str] = {}
        if "2d" in wanted:
            planned["2d"] = self._plan_2d(dataset, fingerprint, network)
        if self.configurations is None and (why := self.why_only_slices(fingerprint)):
            skipped = dict.fromkeys(CONFIGURATIONS[1:], why)
        elif any(name != "2d" for name in wanted):
            volumes, skipped = self._plan_3d(dataset, fingerprint, network)
            planned.update(volumes)
        kept = {
            name: planned[name] for name in CONFIGURATIONS if name in planned and name in wanted
        }
        return Plans(
            dataset=dataset.name,
            planner=f"{type(self).__module__}:{type(self).__qualname__}",
            fingerprint_digest=fingerprint.digest,
            configurations=self.choose_configurations(kept),
            skipped={name: why for name, why in skipped.items() if name in wanted},
            notes=tuple(normalizations.unknown_names(fingerprint, self.schemes)),
        )

    def may_plan(self) -> tuple[str, ...] | None:
        """Return the configurations that there may be (abilities.NamesConfigurations); None of a
        subclass that plans otherwise, or adds some.

        Raises:
            UsageError: As of `plan`.
        """
        cls = type(self)
        own = (cls.plan, cls.choose_configurations)
        known = own == (PlannerV21.plan, PlannerV21.choose_configurations)
        return self._wanted() if known else None

    def explain(
        self,
        labels: Labels,
        fingerprint: Fingerprint,
        configuration: Configuration,
        network: NetworkBuilder,
    ) -> Mapping[str, str]:
        """Return {what was decided: why} of a configuration (abilities.ExplainsPlans)."""
        target = self._target(labels, fingerprint, configuration.dimensions)
        grid = self.make_grid(target, np.array(configuration.spacing))
        budget = self.patch_budget(target.dimensions)
        propose = functools.partial(self._candidate, target, grid, network)
        chosen, _ = self.choose_patch(grid, propose, budget)
        return Reasons(
            planner=self,
            fingerprint=fingerprint,
            configuration=configuration,
            target=target,
            grid=grid,
            budget=budget,
            first=propose(self.first_patch(grid).tolist()),
            chosen=chosen,
            batch_size=self.choose_batch_size(grid, chosen, budget)[0],
        ).all()

    def _wanted(self) -> tuple[str, ...]:
        wanted = self.configurations or CONFIGURATIONS
        for name in wanted:
            if name not in CONFIGURATIONS:
                raise UsageError(
                    f"planner.configurations names '{name}'.{nearest(name, CONFIGURATIONS)} "
                    f"This planner plans {', '.join(CONFIGURATIONS)}."
                )
        return wanted

    def _plan_2d(
        self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder
    ) -> Configuration:
        target = self._target(dataset.labels, fingerprint, 2)
        stage = self._stage(target, network, target.spacing)
        return self._configuration(fingerprint, target, stage, batch_dice=True)

    def _plan_3d(
        self, dataset: Dataset, fingerprint: Fingerprint, network: NetworkBuilder
    ) -> tuple[dict[str, Configuration], dict[str, str]]:
        """Return the 3D configurations, and why others are left out."""
        target = self._target(dataset.labels, fingerprint, 3)
        stage_at = functools.partial(self._stage, target, network)
        full = stage_at(target.spacing)
        low, why = self.choose_low_resolution(target, full, stage_at)
        fullres = self._configuration(fingerprint, target, full, batch_dice=low is not None)
        if low is None:
            skipped = {"3d_lowres": why, "3d_cascade_fullres": "there is no 3d_lowres"}
            return {"3d_fullres": fullres}, skipped
        planned = {
            "3d_lowres": self._configuration(fingerprint, target, low, batch_dice=False),
            "3d_fullres": fullres,
            "3d_cascade_fullres": cascade_of(fullres, len(dataset.labels.foreground)),
        }
        return planned, {}

    def _target(self, labels: Labels, fingerprint: Fingerprint, dimensions: int) -> Target:
        spacing, note = self.choose_spacing(fingerprint, dimensions)
        return Target(
            dimensions=dimensions,
            spacing=spacing,
            median=self.choose_median_shape(fingerprint, spacing),
            transpose=self.choose_axis_order(spacing),
            cases=len(fingerprint.cases),
            inputs=len(fingerprint.channels),
            labels=labels,
            note=note,
        )

    def _stage(self, target: Target, network: NetworkBuilder, spacing: np.ndarray) -> Stage:
        """Plan one network at a spacing in mm, axes as in the file (spec: planning, sections 6 and
        7).
        """
        current = spacing[list(target.transpose)]
        grid, budget = self.make_grid(target, current), self.patch_budget(target.dimensions)
        propose = functools.partial(self._candidate, target, grid, network)
        found, limit = self.choose_patch(grid, propose, budget)
        batch_size, batch_limit = self.choose_batch_size(grid, found, budget)
        return Stage(
            spacing=current,
            shape=target.shape_at(current),
            found=found,
            batch_size=batch_size,
            notes=(limit, batch_limit),
        )

    def _candidate(
        self, target: Target, grid: Grid, network: NetworkBuilder, patch: Sequence[int]
    ) -> Candidate:
        """Return the patch rounded up to what the network takes, and the network's memory for
        it.
        """
        wished = np.round(np.array(patch, float), _DECIMALS).tolist()
        topology = self.choose_topology(grid.spacing, wished)
        spec = self.counted_spec(target, topology, whole=wished == grid.shape.tolist())
        divisor = divisor_of(network, spec)
        size = rounded_up(wished, divisor)
        return Candidate(size, divisor, topology, network.memory(spec, size))

    def _configuration(
        self, fingerprint: Fingerprint, target: Target, stage: Stage, *, batch_dice: bool
    ) -> Configuration:
        return configuration_of(
            target,
            stage,
            self.network_spec(target, stage.found.topology),
            normalization=self.choose_normalization(fingerprint),
            preprocessor=self.choose_preprocessor(target.dimensions),
            max_batch_size=self.max_batch_size,
            batch_dice=batch_dice,
        )
