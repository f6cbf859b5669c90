"""Each check of image formats finds the format that breaks it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from kit import assert_fails, row_of

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry, Image
from nnunet_core.errors import ImageError
from nnunet_core.testing import checks_of
from nnunet_core.testing.doors import rows_of
from nnunet_core.testing.references import Finder


class NoDot(SimpleItkFormat):
    def __init__(self, endings: tuple[str, ...] = ("nii",)) -> None:
        super().__init__(endings)


class Rounded(SimpleItkFormat):
    def write(self, path, array, geometry):
        super().write(path, np.minimum(array, 255).astype(np.uint8), geometry)


class NoChannel(SimpleItkFormat):
    def read(self, path):
        image = super().read(path)
        return replace(image, array=image.array[0])


class NoDirection(SimpleItkFormat):
    def write(self, path, array, geometry):
        plain = Geometry(geometry.shape, geometry.spacing, geometry.origin)
        super().write(path, array, plain)


class SpacingReversed(SimpleItkFormat):
    def read(self, path):
        image = super().read(path)
        geometry = replace(image.geometry, spacing=image.geometry.spacing[::-1])
        return Image(image.array, geometry)


class HeaderReversed(SimpleItkFormat):
    def header(self, path):
        found = super().header(path)
        return replace(found, shape=found.shape[::-1])


class Trusting(SimpleItkFormat):
    def read(self, path):
        try:
            return super().read(path)
        except ImageError as error:
            raise KeyError("voxels") from error


class Inventing(SimpleItkFormat):
    def read(self, path):
        try:
            return super().read(path)
        except ImageError:
            return Image(np.zeros((1, 1, 1, 1)), Geometry((1, 1, 1)))


class Scaling(SimpleItkFormat):
    def write(self, path, array, geometry):
        super().write(path, array, geometry)
        array *= 2


class LeavingCopies(SimpleItkFormat):
    def write(self, path, array, geometry):
        super().write(path, array, geometry)
        shutil.copyfile(path, path.with_name(path.name + ".tmp"))


class Emptying(SimpleItkFormat):
    def write(self, path, array, geometry):
        path.write_bytes(b"")
        super().write(path, array, geometry)


class AnyShape(SimpleItkFormat):
    def write(self, path, array, geometry):
        super().write(path, array, replace(geometry, shape=array.shape))


WRONG = [
    (NoDot, "format_knows_its_endings", "must be a dot"),
    (Rounded, "format_round_trip_keeps_voxels", "other voxels are read than the uint16"),
    (NoChannel, "format_round_trip_keeps_voxels", "written was one channel"),
    (NoDirection, "format_round_trip_keeps_geometry_in_8_orientations", "direction"),
    (SpacingReversed, "format_round_trip_keeps_geometry_in_8_orientations", "spacing"),
    (HeaderReversed, "format_header_agrees_with_the_image", "the header says"),
    (Trusting, "format_refuses_damaged_files", "raises KeyError"),
    (Inventing, "format_refuses_damaged_files", "raises nothing"),
    (Scaling, "format_writes_whole_files_or_none", "changes the array"),
    (LeavingCopies, "format_writes_whole_files_or_none", "behind"),
    (Emptying, "format_writes_whole_files_or_none", "changes what was there"),
    (AnyShape, "format_writes_whole_files_or_none", "another shape than its geometry"),
]


@pytest.mark.parametrize(("image_format", "check", "message"), WRONG)
def test_a_wrong_format_fails(image_format, check, message):
    assert_fails(image_format, check, message, "image_format")


def test_every_check_of_formats_has_a_wrong_format():
    own = {c.name for c in checks_of("image_format") if c.name.startswith("format_")}
    assert own == {check for _, check, _ in WRONG}


class Forgetting(SimpleItkFormat):
    def __init__(self, endings: tuple[str, ...] = (".nii",)) -> None:
        super().__init__((".nii.gz",))


def test_endings_that_are_registered_are_those_of_the_format():
    subject = Finder().subject(Forgetting, "image_format", {"endings": [".nii"]})
    (row,) = rows_of([subject], ["format_knows_its_endings"])
    assert "registers the endings" in row.message


def test_a_format_without_orientation_is_skipped_with_a_reason():
    row = row_of("tiff", "format_round_trip_keeps_geometry_in_8_orientations")
    assert (row.outcome, row.message.partition(":")[0]) == (
        "skipped",
        "Its files hold no place in space",
    )
