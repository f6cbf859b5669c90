"""The inputs of a cascade: what the previous stage must have done first."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_core.cascade import connect
from nnunet_core.errors import UsageError
from nnunet_core.splits import Split

CASCADE = SimpleNamespace(configuration_name="3d_cascade_fullres", dataset=SimpleNamespace(name="Task001_A"))


def stage(finished):
    return SimpleNamespace(
        configuration_name="3d_lowres",
        validation_file=lambda fold, name: Path(fold) / name,
        is_finished=lambda fold, _: fold in finished,
    )


def test_untrained_folds_are_named_with_the_command_that_trains_them():
    splits = {"0": Split(train=("a",), val=("b",)), "1": Split(train=("b",), val=("a",))}
    with pytest.raises(UsageError, match=r"folds 1 are not trained.*nnunet train Task001_A -c 3d_lowres --folds 1"):
        connect(CASCADE, stage({"0"}), splits)


def test_cases_that_no_fold_validates_are_named():
    splits = {"0": Split(train=("a", "c", "d"), val=("b",)), "1": Split(train=("b",), val=("a",))}
    with pytest.raises(UsageError, match=r"no fold validates c, d\. .*nnunet splits Task001_A"):
        connect(CASCADE, stage({"0", "1"}), splits)
