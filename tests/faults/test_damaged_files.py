"""Damaged copies of real files of every format: one clear message that names the file, never a
crash, a hang or a guess.
"""

import gzip
import random
import shutil
import struct
import time

import numpy as np
import pytest

from nnunet_builtin.formats.simpleitk import SimpleItkFormat
from nnunet_core.data.images import Geometry
from nnunet_core.errors import ImageError
from nnunet_core.registry.discovery import Registry
from nnunet_core.stages.formats import find_format

FILES = [
    "Task004_Hippocampus/imagesTr/hippocampus_004_0000.nii.gz",
    "Task004_Hippocampus/labelsTr/hippocampus_004.nii.gz",
    "Task104_HippocampusThick/imagesTr/*.nii.gz",
    "Task90_Lesions4D/imagesTr/*.nii.gz",
    "Dataset120_Nuclei/imagesTr/nuclei_000_0000.png",
    "Dataset120_Nuclei/labelsTr/nuclei_000.png",
    "formats/breast1_image.nrrd",
    "formats/breast1_label.nrrd",
    "formats/liver_seg.nrrd",
    "formats/prostate_phantom_subvolume.nrrd",
    "formats/prostate_phantom_subvolume-label.nrrd",
    "formats/liver.dcm",
    "formats/ct_3slice_dicom",
]
DAMAGES = {
    "zero length": lambda content: b"",
    "truncated": lambda content: content[: len(content) * 2 // 3],
    "header only": lambda content: content[:100],
    "wrong magic": lambda content: bytes(200) + content[200:],
    "text": lambda content: b"hello world " * 100,
}
GIGABYTES = 4 << 30


def damage(data, tmp_path, name, change):
    """Return a damaged copy: of the file, or of the second slice of a series."""
    source = sorted(data.glob(name))[0]
    if source.is_dir():
        copy = tmp_path / f"{source.name}_0000.dcm"
        shutil.copytree(source, copy)
        victim = sorted(copy.iterdir())[1]
    else:
        copy = victim = tmp_path / source.name
        shutil.copyfile(source, copy)
    victim.write_bytes(change(victim.read_bytes()))
    return copy, victim


def read(path):
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    return find_format(ending, Registry.discover()).read(path)


@pytest.mark.shared
@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_one_message_that_names_it(data, tmp_path, name, kind):
    copy, victim = damage(data, tmp_path, name, DAMAGES[kind])
    with pytest.raises(ImageError) as caught:
        read(copy)
    message = str(caught.value)
    assert copy.name in message
    assert victim.name in message
    assert "\n" not in message


@pytest.mark.shared
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", FILES)
def test_flipped_bits_are_found_where_the_format_has_a_checksum_and_never_crash(
    data, tmp_path, name, seed
):
    flips = random.Random(seed)

    def flip(content):
        changed = bytearray(content)
        for _ in range(20):
            changed[flips.randrange(len(changed))] ^= 1 << flips.randrange(8)
        return bytes(changed)

    copy, _ = damage(data, tmp_path, name, flip)
    if not name.startswith("formats/") or name.endswith(".nrrd"):
        with pytest.raises(ImageError, match=copy.name):
            read(copy)
    else:  # DICOM has no checksum: flipped bits in the voxels are other voxels
        try:
            assert read(copy).array.ndim == 4
        except ImageError as error:
            assert copy.name in str(error)  # noqa: PT017


def zeros(path, start, size=GIGABYTES):
    """Write a gzip stream that inflates to `start` and zeros: few bytes on the disk, gigabytes in
    memory.
    """
    member = gzip.compress(bytes(1 << 26), 9)
    with path.open("wb") as file:
        file.write(gzip.compress(start))
        for _ in range(size >> 26):
            file.write(member)


def nifti_header(tmp_path, shape):
    SimpleItkFormat((".nii",)).write(
        tmp_path / "small.nii", np.zeros((2, 3, 4), np.float32), Geometry((2, 3, 4))
    )
    header = bytearray((tmp_path / "small.nii").read_bytes()[:352])
    struct.pack_into("<4h", header, 40, 3, *shape)
    return bytes(header)


@pytest.mark.parametrize("start", ["nothing", "small image"])
def test_a_gzip_bomb_is_not_inflated(tmp_path, start):
    bomb = tmp_path / "bomb_0000.nii.gz"
    zeros(bomb, nifti_header(tmp_path, (4, 3, 2)) if start == "small image" else b"")
    started = time.process_time()
    with pytest.raises(ImageError, match=r"bomb_0000.*(no NIfTI header|more than the 96 bytes)"):
        SimpleItkFormat().read(bomb)
    assert time.process_time() - started < 1  # inflating it takes many seconds


def test_an_image_that_would_fill_the_memory_is_refused_before_it_is_read(tmp_path):
    bomb = tmp_path / "bomb_0000.nii.gz"
    zeros(bomb, nifti_header(tmp_path, (32767, 32767, 32767)), size=1 << 27)
    with pytest.raises(ImageError, match=r"bomb_0000.*GB of voxels.*GB of memory are free"):
        SimpleItkFormat().read(bomb)


def test_a_compressed_nrrd_of_four_gigabytes_is_not_inflated(tmp_path):
    bomb = tmp_path / "bomb.nrrd"
    zeros(bomb, b"")
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nencoding: gzip\n"
    header += "spacings: 1 1 1\nendian: little\n\n"
    bomb.write_bytes(header.encode() + bomb.read_bytes())
    started = time.process_time()
    with pytest.raises(ImageError, match=r"bomb\.nrrd.*more than the 48 bytes"):
        SimpleItkFormat((".nrrd",)).read(bomb)
    bomb.write_bytes(bomb.read_bytes().replace(b"4 3 2", b"32767 32767 32767"))
    with pytest.raises(ImageError, match=r"bomb\.nrrd.*GB of memory are free"):
        SimpleItkFormat((".nrrd",)).read(bomb)
    assert time.process_time() - started < 1
