"""Lesions: connected components of two masks, matched one to one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching

#: {neighbours of a voxel that belong to its component: how many axes they may differ in}.
CONNECTIVITIES = {6: 1, 18: 2, 26: 3}


@dataclass(frozen=True)
class LesionRule:
    """When a predicted lesion is a true one.

    Attributes:
        connectivity: Neighbours of a voxel (6, 18, 26) that belong to its component; in the plane 4
            for 6, and 8.
        overlap: Least intersection over union, above 0, of a predicted and a true component.
    """

    connectivity: int = 26
    overlap: float = 0.1


@dataclass(frozen=True)
class LesionCounts:
    """Numbers of components.

    Attributes:
        predicted, true: Of each mask.
        matched: Pairs of one predicted and one true component each, as many as there can be.
    """

    predicted: int
    true: int
    matched: int

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); there is at least one component."""
        return 2 * self.matched / (self.predicted + self.true)


def count_lesions(prediction: np.ndarray, reference: np.ndarray, rule: LesionRule) -> LesionCounts:
    """Count and match the components of two masks, bool (Z, Y, X) or (Y, X), of one shape."""
    axes = prediction.ndim
    structure = ndimage.generate_binary_structure(
        axes, min(CONNECTIVITIES[rule.connectivity], axes)
    )
    mine, predicted = ndimage.label(prediction, structure)
    theirs, true = ndimage.label(reference, structure)
    if not predicted or not true:
        return LesionCounts(predicted, true, 0)
    both = (mine > 0) & (theirs > 0)
    codes = theirs[both].astype(np.int64) * (predicted + 1) + mine[both]
    pairs, common = np.unique(codes, return_counts=True)
    rows, columns = pairs // (predicted + 1), pairs % (predicted + 1)
    union = np.bincount(theirs.ravel())[rows] + np.bincount(mine.ravel())[columns] - common
    fits = common >= rule.overlap * union
    graph = coo_array((fits[fits], (rows[fits], columns[fits])), (true + 1, predicted + 1)).tocsr()
    matched = maximum_bipartite_matching(graph, perm_type="column")
    return LesionCounts(predicted, true, int((matched >= 0).sum()))
