"""How long a step of S7 takes on an accelerator: `mnist-zoo fit` against a plain Lightning loop.

    python benchmarks/accelerator.py

Compared in turn in every round:

- ``fit``: the command as run at a terminal, its steps replayed as CUDA graphs.
- ``eager``: the same with ``--cuda_graph false``.
- ``lightning``: Lightning's own loop over a DataLoader of tensors, with its logger.

The floor is the time of the kernels of a step alone, from a profile. If torch finds no GPU, nothing
is timed; ``--accelerator cpu`` tries out the script on a CPU, without a floor.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import torch
from common import facts, write
from lightning import Trainer, seed_everything
from steps import Stopwatch, fit
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, TensorDataset

from mnist_zoo.data import MNIST, to_float
from mnist_zoo.models import ConvNetDropout


def clock() -> float:
    """Wait for the GPU, and return the time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def lightning(steps: int, root: Path, accelerator: str) -> float:
    """Return milliseconds per step of Lightning's own loop."""
    data = MNIST(root=str(root), val_size=0)
    data.setup("fit")
    images, targets = data.splits["train"]
    loader = DataLoader(TensorDataset(to_float(images), targets), batch_size=10, shuffle=True)
    seed_everything(0, verbose=False)
    stopwatch = Stopwatch(clock)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            max_epochs=1,
            limit_train_batches=steps,
            default_root_dir=folder,
            enable_model_summary=False,
            callbacks=[stopwatch],
        )
        trainer.fit(ConvNetDropout(lr=0.005), loader)
    return 1000 * stopwatch.seconds / steps


def floor(steps: int = 50) -> float:
    """Return the milliseconds that the kernels of a step take."""
    net = ConvNetDropout().cuda().train()
    step = common.bare_step(net, net.loss)
    for _ in range(steps):
        step()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    # The profile also lists the CUDA calls that launch them.
    kernels = [k for k in profiled.key_averages() if k.device_type == DeviceType.CUDA]
    print(f"{sum(k.count for k in kernels) / steps:.0f} kernels and copies a step")
    return sum(k.self_device_time_total for k in kernels) / 1000 / steps


def main() -> None:
    parser = common.parser("accelerator", __doc__)
    # An epoch has 5,500 steps.
    parser.add_argument("--steps", type=int, default=5000, help="of fit; a tenth for the others")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    arguments = parser.parse_args()
    on_gpu = arguments.accelerator == "gpu"
    if on_gpu and not torch.cuda.is_available():
        return print("no GPU: nothing to time")
    root, steps = arguments.root.absolute(), arguments.steps
    on = [f"--trainer.accelerator={arguments.accelerator}"]
    eager = [*on, "--cuda_graph=false"]
    sides: dict[str, Callable[[], float]] = {
        "fit": lambda: fit(ConvNetDropout, on, steps, root, clock),
        "eager": lambda: fit(ConvNetDropout, eager, steps // 10, root, clock),
        "lightning": lambda: lightning(steps // 10, root, arguments.accelerator),
    }
    rounds = [{n: side() for n, side in sides.items()} for _ in range(arguments.rounds + 1)][1:]
    for name in sides:
        times = [r[name] for r in rounds]
        ratios = [r[name] / r["fit"] for r in rounds]
        print(
            f"{name:10} {statistics.median(times):8.3f} ms a step"
            f" ({min(times):.3f} to {max(times):.3f}), {statistics.median(ratios):.1f} times fit"
        )
    found = facts(torch.get_num_threads(), "cuda" if on_gpu else "cpu")
    found |= {"steps": steps, "ms": rounds}
    if on_gpu:
        found["floor_ms"] = floor()
        print(f"{found['device_name']}: kernels alone {found['floor_ms']:.3f} ms a step")
    write(arguments.json, found)


if __name__ == "__main__":
    main()
