"""Each check of preprocessors finds the preprocessor that breaks it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from kit import assert_fails

from nnunet_builtin.preprocessing.preprocessor import DefaultPreprocessor
from nnunet_core.testing import checks_of

_count = itertools.count()


class Doubles(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        done = super().prepare(case, configuration, foreground)
        return replace(done, images=done.images.astype(np.float64))


class WrongShape(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        done = super().prepare(case, configuration, foreground)
        return replace(done, label=done.label[..., :-1])


class NewValues(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        done = super().prepare(case, configuration, foreground)
        return replace(done, label=np.where(done.label == 2, 9, done.label).astype(np.int8))


class Shifted(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        done = super().prepare(case, configuration, foreground)
        moved = {v: (p + 3) % np.array(done.label.shape) for v, p in done.class_locations.items()}
        return replace(done, class_locations=moved)


class Forgetful(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        return super().prepare(case, configuration, foreground[:1])


class InPlace(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        case.images[:] -= case.images.mean()
        return super().prepare(case, configuration, foreground)


class View(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        done = super().prepare(case, configuration, foreground)
        if done.images.shape == case.images.shape:
            done = replace(done, images=case.images)
        return done


class Noisy(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        done = super().prepare(case, configuration, foreground)
        return replace(done, images=done.images + np.float32(next(_count)))


class OtherGeometry(DefaultPreprocessor):
    def prepare(self, case, configuration, foreground=()):
        done = super().prepare(case, configuration, foreground)
        original = replace(done.geometry.original, origin=(0.0, 0.0, 0.0), spacing=(1.0, 1.0, 1.0))
        return replace(done, geometry=replace(done.geometry, original=original))


class NotRestored(DefaultPreprocessor):
    def restore(self, probabilities, geometry):
        return probabilities.astype(np.float32)


class Mirrored(DefaultPreprocessor):
    def restore(self, probabilities, geometry):
        return super().restore(probabilities, geometry)[..., ::-1]


class OtherSlabs(DefaultPreprocessor):
    def restore_labels(self, slabs, geometry, labels):
        return np.zeros(geometry.original.shape, np.uint8)


class HalfSlabs(DefaultPreprocessor):
    def restore_slabs(self, slabs, geometry):
        for start, part in super().restore_slabs(slabs, geometry):
            yield start, part / 2


class UncutLabels(DefaultPreprocessor):
    def prepare_label(self, label, geometry):
        return np.flip(super().prepare_label(label, geometry)).copy()


WRONG = [
    (Doubles, "preprocessor_prepares_what_a_network_reads", "float64"),
    (WrongShape, "preprocessor_prepares_what_a_network_reads", "the label is int8"),
    (NewValues, "preprocessor_prepares_what_a_network_reads", "new values [9]"),
    (Shifted, "preprocessor_locates_foreground", "has another label"),
    (Forgetful, "preprocessor_locates_foreground", "0 locations of class 2"),
    (InPlace, "preprocessor_leaves_its_input_untouched", "other ones than before"),
    (View, "preprocessor_leaves_its_input_untouched", "other ones than before"),
    (Noisy, "preprocessor_is_deterministic", "other arrays the second time"),
    (OtherGeometry, "preprocessor_restores_shape_and_geometry", "not that of the case"),
    (NotRestored, "preprocessor_restores_shape_and_geometry", "it must be float32"),
    (Mirrored, "preprocessor_keeps_orientation", "mirrored along axes (2,)"),
    (OtherSlabs, "preprocessor_slabs_agree_with_the_whole", "restore_labels"),
    (HalfSlabs, "preprocessor_slabs_agree_with_the_whole", "restore_slabs"),
    (UncutLabels, "preprocessor_prepares_labels_as_those_of_cases", "Dice"),
]


@pytest.mark.parametrize(("preprocessor", "check", "message"), WRONG)
def test_a_wrong_preprocessor_fails(preprocessor, check, message):
    assert_fails(preprocessor, check, message, "preprocessor")


def test_every_check_of_preprocessors_has_a_wrong_one():
    own = {c.name for c in checks_of("preprocessor") if c.name.startswith("preprocessor_")}
    assert own == {check for _, check, _ in WRONG}
