"""Plans that a person edits are checked against the network that they are for."""

import json

import pytest
import small_training as small

from nnunet_core.errors import UsageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.method import choose
from nnunet_core.stages.plan import make_plans
from nnunet_core.stages.run import Request, opened
from nnunet_core.store.workspace import Workspace


def test_a_patch_size_that_the_network_cannot_take_is_refused_with_the_nearest_ones(tiny):
    registry, workspace = Registry.discover(), Workspace.find(tiny.parents[1])
    dataset = open_dataset(str(tiny), workspace.raw, registry, workspace.preprocessed)
    method = choose(registry, "default")
    with Workers(1, None, Silence()) as workers:
        plans, path = make_plans(dataset, method, workspace, workers, Silence())
        assert plans.configurations["3d_fullres"].patch_size == (16, 20, 20)

        def edited(patch):
            document = json.loads(path.read_text())
            document["configurations"]["3d_fullres"]["patch_size"] = patch
            path.write_text(json.dumps(document))
            return make_plans(dataset, method, workspace, workers, Silence())[0]

        assert edited([16, 24, 16]).configurations["3d_fullres"].patch_size == (16, 24, 16)
        with pytest.raises(UsageError, match=r"3d_fullres.*multiple of 4 along axis 1: 20 or 24"):
            edited([16, 22, 16])
        with pytest.raises(UsageError, match=r"PlainUNet needs a multiple of .* along axis 2: 4\."):
            edited([16, 20, 3])


def test_settings_of_a_variant_that_an_own_choice_makes_void_are_said(tiny):
    registry, workspace = Registry.discover(), Workspace.find(tiny.parents[1])
    told = small.Told()
    other = "nnunet_builtin.training.trainer:TrainerV2"
    request = Request(str(tiny), variant="demo", choices={"trainer": other})
    with opened(request, registry, workspace, told):
        pass
    (warning,) = told.warnings
    assert "command line chooses another trainer" in warning
    assert "does not count: trainer.epochs=10, trainer.iterations_per_epoch=20" in warning
    with opened(Request(str(tiny), variant="demo"), registry, workspace, told):
        pass
    assert len(told.warnings) == 1
