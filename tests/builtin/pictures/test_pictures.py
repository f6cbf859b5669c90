"""Pictures: whole PNG files of the right proportions that show what they should."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_builtin.pictures import drawing as pictures
from nnunet_builtin.pictures.drawing import contact_sheet, overlay_picture
from nnunet_builtin.training.progress import progress_picture
from nnunet_cli.main import main
from nnunet_core.data.cases import Case
from nnunet_core.data.images import Geometry
from nnunet_core.data.labels import Labels

pytestmark = pytest.mark.pictures

TWO = Labels(names={0: "background", 1: "liver", 2: "tumour"}, foreground=(1, 2))
ORANGE, BLUE = (255, 159, 28), (63, 182, 255)


def _pixels(path: Path) -> np.ndarray:
    with Picture.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def _share(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: int = 40) -> float:
    return float((np.abs(pixels - colour).max(axis=-1) < tolerance).mean())


def _lines(epochs: int) -> list[dict]:
    return [
        {
            "epoch": e,
            "train_loss": 0.2 - e / epochs,
            "validation_loss": None if e == 1 else 0.3 - e / epochs,
            "dice": [0.5, None],
            "mean_dice": e / epochs,
            "mean_dice_average": math.nan if e == 0 else 0.9 * e / epochs,
            "learning_rate": 0.01 * (1 - e / epochs) ** 0.9,
            "seconds": 12.0,
        }
        for e in range(epochs)
    ]


def _ball(
    shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float
) -> np.ndarray:
    points = np.indices(shape)
    distance = np.sqrt(sum((p - c) ** 2 for p, c in zip(points, centre, strict=True)))
    return (distance < radius).astype(np.uint8)


@pytest.mark.parametrize("epochs", [0, 1, 4, 200])
def test_progress_shows_both_losses_and_the_dice(tmp_path: Path, epochs: int) -> None:
    progress_picture(_lines(epochs), tmp_path / "progress.png")
    pixels = _pixels(tmp_path / "progress.png")
    assert pixels.shape == (750, 950, 3)
    for colour in ((31, 119, 180), (214, 39, 40), (44, 160, 44), (148, 103, 189)):
        assert epochs <= 1 or _share(pixels[60:], colour) > 0.0004, colour
    assert [p.name for p in tmp_path.iterdir()] == ["progress.png"]


def test_each_label_is_painted_in_its_colour_and_only_where_maps_are_given(tmp_path: Path) -> None:
    shape = (20, 24, 28)
    image = np.random.default_rng(0).normal(100, 10, shape)
    reference = _ball(shape, (10, 12, 8), 5) + 2 * _ball(shape, (10, 12, 20), 4)
    for name, maps in (
        ("both", (reference, reference)),
        ("one", (reference, None)),
        ("none", (None, None)),
    ):
        overlay_picture(image, *maps, name, tmp_path / f"{name}.png", (1.0, 1.0, 1.0), TWO)
    both, one, none = (_pixels(tmp_path / f"{name}.png") for name in ("both", "one", "none"))
    for colour in (ORANGE, BLUE):
        assert _share(both[:-60], colour) > 0.0005
    assert both.shape[1] > one.shape[1] > none.shape[1]
    assert _share(none[: none.shape[0] // 2], ORANGE) == 0


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((1, 40, 80), (999.0, 2.0, 1.0), [(80, 80)]),
        ((6, 30, 60), (5.0, 1.0, 1.0), [(30, 60)] * 3),
        ((10, 30, 60), (2.0, 1.0, 1.0), [(30, 60), (20, 60), (20, 30)]),
        ((60, 30, 6), (1.0, 1.0, 5.0), [(60, 30)] * 3),
    ],
    ids=["single slice", "anisotropic", "three planes", "coarse along x"],
)
def test_views_have_the_proportions_in_mm(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple,
    spacing: tuple[float, float, float],
    expected: list,
) -> None:
    figures = []
    monkeypatch.setattr(pictures, "_save", lambda figure, _: figures.append(figure))
    label = np.zeros(shape, np.uint8)
    label[:, 10:20, 1:6] = np.arange(1, shape[0] + 1)[:, None, None] % 2 + 1
    overlay_picture(
        np.random.default_rng(0).random(shape),
        label,
        None,
        "title",
        tmp_path / "x.png",
        spacing,
        TWO,
    )
    (figure,) = figures
    figure.draw_without_rendering()
    axes = figure.axes[::2]
    assert len(axes) == len(expected)
    boxes = [a.get_window_extent() for a in axes]
    scale = boxes[0].width / expected[0][1]
    for box, (height, width) in zip(boxes, expected, strict=True):
        assert box.height / box.width == pytest.approx(height / width, rel=0.01)
        assert box.width / scale == pytest.approx(width, rel=0.06)


def test_the_patient_is_shown_upright_whatever_the_axes_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    image, label = rng.random((12, 14, 16)), _ball((12, 14, 16), (4, 9, 5), 3)
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    overlay_picture(image, label, label, "t", tmp_path / "a.png", (2.0, 1.0, 1.0), TWO, identity)
    flipped = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    turned = [array[:, ::-1, ::-1] for array in (image, label, label)]
    overlay_picture(*turned, "t", tmp_path / "b.png", (2.0, 1.0, 1.0), TWO, flipped)
    sagittal = (
        0.0,
        0.0,
        1.0,
        1.0,
        0.0,
        0.0,
        0.0,
        1.0,
        0.0,
    )  # file axes x, y, z run along world y, z, x
    moved = [array.transpose(2, 0, 1) for array in (image, label, label)]
    overlay_picture(*moved, "t", tmp_path / "c.png", (1.0, 2.0, 1.0), TWO, sagittal)
    first = _pixels(tmp_path / "a.png")
    np.testing.assert_array_equal(first, _pixels(tmp_path / "b.png"))
    np.testing.assert_array_equal(first, _pixels(tmp_path / "c.png"))
    overlay_picture(image, label, label, "t", tmp_path / "d.png", (2.0, 1.0, 1.0), TWO)
    assert not np.array_equal(first, _pixels(tmp_path / "d.png"))


def test_a_small_label_is_not_missed(tmp_path: Path) -> None:
    label = _ball((20, 40, 40), (9, 18, 20), 9)
    label[15, 30:33, 30:33] = 2
    overlay_picture(
        np.ones((20, 40, 40)), label, None, "t", tmp_path / "x.png", (1.0, 1.0, 1.0), TWO
    )
    assert _share(_pixels(tmp_path / "x.png")[:-60], BLUE) > 0


def test_regions_and_ignored_voxels_are_named(tmp_path: Path) -> None:
    labels = Labels(
        names={0: "background", 1: "edema", 2: "core"},
        foreground=(1, 2),
        regions=((1, 2), (2,)),
        region_names=("whole", "core"),
        region_order=(1, 2),
        ignore=3,
    )
    reference = np.array([[[0, 1, 2, 3]]])
    legend = pictures._Legend.of(labels, reference, np.array([[[0, 1, 2, 1]]]))
    assert [text for _, text in legend.entries] == [
        "edema",
        "core",
        "ignored",
        "outline of the reference",
    ]
    assert legend.line == "Dice: whole 1.000, core 1.000"
    overlay_picture(
        np.zeros((1, 1, 4)),
        reference,
        reference % 3,
        "t",
        tmp_path / "x.png",
        (1.0, 1.0, 1.0),
        labels,
    )
    assert (tmp_path / "x.png").is_file()


def test_labels_that_occur_are_listed_with_their_dice() -> None:
    legend = pictures._Legend.of(TWO, np.array([[[0, 1, 1, 0]]]), np.array([[[0, 1, 0, 0]]]))
    assert [text for _, text in legend.entries] == ["liver, Dice 0.667", "outline of the reference"]


def test_contact_sheet_shows_every_case_in_its_proportions(tmp_path: Path) -> None:
    shape = (4, 20, 30)

    def cases() -> list[Case]:
        label = np.zeros(shape, np.int16)
        label[2, 5:15, 5:25] = 1
        return [
            Case(f"case_{n}", np.ones((1, *shape), np.float32), label, Geometry(shape, (6, 1, 1)))
            for n in range(5)
        ]

    contact_sheet(cases(), tmp_path / "sheet.png", TWO, columns=3)
    pixels = _pixels(tmp_path / "sheet.png")
    painted = _share(pixels[:-40], tuple(int(0.45 * c) for c in ORANGE), 25)
    assert painted > 0
    first = pixels[: pixels.shape[0] // 2 - 20, : pixels.shape[1] // 3]
    orange = np.abs(first - [int(0.45 * c) for c in ORANGE]).max(axis=-1) < 25
    height, width = (np.ptp(np.flatnonzero(orange.any(axis=axis))) + 1 for axis in (1, 0))
    assert width / height == pytest.approx(2, rel=0.1)
    contact_sheet([], tmp_path / "empty.png", TWO)


def test_no_global_state_of_matplotlib_is_used(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib\n"
        "from pathlib import Path\n"
        "from nnunet_builtin.training.progress import progress_picture\n"
        "progress_picture([], Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], check=True)


def _pair(folder: Path, case: str) -> np.ndarray:
    """Write an image and a label map as `nnunet predict` does; return the label map."""
    shape = (12, 14, 16)
    label = _ball(shape, (6, 7, 8), 4)
    geometry = Geometry(shape, (1.0, 1.0, 1.0))
    for name, array in ((f"images/{case}_0000", label * 100.0), (f"maps/{case}", label)):
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        SimpleItkFormat().write(path, array, geometry)
    return label


def _overlay(*paths: Path | str) -> int:
    """Run the command in this process; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(["overlay", *map(str, paths)])
    return int(stop.value.code or 0)


