"""Many optimizer steps per ``training_step``, so that Lightning's overhead is paid once.

``Blocks`` puts a block of steps in the place of the network's ``training_step``. Steps and weights
are bit-identical to those of Lightning's plain loop (as a CUDA graph, up to rounding); only the
surrounding work is done less often. Keras calls this ``steps_per_execution``.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from functools import cache, cached_property, partial
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as optimizers
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mnist_zoo.engine import plain_loop
from mnist_zoo.engine.average import Average
from mnist_zoo.engine.cuda_graphs import GraphedSteps, GraphedStepsAtRates, Rates, together
from mnist_zoo.errors import ZooError
from mnist_zoo.models.classifier import Classifier

# Blocks of about this many images keep both Lightning's overhead and the delay after Ctrl-C small:
# at 10 images per step, a block takes about 0.1 s on a CPU.
_IMAGES_A_BLOCK = 640
# On a GPU, steps take much less time, and overhead as much.
_IMAGES_A_BLOCK_ON_A_GPU = 16_384
_STEPS_A_BLOCK_ON_A_GPU = 256
# Enough to start kernels without delay; the first ones are taken plainly, and recording takes time.
_STEPS_A_GRAPH = 8


class Blocks(Callback):
    """Runs several optimizer steps in each ``training_step``.

    Counters, logger axes and checkpoints count optimizer steps; ``max_steps``,
    ``limit_train_batches`` and gradient clipping hold exactly. If the trainer must act on
    individual batches (validation within an epoch, batch norm on several devices), a block is one
    step. Lightning's plain loop is used if gradients are accumulated, if a network defines its own
    training (``training_step``, ``configure_optimizers`` or hooks around a step), if network or
    data see minibatches on their way to the device, if one of the user's callbacks acts at every
    step, or with precision plugins and strategies other than Lightning's. What a network's own loss
    logs for single steps is logged only for the last step of a block, and a stop that it asks for
    comes at the end of one.

    To the trainer, a block is a batch: its numbers of batches, and the steps that it estimates from
    them, are those of blocks. ``global_step`` and the network's ``num_training_steps`` and
    ``num_steps_per_epoch`` count steps.

    Args:
        num_steps: Optimizer steps in a block; None chooses by the batch size.
        cuda_graph: On a GPU, replay steps as a CUDA graph if possible; None: only for the zoo's own
            networks. A graph ignores what Python does in a step, such as a loss that depends on the
            epoch.
    """

    def __init__(self, num_steps: int | None = None, cuda_graph: bool | None = None) -> None:
        self.num_steps = num_steps
        self.cuda_graph = cuda_graph
        self._resumed_at = 0
        self._block: _BlockStep | None = None

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Have the data module yield blocks and the network train on them."""
        datamodule: Any = getattr(trainer, "datamodule", None)
        if stage != "fit" or not plain_loop.yields_blocks(datamodule):
            return
        if plain_loop.is_needed(trainer, pl_module):
            return
        wanted = self.num_steps or _num_steps(datamodule.batch_size, trainer)
        datamodule.block_size = 1 if plain_loop.counts_batches(trainer, pl_module) else wanted
        datamodule.limit_train_batches = trainer.limit_train_batches
        trainer.limit_train_batches = 1.0
        pl_module.automatic_optimization = False
        ours = type(pl_module).__module__.startswith("mnist_zoo.")
        cuda_graph = ours if self.cuda_graph is None else self.cuda_graph
        self._block = _BlockStep(trainer, pl_module, datamodule, cuda_graph)
        pl_module.training_step = self._block.run
        # A loader of its own: Lightning's must not be built before a resumed run's place in the
        # data, which it takes over when it is built, has been restored.
        num_per_epoch = cache(lambda: datamodule.train_dataloader().num_batches)
        pl_module.num_steps_per_epoch = num_per_epoch
        pl_module.num_training_steps = lambda: _num_training_steps(trainer, num_per_epoch())

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Restore trainer, network and data."""
        self._restore(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Restore them after an interruption, too: Lightning then calls no teardown."""
        self._restore(trainer, pl_module)

    def _restore(self, trainer: Trainer, pl_module: Any) -> None:
        if self._block is None:
            return
        self._block = None
        del pl_module.training_step, pl_module.num_steps_per_epoch, pl_module.num_training_steps
        # The kind of loop decides which of two counters holds the number of steps.
        plain = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
        plain.total.ready = plain.total.completed = trainer.global_step
        pl_module.automatic_optimization = True
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        trainer.limit_train_batches = datamodule.limit_train_batches
        datamodule.block_size, datamodule.limit_train_batches = 1, 1.0

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Let Lightning's plain loop continue the counts, and blocks of another size."""
        if self._block is not None:
            loop = checkpoint["loops"]["fit_loop"]
            steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
            steps["total"]["ready"] = steps["total"]["completed"] = checkpoint["global_step"]
            loader: Any = trainer.train_dataloader
            is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
            done = loader.num_batches if is_last else loader.state_dict()["position"]
            _set(loop["epoch_loop.batch_progress"]["current"], done)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Remember how many steps a run had taken, whichever loop counted them."""
        self._resumed_at = checkpoint["global_step"]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Continue counting where a resumed run stopped."""
        if self._block is not None:
            progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
            progress.ready = progress.completed = max(progress.completed, self._resumed_at)
            self._resumed_at = 0
            _count_blocks_anew(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Step the schedulers that follow the validation loss, as Lightning's plain loop does."""
        is_whole = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self._block is None or not is_whole:
            return
        for config in trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ReduceLROnPlateau):
                config.scheduler.step(self._plateau_metric(trainer))

    @staticmethod
    def _plateau_metric(trainer: Trainer) -> Tensor:
        # Lightning drops the scheduler's `monitor` in manual optimization.
        if "val/loss" not in trainer.callback_metrics:
            raise ZooError(
                "ReduceLROnPlateau needs the validation loss: hold out some images, and validate"
                " after every epoch."
            )
        return trainer.callback_metrics["val/loss"]


