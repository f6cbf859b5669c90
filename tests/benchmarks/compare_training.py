"""Compare a training iteration (forward, loss, backward, clipping, step) with nnunetv2's on this machine, in one run.

Usage: python tests/benchmarks/compare_training.py --peer /path/to/nnunetv2/venv/bin/python [--rounds 3]

Patch 40x56x40, batch 2, features 32..256, no data loading. The two run in turns, each round in fresh processes. The
table holds seconds per iteration (median over a round's iterations after warm-up) and losses on the same batches.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def make_batches(path: Path, count: int = 8, seed: int = 0) -> None:
    """Write batches of two volumes (2, 1, 40, 56, 40) with two ellipsoids as labels 1 and 2."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 56, 40)], indexing="ij"))
    images, labels = [], []
    for _ in range(count):
        label = np.zeros((2, 1, 40, 56, 40), np.int16)
        for sample in label:
            for value in (1, 2):
                centre = rng.uniform(-0.4, 0.4, 3)[:, None, None, None]
                radius = rng.uniform(0.2, 0.45, 3)[:, None, None, None]
                sample[0][(((grid - centre) / radius) ** 2).sum(0) < 1] = value
        images.append((label * 1.0 + rng.normal(0, 0.7, label.shape)).astype(np.float32))
        labels.append(label)
    np.savez(path, images=np.stack(images), labels=np.stack(labels))


def run_ours(batches: Path, iterations: int, threads: int, precision: str) -> None:
    """Time our own iteration; print JSON."""
    import time

    import torch

    from nnunet_builtin.deep_supervision import DeepSupervisionLoss, targets
    from nnunet_builtin.devices import resolve
    from nnunet_builtin.losses import DiceCE
    from nnunet_builtin.plain_unet import PlainUNet
    from nnunet_core.interfaces import Runtime
    from nnunet_core.plans import NetworkSpec

    content = np.load(batches)
    runtime = resolve(Runtime("cpu", precision, 0, threads))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    pools = ((2, 2, 2),) * 3
    spec = NetworkSpec(
        dimensions=3, input_channels=1, output_channels=3, pool_kernels=pools, conv_kernels=((3, 3, 3),) * 4
    )
    network = PlainUNet().build(spec).to(memory_format=torch.channels_last_3d)
    loss = DeepSupervisionLoss(DiceCE().build(batch_dice=False), 3)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, weight_decay=3e-5, momentum=0.99, nesterov=True)
    losses, seconds = [], []
    for index in range(iterations):
        images = torch.from_numpy(content["images"][index % len(content["images"])])
        label = torch.from_numpy(content["labels"][index % len(content["labels"])])
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", runtime.dtype, enabled=runtime.autocast):
            heads = network(images.to(memory_format=torch.channels_last_3d))
        value = loss(heads, targets(label, pools))
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
        losses.append(float(value))
        seconds.append(time.perf_counter() - started)
    print(
        json.dumps({"losses": losses, "seconds": seconds, "parameters": sum(p.numel() for p in network.parameters())})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="python of an environment with nnunetv2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ours", nargs=2, metavar=("BATCHES", "PRECISION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        run_ours(Path(arguments.ours[0]), arguments.iterations, arguments.threads, arguments.ours[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder) / "batches.npz"
        make_batches(batches)
        counts = ["--iterations", str(arguments.iterations), "--threads", str(arguments.threads)]
        commands = {
            f"ours {precision}": [sys.executable, __file__, *counts, "--ours", str(batches), precision]
            for precision in ("bfloat16", "float32")
        }
        if arguments.peer:
            peer = [str(arguments.peer), str(HERE / "peer_nnunetv2.py")]
            commands["nnunetv2 float32"] = [*peer, str(batches), str(arguments.iterations), str(arguments.threads)]
        _compare(commands, arguments.rounds)


def _compare(commands: dict[str, list[str]], rounds: int) -> None:
    medians: dict[str, list[float]] = {name: [] for name in commands}
    losses: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, command in commands.items():
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result = json.loads(output.splitlines()[-1])
            medians[name].append(statistics.median(result["seconds"][2:]))
            losses[name] = result["losses"]
    peer = medians.get("nnunetv2 float32")
    for name, values in medians.items():
        ratio = f"  {statistics.median(p / v for p, v in zip(peer, values, strict=True)):.2f} x" if peer else ""
        shown = " ".join(f"{value:.3f}" for value in losses[name][:: max(1, len(losses[name]) // 8)])
        print(f"{name:18} {statistics.median(values):.3f} s{ratio}  losses {shown}")


if __name__ == "__main__":
    main()
