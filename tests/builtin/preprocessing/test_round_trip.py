"""Every real case: prepared for the configurations of its dataset's plans and restored to the grid
it came from.
"""

import numpy as np
import pytest

from nnunet_core.registry.discovery import Registry
from nnunet_core.registry.settings import build
from nnunet_core.runtime.reporting import Silence
from nnunet_core.runtime.workers import Workers
from nnunet_core.stages.dataset import open_dataset
from nnunet_core.stages.method import choose
from nnunet_core.stages.plan import make_plans
from nnunet_core.store.workspace import Workspace

DATASETS = ["Task004_Hippocampus", "Task104_HippocampusThick", "Dataset120_Nuclei"]


def restored_label(preprocessor, prepared, classes):
    one_hot = np.stack([prepared.label == value for value in range(classes)]).astype(np.float32)
    return preprocessor.restore(one_hot, prepared.geometry).argmax(axis=0)


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("planner", ["v21", "v21_no_resampling", "v21_fixed_spacing"])
@pytest.mark.parametrize("name", DATASETS)
def test_every_case_comes_back_on_its_own_grid(data, tmp_path, name, planner):
    registry, space = Registry.discover(), Workspace(tmp_path, tmp_path, tmp_path)
    dataset = open_dataset(str(data / name), data, registry)
    method = choose(registry, "default", {"planner": planner}, {})
    with Workers() as workers:
        plans, _ = make_plans(dataset, method, space, workers, Silence())
    flat = name == "Dataset120_Nuclei"
    for configuration in [plans.configurations["2d"]] if flat else plans.configurations.values():
        preprocessor = build(method.preprocessor(configuration))
        for files in dataset.training:
            case = dataset.load(files)
            prepared = preprocessor.prepare(case, configuration, dataset.labels.foreground)
            label = restored_label(preprocessor, prepared, dataset.labels.outputs)
            assert label.shape == case.geometry.shape
            truth, found = case.label > 0, label > 0
            overlap = 2 * (truth & found).sum() / max(1, truth.sum() + found.sum())
            same_grid = prepared.geometry.prepared_shape == tuple(
                prepared.geometry.cropped_shape[axis] for axis in configuration.transpose_forward
            )
            assert overlap == 1 if same_grid else overlap > 0.8, files.name
