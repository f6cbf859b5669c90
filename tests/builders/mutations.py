"""Images of every format, and damaged copies of them: always the same ones."""

import random
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".gipl.gz", ".tif")
PICTURES = (".png", ".bmp", ".jpg", ".tiff", ".nii")
KINDS = ("cut", "header", "any", "extreme")
EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\x7f",
    b"\0\0\xc0\x7f",
    b"9999",
    b"-1 0",
)


def seeds(folder: Path) -> list[Path]:
    """Write one image of each format, compressed and not; return their files."""
    draw = np.random.default_rng(0)
    volume = draw.integers(0, 1000, (5, 12, 14)).astype(np.int16)
    plane = draw.integers(0, 255, (24, 26)).astype(np.uint8)
    contents = [(f"volume{ending}", volume, False) for ending in VOLUMES]
    contents += [(f"picture{ending}", plane, False) for ending in PICTURES]
    contents += [("colours.png", np.stack([plane] * 3, -1), True)]
    contents += [("colours.bmp", np.stack([plane] * 3, -1), True)]
    contents += [("colours.tif", np.stack([plane] * 3, -1), True)]
    contents += [
        (f"float{ending}", volume.astype(np.float32), False) for ending in (".nii", ".mha")
    ]
    contents += [("frames.dcm", volume.astype(np.uint16), False)]
    for name, array, colours in contents:
        for packed in (False, True):
            path = folder / f"{'packed' if packed else 'plain'}_{name}"
            image = sitk.GetImageFromArray(array, isVector=colours)
            image.SetSpacing([0.8, 0.7, 2.5][: image.GetDimension()])
            sitk.WriteImage(image, str(path), useCompression=packed)
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix not in {".raw", ".zraw", ".gz"}
        or path.name.endswith((".nii.gz", ".gipl.gz"))
    )


def mutated(content: bytes, name: str, kind: str, seed: int) -> bytes:
    """Return a damaged copy of a file's content."""
    draw = random.Random(zlib.crc32(f"{name} {kind} {seed}".encode()))
    changed = bytearray(content)
    if kind == "cut":
        return content[: draw.randrange(len(content))]
    if kind == "extreme":
        place = draw.randrange(max(1, min(len(content), 400) - 4))
        changed[place : place + 4] = draw.choice(EXTREMES)
        return bytes(changed)
    reach = len(content) if kind == "any" else min(len(content), 400)
    for _ in range(draw.randrange(1, 6)):
        changed[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(changed)
