"""Small trainings that nnU-Net v1 and this package both make: networks, weights and batches drawn
with NumPy alone.

Some trainings amplify rounding: in v1 as here, losses of float32 and of float64 are 1e-2 apart
after ten steps for most seeds. Those below are seeds for which v1 itself stays within 1e-5, so that
float32 can be compared too. In float64 any seed will do.
"""

import numpy as np

STEPS, EPOCHS = 30, 3
PROBLEMS = {
    "3d": {
        "input_channels": 2,
        "classes": 3,
        "base_features": 6,
        "pool_kernels": [[1, 2, 2], [2, 2, 2], [2, 2, 2]],
        "conv_kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "patch_size": [8, 16, 24],
        "batch_size": 2,
        "seed": 11,
        "batch_dice": False,
    },
    "2d": {
        "input_channels": 1,
        "classes": 4,
        "base_features": 6,
        "pool_kernels": [[2, 2], [2, 2], [2, 2]],
        "conv_kernels": [[3, 3], [3, 3], [3, 3], [3, 3]],
        "patch_size": [32, 24],
        "batch_size": 5,
        "seed": 8,
        "batch_dice": True,
    },
}


def draw_weights(problem, shapes):
    """Return {name: float32 array} for v1's names and shapes, each drawn by its place among the
    sorted names.

    The heads are large, so that the first gradients are longer than what clipping leaves of them.
    """
    names = enumerate(sorted(shapes))
    return {
        name: _tensor(name, shapes[name], np.random.default_rng([problem["seed"], i]))
        for i, name in names
    }


def _tensor(name, shape, rng):
    drawn = rng.standard_normal(shape)
    if len(shape) > 1:
        drawn *= np.sqrt(2 / np.prod(shape[1:])) * (12 if name.startswith("seg_outputs") else 1)
    else:
        drawn = 0.1 * drawn + name.endswith("instnorm.weight")
    return drawn.astype(np.float32)


def draw_batch(problem, step):
    """Return images float32 (B, C, *patch) and labels int16 (B, 1, *patch): bands across a wave,
    and noise on them.
    """
    rng = np.random.default_rng([2, step])
    size, axes = problem["batch_size"], len(problem["patch_size"])
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in problem["patch_size"]], indexing="ij"))
    directions = rng.uniform(-0.5, 0.5, (size, axes))
    wave = np.sin(np.tensordot(directions, grid, 1) + rng.uniform(0, 6, (size, *[1] * axes)))
    edges = np.linspace(-0.2, 0.9, problem["classes"] - 1)
    label = np.digitize(wave, edges)[:, None]
    noise = rng.standard_normal((size, problem["input_channels"], *problem["patch_size"]))
    return (label + noise).astype(np.float32), label.astype(np.int16)