def _num_steps(batch_size: int, trainer: Trainer) -> int:
    """Return the number of steps in a block if the user gives none."""
    if trainer.strategy.root_device.type != "cuda":
        return max(1, _IMAGES_A_BLOCK // batch_size)
    return max(1, min(_IMAGES_A_BLOCK_ON_A_GPU // batch_size, _STEPS_A_BLOCK_ON_A_GPU))


class _BlockStep:
    """``training_step`` for a block: the same steps as one by one, with metrics over all."""

    def __init__(self, trainer: Trainer, network: Classifier, data: Any, cuda_graph: bool) -> None:
        self.trainer = trainer
        self.network = network
        self.batch_size: int = data.batch_size
        self.block_size: int = data.block_size
        # Only the loss and the optimizer take part in a step.
        on_one = isinstance(trainer.strategy, SingleDeviceStrategy)
        self.bare = on_one and not plain_loop.scales_loss(trainer)
        self.cuda_graph = cuda_graph
        self.averages = [c for c in trainer.callbacks if type(c) is Average]  # type: ignore[attr-defined]

    def run(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Take a step for each minibatch of a block."""
        trainer = self.trainer
        images, targets = batch
        if trainer.max_steps >= 0:
            num_images = (trainer.max_steps - trainer.global_step) * self.batch_size
            if num_images < len(targets):
                # A truncated epoch is not validated; a resumed run trains the rest.
                trainer.fit_loop.epoch_loop.batch_progress.is_last_batch = False
                trainer.val_check_batch = math.inf
                loader: Any = trainer.train_dataloader
                loader.take_back(math.ceil((len(targets) - num_images) / self.batch_size))
            images, targets = images[:num_images], targets[:num_images]
        if self._graphs:
            self._graphs.heed_changes()
        first, results = 0, []
        while first < len(targets):
            part = slice(first, first + self._num_images_until_average())
            results.append(self._train(images[part], targets[part]))
            first = part.stop
        # Lightning adds one for the block, but logger axes must count steps.
        num_steps = math.ceil(len(targets) / self.batch_size)
        trainer.fit_loop.epoch_loop._batches_that_stepped += num_steps - 1
        mean_loss, outputs = together(results)
        self.network.log_training(mean_loss, outputs, targets)
        # Before the epoch's validation, as Lightning does.
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            for scheduler in self._schedulers("epoch"):
                if not isinstance(scheduler, ReduceLROnPlateau):
                    scheduler.step()

    def _num_images_until_average(self) -> int:
        """Return how many images are trained on before the weights are averaged."""
        step = self.trainer.global_step
        # Lightning's average takes in the weights after the first step, then after every nth.
        steps = [1 + -step % average.update_every_n_steps for average in self.averages]
        return min(steps, default=sys.maxsize) * self.batch_size

    def _train(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a part of a block; return its mean loss and all its outputs."""
        trainer = self.trainer
        step = trainer.global_step + math.ceil(len(targets) / self.batch_size)
        take = self._graphs.train if self._graphs else self._take_and_count
        results = take(images, targets)
        self._count(step - trainer.global_step)
        for average in self.averages:
            average.on_train_batch_end(trainer, self.network, None, (images, targets), 0)
        return results

    def _take_and_count(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train without graphs."""
        return self._take(images, targets, counts=self.bare)

    def _take(
        self, images: Tensor, targets: Tensor, rates: Rates | None = None, counts: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Train on the images of a block; return its mean loss and all its outputs.

        Images are (B, 1, 28, 28), outputs (B, 10), where B is the number of steps times
        ``batch_size``, or less in the last block of an epoch. ``rates``, (steps, groups), replaces
        the step-wise schedulers. Steps are counted one by one if ``counts``.
        """
        network = self.network
        step = self._step()
        schedulers = self._schedulers("step")
        if rates is not None:
            schedulers = [_Rates(self._optimizer(), rates)]
        losses, all_outputs = [], []
        parts = (torch.split(part, self.batch_size) for part in (images, targets))
        logged: Any = self.trainer._results
        for some_images, some_targets in zip(*parts, strict=True):
            # What a network logs in its loss is weighted by the minibatch, not the block.
            logged.batch_size = size = some_targets.shape[0]
            outputs = network(some_images)
            loss = network.loss(outputs, some_targets)
            step(loss)
            for scheduler in schedulers:
                scheduler.step()
            if counts:
                # Here, for a loss that depends on the step number.
                self._count(1)
            losses.append(loss.detach())
            all_outputs.append(outputs.detach())
        outputs = torch.cat(all_outputs)
        means = torch.stack(losses).float()
        # The last minibatch of an epoch may be smaller than the others.
        total = means[:-1].sum() * self.batch_size + means[-1] * size
        return total / len(outputs), outputs

    @cached_property
    def _graphs(self) -> GraphedSteps | None:
        return self._graphed(self.network.device)

    def _graphed(self, device: torch.device) -> GraphedSteps | None:
        """Return the same steps as a CUDA graph, if possible."""
        if device.type != "cuda" or not (self.cuda_graph and self.bare):
            return None
        network, optimizer, notify = self.network, self._optimizer(), self.trainer.print
        groups = optimizer.param_groups
        if not all(group.get("capturable", True) or group.get("fused") for group in groups):
            notify(f"No CUDA graph (slower): {type(optimizer).__name__} counts steps on the CPU")
            return None
        between_updates = [average.update_every_n_steps for average in self.averages]
        num_steps = min(_STEPS_A_GRAPH, *between_updates, self.block_size)
        how, length = (self._take, self._take_and_count, self._count), (self.batch_size, num_steps)
        schedulers = self._schedulers("step")
        # Others take only numbers, which a graph would fix.
        takes_rates = getattr(optimizer, "takes_tensors_as_lr", False) or all(
            group.get("fused") for group in groups
        )
        is_constant = not self.trainer.lr_scheduler_configs
        if is_constant or not (schedulers or takes_rates):
            return GraphedSteps(*how, network, optimizer, *length, notify)
        if any(getattr(scheduler, "cycle_momentum", False) for scheduler in schedulers):
            notify("No CUDA graph (slower): the scheduler changes the momentum at every step")
            return None
        if not takes_rates:
            name = type(optimizer).__name__
            notify(f"No CUDA graph (slower): {name} cannot have its rate changed at every step")
            return None
        return GraphedStepsAtRates(*how, network, optimizer, *length, notify, schedulers)

    def _optimizer(self) -> Optimizer:
        wrapped: Any = self.network.optimizers()
        optimizer: Optimizer = wrapped.optimizer
        return optimizer

    def _schedulers(self, interval: str) -> list[Any]:
        """Return the schedulers that are stepped after every step, or after every epoch."""
        configs = self.trainer.lr_scheduler_configs
        return [config.scheduler for config in configs if config.interval == interval]

    def _count(self, num_steps: int) -> None:
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        for counter in (progress.total, progress.current):
            counter.ready += num_steps
            counter.completed += num_steps

    def _step(self) -> Callable[[Tensor], None]:
        """Return a function that takes a step for a loss, with Lightning's wrappers if needed."""
        trainer, network = self.trainer, self.network
        optimizer: Any = network.optimizers()
        backward: Callable[[Tensor], Any] = network.manual_backward
        zero_grad, update = optimizer.zero_grad, optimizer.step
        if self.bare:
            optimizer, backward = optimizer.optimizer, Tensor.backward
            zero_grad, update = _bare(optimizer) or (optimizer.zero_grad, optimizer.step)

        def step(loss: Tensor) -> None:
            zero_grad()
            backward(loss)
            if clip_at := trainer.gradient_clip_val:
                network.configure_gradient_clipping(
                    optimizer, clip_at, trainer.gradient_clip_algorithm
                )
            update()

        # As in Lightning's loop, mixed precision is for the forward pass alone.
        device = network.device.type
        mixed = torch.is_autocast_enabled(device)
        return torch.autocast(device, enabled=False)(step) if mixed else step


class _Rates:
    """Sets the learning rates of each step, in the place of schedulers.

    Args:
        optimizer: Its groups get the rates of the first step at once.
        rates: (steps, groups).
    """

    def __init__(self, optimizer: Optimizer, rates: Rates) -> None:
        self.optimizer = optimizer
        self.to_come = iter(rates)
        self.step()

    def step(self) -> None:
        """Go on to the rates of the next step, if there is one."""
        for group, rate in zip(self.optimizer.param_groups, next(self.to_come, ()), strict=False):
            group["lr"] = rate


def _bare(optimizer: Optimizer) -> tuple[Callable[[], None], Callable[[], Any]] | None:
    """Return ``zero_grad`` and ``step`` without PyTorch's wrappers; None if these are needed.

    The wrappers serve the profiler, hooks and compiler, and take a quarter of the time of ``Dense``
    on a CPU.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        optimizers._global_optimizer_pre_hooks,
        optimizers._global_optimizer_post_hooks,
    )
    if (
        not type(optimizer).__module__.startswith("torch.optim.")
        or "step" in vars(optimizer)  # a scheduler counts the steps
        or optimizer.defaults.get("differentiable")
        or any(hooks)
        or any(weight.device.type != "cpu" for weight in weights)
    ):
        return None

    def zero_grad() -> None:
        for weight in weights:
            weight.grad = None

    return zero_grad, torch.no_grad()(partial(inspect.unwrap(type(optimizer).step), optimizer))


def _count_blocks_anew(trainer: Trainer) -> None:
    """For a run resumed in mid-epoch, recount progress in blocks of the current size."""
    loader: Any = trainer.train_dataloader
    count: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    if count.ready:
        # The place of a whole epoch is the beginning of the next.
        position = loader.state_dict()["position"] or loader.num_batches
        to_come = -(-(loader.num_batches - position) // loader.block_size)
        _set(vars(count), len(loader) - to_come)


def _set(count: dict[str, int], num_batches: int) -> None:
    """Set how many batches of an epoch are done, of which the last may not count as complete."""
    behind = count["ready"] - count["completed"]
    count["ready"] = count["started"] = count["processed"] = num_batches
    count["completed"] = num_batches - behind


def _num_training_steps(trainer: Trainer, num_per_epoch: int) -> float:
    num_epochs = trainer.max_epochs
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if num_epochs is not None and num_epochs >= 0:
        limits.append(num_epochs * num_per_epoch)
    return min(limits, default=math.inf)