def test_overlays_of_a_folder_and_of_one_file_show_the_label(tmp_path: Path) -> None:
    for case in ("a", "b"):
        _pair(tmp_path, case)
    images, maps, one = tmp_path / "images", tmp_path / "maps", tmp_path / "one.png"
    assert _overlay(images, maps, tmp_path / "drawn") == 0
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["a.png", "b.png"]
    assert _overlay(images / "a_0000.nii.gz", maps / "a.nii.gz", one) == 0
    assert all(_share(_pixels(path), ORANGE) > 0.0005 for path in (*drawn, one))


def test_the_channel_that_is_asked_for_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = _pair(tmp_path, "a")
    images, maps = tmp_path / "images", tmp_path / "maps"
    other = np.broadcast_to(np.arange(label.shape[2], dtype=float), label.shape)
    SimpleItkFormat().write(images / "a_0001.nii.gz", other, Geometry(label.shape, (1.0,) * 3))
    pictures = {}
    for number in ("0", "1"):
        path = tmp_path / f"{number}.png"
        assert _overlay(images, maps, path, "--channel", number) == 0
        pictures[number] = _pixels(path)
    alone = tmp_path / "alone.png"
    assert _overlay(images / "a_0001.nii.gz", maps / "a.nii.gz", alone) == 0
    assert (pictures["0"] != pictures["1"]).any()
    np.testing.assert_array_equal(_pixels(alone), pictures["1"])
    assert _overlay(images, maps, tmp_path / "x.png", "--channel", "2") == 1
    assert "--channel 2 is none of them" in " ".join(capsys.readouterr().err.split())


def test_overlays_without_their_image_or_place_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in ("a", "b"):
        _pair(tmp_path, case)
    images, maps, drawn = (tmp_path / name for name in ("images", "maps", "drawn"))
    assert _overlay(images, maps, tmp_path / "one.png") == 2
    assert "2 label maps to draw" in capsys.readouterr().err
    (images / "b_0000.nii.gz").unlink()
    assert _overlay(images, maps, drawn) == 1
    assert "no image b_0000.ext or b.ext" in capsys.readouterr().err
    assert _overlay(images, tmp_path / "none", drawn) == 2
    assert not drawn.exists()
