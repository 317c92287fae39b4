"""Training time on a GPU of the recipes that reach an accuracy fast there.

    python benchmarks/records_on_gpu.py

Each recipe named by its accuracy, such as ConvNetBatchNorm-99.7 or ConvNetThreeConv-99-gpu, is
trained by `mnist-zoo fit` several times, with other seeds.
The time is that from before the first step to after the last, with data in memory. Before it, on
random images and targets, kernels are chosen and CUDA graphs recorded, as in other benchmarks of
this kind; then weights, optimizer and random numbers are as if that had not happened. What the
preparation takes is listed beside it. The recipes' accuracies are in the README.
"""

from __future__ import annotations

import contextlib
import copy
import io
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import common
import torch
from accelerator import clock
from common import AT_A_TERMINAL, facts, write
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from mnist_zoo.commands.training import command as training
from mnist_zoo.engine.blocks import Blocks
from mnist_zoo.recipes import all_recipes


class Prepared(Callback):
    """Prepares a run, then measures its training."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        start = clock()
        self._prepare(trainer, pl_module)
        self.start = clock()
        self.preparation = self.start - start

    # The last of these follows the last step; with on_train_batch_end there would be no blocks.
    def on_train_epoch_end(self, *_: object) -> None:
        self.seconds = clock() - self.start

    def _prepare(self, trainer: Trainer, network: Any) -> None:
        blocks = next(it for it in trainer.callbacks if isinstance(it, Blocks))  # type: ignore[attr-defined]
        block: Any = blocks._block
        graphed = block._graphed(network.device)
        if graphed is None:
            return
        block._graphs, block._steps = graphed, graphed.train
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        before = graphed._state()
        states = [copy.deepcopy(scheduler.state_dict()) for scheduler in schedulers]
        groups = trainer.optimizers[0].param_groups
        rates = [group["lr"] for group in groups]
        numbers = torch.cuda.get_rng_state(network.device)

        # Two single steps come first, then a graph of several, then what is left of an epoch.
        loader: Any = trainer.train_dataloader
        num_images = (2 + graphed.num_steps) * loader.batch_size
        for rest in {0, len(loader.targets) % loader.batch_size}:
            images = torch.rand(num_images + rest, 1, 28, 28, device=network.device)
            with trainer.precision_plugin.train_step_context():
                graphed.train(images, torch.randint(10, (len(images),), device=network.device))

        with torch.no_grad():
            # What the optimizer has created since begins at zero.
            for name, tensor in graphed._tensors().items():
                tensor.copy_(before.get(name, torch.zeros_like(tensor)))
        for scheduler, state in zip(schedulers, states, strict=True):
            scheduler.load_state_dict(state)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        block._count(-trainer.global_step)
        torch.cuda.set_rng_state(numbers, network.device)


def fit(recipe: str, seed: int, root: Path, accelerator: str) -> dict[str, float]:
    """Train once; return the seconds of training, and of the preparation."""
    prepared = Prepared()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        flags = {
            "config": recipe,
            "seed_everything": seed,
            "data.root": root,
            "data.val_size": 0,
            "pictures": "false",
            "trainer.accelerator": accelerator,
            "trainer.default_root_dir": folder,
        }
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        training.run(["fit", *arguments, *AT_A_TERMINAL], callbacks=[prepared])
    return {"training": prepared.seconds, "preparation": prepared.preparation}


def main() -> None:
    parser = common.parser("records_on_gpu", __doc__, rounds=5)
    parser.add_argument("--only", nargs="+", default=[], metavar="RECIPE")
    parser.add_argument("--accelerator", choices=("gpu", "cpu"), default="gpu")
    arguments = parser.parse_args()
    on_gpu = arguments.accelerator == "gpu"
    if on_gpu and not torch.cuda.is_available():
        return print("no GPU: nothing to time")
    fast = [name for name in sorted(all_recipes()) if re.search(r"-99[.\d]*(-gpu)?$", name)]
    found: dict[str, list[dict[str, float]]] = {}
    print(f"{'recipe':26} {'training':>9} {'fastest':>9} {'slowest':>9} {'preparation':>12}")
    for name in arguments.only or fast:
        found[name] = [
            fit(name, seed, arguments.root.absolute(), arguments.accelerator)
            for seed in range(arguments.rounds)
        ]
        times = [it["training"] for it in found[name]]
        print(
            f"{name:26} {statistics.median(times):7.3f} s {min(times):7.3f} s {max(times):7.3f} s"
            f" {statistics.median(it['preparation'] for it in found[name]):10.2f} s",
            flush=True,
        )
    device = facts(torch.get_num_threads(), "cuda" if on_gpu else "cpu")
    print(f"{device['device_name']}, torch {torch.__version__}, {arguments.rounds} seeds each")
    write(arguments.json, device | {"seconds": found})


if __name__ == "__main__":
    main()
