"""Runs inside an environment with nnunetv2: times random patches of its prepared cases, prints
JSON.

Usage: python peer_preprocess_v2.py FOLDER COUNT
"""

import sys

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from patch_reading import time_reads


def main():
    dataset = nnUNetDatasetBlosc2(sys.argv[1])

    def patch(name, slices):
        """Read as the training does: the case is opened anew for every patch."""
        images, label = dataset.load_case(name)[:2]
        return np.asarray(images[(slice(None), *slices)]), np.asarray(label[(0, *slices)])

    shapes = {name: dataset.load_case(name)[0].shape[1:] for name in dataset.identifiers}
    time_reads(patch, shapes, int(sys.argv[2]))


if __name__ == "__main__":
    main()
