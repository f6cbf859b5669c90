"""The three losses as their papers write them, voxel by voxel in NumPy; slow and plain."""

import numpy as np


def softmax(logits):
    """Probabilities of logits (B, K, *spatial)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def two_classes(logits):
    """A region as two classes: (B, *spatial) logits -> (B, 2, *spatial) probabilities."""
    inside = 1 / (1 + np.exp(-logits))
    return np.stack([1 - inside, inside], axis=1)


def dice_ce(p, label, seen, batch_dice, smooth):
    """Cross entropy minus the mean soft Dice of the foreground classes of softmax p."""
    truth = one_hot(label, p.shape[1])
    entropy = -np.log((p * truth).sum(1))[seen].mean()
    found, true = p * seen[:, None], truth * seen[:, None]
    axes = (2, 3, 4)
    tp, size = (found * true).sum(axes), (found + true).sum(axes)
    if batch_dice:
        tp, size = tp.sum(0, keepdims=True), size.sum(0, keepdims=True)
    dice = (2 * tp + smooth) / (size + smooth + 1e-8)
    return entropy - dice[:, 1:].mean()


def skeleton_recall(p, tubes, seen, batch_dice, smooth):
    """Mean over foreground classes (and samples) of the share of a tube that is found.

    p, tubes: (B, K, *spatial) of the foreground classes alone.
    """
    recalls = []
    groups = [slice(None)] if batch_dice else [slice(i, i + 1) for i in range(len(p))]
    for samples in groups:
        for k in range(p.shape[1]):
            tube = tubes[samples, k] & seen[samples]
            recalls.append((p[samples, k][tube].sum() + smooth) / (tube.sum() + smooth))
    return np.mean(recalls)


def boundary(p, distances, seen):
    """Mean over seen voxels and foreground classes of probability times signed distance."""
    values = [
        p[b, k][seen[b]] * distances[b, k][seen[b]]
        for b in range(len(p))
        for k in range(p.shape[1])
    ]
    return np.concatenate(values).mean()


def unified_focal(p, label, seen, batch, symmetric, weight, delta, gamma, smooth):
    """The unified focal loss of classes 0 (background), 1, ... with probabilities p."""
    focal = []
    for b, *place in np.argwhere(seen):
        truth = label[(b, *place)]
        right = p[(b, truth, *place)]
        factor = (1 - right) ** gamma if symmetric or truth == 0 else 1.0
        focal.append((delta if truth > 0 else 1 - delta) * factor * -np.log(right))
    tversky = []
    groups = [slice(None)] if batch else [slice(i, i + 1) for i in range(len(p))]
    for samples in groups:
        for k in range(p.shape[1]):
            found, true = p[samples, k][seen[samples]], label[samples][seen[samples]] == k
            tp, fp, fn = found[true].sum(), found[~true].sum(), (1 - found[true]).sum()
            index = (tp + smooth) / (tp + delta * fn + (1 - delta) * fp + smooth)
            power = 1 - gamma if symmetric or k > 0 else 1.0
            tversky.append((1 - index) ** power)
    return weight * np.mean(focal) + (1 - weight) * np.mean(tversky)


def one_hot(label, classes):
    """(B, *spatial) integers -> (B, classes, *spatial) of 0 and 1."""
    return np.stack([label == k for k in range(classes)], axis=1).astype(float)
