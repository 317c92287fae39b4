"""A block of steps as one CUDA graph: recorded once, then replayed by a single call.

With ten images a step, a GPU spends most of its time waiting for the CPU to start the next kernel.
A graph starts all kernels of a block at once, with the same numbers in the same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Steps = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Trains on the images and targets of a block; returns its mean loss and all its outputs."""
StepsAtRates = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""The same, with the learning rate of each step and parameter group, (steps, groups)."""

# Largest difference allowed between graph and plain steps, relative to how far the block moved the
# weights. Rounding stays far below, a wrong replay is far above.
_TOLERANCE = 0.01


class GraphedSteps:
    """Steps replayed as a CUDA graph, or taken one by one if that is impossible.

    The first block is trained both ways from the same state; a graph that leads to other weights is
    never used. Smaller blocks, such as the last of an epoch, are trained plainly, as is everything
    once a graph has failed.

    Args:
        steps: What to replay: GPU work only, whose results depend only on the network, the
            optimizer and its arguments.
        network: The network to train.
        optimizer: Its optimizer; a new learning rate means a new graph.
        notify: Called with a line that says why there is no graph.
    """

    # Settings of the optimizer that are among the arguments of the steps.
    _given: tuple[str, ...] = ()

    def __init__(
        self,
        steps: Callable[..., tuple[Tensor, Tensor]],
        network: nn.Module,
        optimizer: Optimizer,
        notify: Callable[[str], None],
    ) -> None:
        self.steps = steps
        self.network = network
        self.optimizer = optimizer
        self.notify = notify
        self.failed = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self._settings: Any = None
        self._inputs: tuple[Tensor, ...]
        self._results: tuple[Tensor, Tensor]

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a block; return its mean loss and all its outputs."""
        if not self._is_for(images):
            return self.steps(images, targets)
        return self._take(images, targets)

    def _is_for(self, images: Tensor) -> bool:
        """Whether a block is worth a graph: none has failed, and it is not a smaller one."""
        smaller = self.graph is not None and len(images) < len(self._inputs[0])
        return not (self.failed or smaller)

    def _take(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Replay a block, or record it."""
        if self.graph is None or self._settings != self._settings_now(inputs[0]):
            return self._first(*inputs)
        for static, given in zip(self._inputs, inputs, strict=True):
            static.copy_(given)
        self.graph.replay()
        loss, outputs = self._results
        return loss.clone(), outputs.clone()

    def _first(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a block plainly, then again from the same state with a new graph."""
        device = inputs[0].device
        before, numbers = self._state(), torch.cuda.get_rng_state(device)
        try:
            # PyTorch also requires such a warm-up before recording.
            plainly = self._on_another_stream(*inputs)
        except RuntimeError as error:
            # Steps that synchronise cannot be recorded. What the optimizer has created in the
            # failed block must not be kept.
            if not any(isinstance(name, tuple) for name in before):
                self.optimizer.state.clear()
            self._restore(before)
            torch.cuda.set_rng_state(numbers, device)
            self._give_up(_reason(error))
            return self.steps(*inputs)
        after, numbers_after = self._state(), torch.cuda.get_rng_state(device)
        if any(tensor.device != device for tensor in after.values()):
            # A replay does not update what lies elsewhere, such as an optimizer's count of steps.
            self._give_up("not all of the state that a step changes is on the GPU")
            return plainly
        if after.keys() != before.keys():
            # The first step, in which the optimizer creates its tensors, is unlike the others.
            return plainly
        reason = "it gave different weights from plain steps"
        if not all(torch.isfinite(after[name]).all() for name in self._weights()):
            reason = "the weights are not finite"
        try:
            self._restore(before)
            torch.cuda.set_rng_state(numbers, device)
            self._record(*inputs)
            if self._same(before, after):
                loss, outputs = self._results
                results = loss.clone(), outputs.clone()
                self._require_effect_of_inputs()
                return results
        except RuntimeError as error:
            reason = _reason(error)
        self._give_up(reason)
        self._restore(after)
        _renew_generator(numbers_after, device)
        return plainly

    def _on_another_stream(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take the steps; raise RuntimeError if any of them synchronises with the GPU."""
        main, other = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        other.wait_stream(main)
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings():
            # PyTorch warns that this mode does not detect everything yet.
            warnings.simplefilter("ignore")
            torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.cuda.stream(other):
                results = self.steps(*inputs)
                # The graph allocates its own.
                self.optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            main.wait_stream(other)
        return results

    def _record(self, *inputs: Tensor) -> None:
        """Record a graph of these steps, and take them with it."""
        self._settings = self._settings_now(inputs[0])
        self._inputs = tuple(given.clone() for given in inputs)
        self.graph = torch.cuda.CUDAGraph()
        # Some versions of PyTorch leave their stream in place if recording fails.
        current = torch.cuda.stream(torch.cuda.current_stream())
        with self._capturable(), current, torch.cuda.graph(self.graph):
            self._results = self.steps(*self._inputs)
        self.graph.replay()
        torch.cuda.synchronize(inputs[0].device)

    def _require_effect_of_inputs(self) -> None:
        """Check what the first replay does not show; raise RuntimeError, and leave no trace."""

    @contextmanager
    def _capturable(self) -> Iterator[None]:
        """Let fused Adam and its relatives be recorded: they count steps on the GPU anyway."""
        groups = [group for group in self.optimizer.param_groups if group.get("fused")]
        refusing = [group for group in groups if group.get("capturable") is False]
        for group in refusing:
            group["capturable"] = True
        try:
            yield
        finally:
            for group in refusing:
                group["capturable"] = False

    def _give_up(self, reason: str) -> None:
        self.failed, self.graph = True, None
        self.optimizer.zero_grad()
        self.notify(f"CUDA graph disabled (slower): {reason}")

    def _settings_now(self, images: Tensor) -> Any:
        """Return what a graph fixes but Python might change."""
        groups = [
            {name: value for name, value in group.items() if name not in ("params", *self._given)}
            for group in self.optimizer.param_groups
        ]
        modules = [
            (module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
            for module in self.network.modules()
        ]
        needed = [weight.requires_grad for weight in self.network.parameters()]
        # A graph reads and writes memory, whatever Python may have put in its place.
        places = {name: tensor.data_ptr() for name, tensor in self._tensors().items()}
        return images.shape, groups, modules, needed, places

    def _tensors(self) -> dict[object, Tensor]:
        """Return everything that a step changes."""
        network = self.network
        found: dict[object, Tensor] = {}
        found |= dict(network.named_parameters()) | dict(network.named_buffers())
        for number, state in enumerate(self.optimizer.state.values()):
            found |= {(number, k): v for k, v in state.items() if isinstance(v, Tensor)}
        return found

    def _state(self) -> dict[object, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def _restore(self, state: dict[object, Tensor]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])

    def _weights(self) -> list[str]:
        return [name for name, _ in self.network.named_parameters()]

    def _same(self, before: dict[object, Tensor], after: dict[object, Tensor]) -> bool:
        """Whether the current state equals ``after`` up to rounding, relative to the change."""
        now = self._state()

        def distance(
            names: Iterable[object], one: dict[object, Tensor], other: dict[object, Tensor]
        ) -> Tensor:
            parts = [(one[name] - other[name]).float().flatten() for name in names]
            length: Tensor = torch.linalg.vector_norm(torch.cat(parts))
            return length

        # Weights, buffers and the optimizer's state change on different scales.
        weights = self._weights()
        of_optimizer = [name for name in after if isinstance(name, tuple)]
        buffers = after.keys() - {*weights, *of_optimizer}
        counts = [name for name in buffers if not after[name].is_floating_point()]
        if not all(torch.equal(now[name], after[name]) for name in counts):
            return False
        for names in (weights, of_optimizer, [name for name in buffers if name not in counts]):
            if not names:
                continue
            if not distance(names, now, after) <= _TOLERANCE * distance(names, after, before):
                return False
        return True


class GraphedStepsAtRates(GraphedSteps):
    """Graphed steps whose learning rate a scheduler changes at every step.

    Args:
        steps: What to replay; the learning rates are among its arguments.
        plainly: The same steps, whose schedulers it steps itself.
        network: The network to train.
        optimizer: Its optimizer.
        schedulers: They may change nothing but the learning rate.
        num_steps: Returns the number of steps in a block of so many images.
        notify: Called with a line that says why there is no graph.
    """

    _given = ("lr",)

    def __init__(
        self,
        steps: StepsAtRates,
        plainly: Steps,
        network: nn.Module,
        optimizer: Optimizer,
        schedulers: Sequence[Any],
        num_steps: Callable[[int], int],
        notify: Callable[[str], None],
    ) -> None:
        super().__init__(steps, network, optimizer, notify)
        self.plainly = plainly
        self.schedulers = schedulers
        self.num_steps = num_steps

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a block; return its mean loss and all its outputs."""
        if not self._is_for(images):
            return self.plainly(images, targets)
        groups, rates = self.optimizer.param_groups, []
        with warnings.catch_warnings():
            # PyTorch expects the optimizer's step before the scheduler's.
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(self.num_steps(len(images))):
                rates.append([group["lr"] for group in groups])
                for scheduler in self.schedulers:
                    scheduler.step()
        after = [group["lr"] for group in groups]
        given = torch.tensor(rates).to(images.device, non_blocking=True)
        try:
            return self._take(images, targets, given)
        finally:
            # The steps leave the tensors of the last one there.
            for group, rate in zip(groups, after, strict=True):
                group["lr"] = rate

    def _require_effect_of_inputs(self) -> None:
        """Check that nothing moves at a rate of zero: the graph may hold the rates as numbers.

        The first block does not show that: its rates are those that were recorded.
        """
        assert self.graph
        device = self._inputs[2].device
        after, numbers_after = self._state(), torch.cuda.get_rng_state(device)
        self._inputs[2].zero_()
        self.graph.replay()
        now = self._state()
        self._restore(after)
        torch.cuda.set_rng_state(numbers_after, device)
        if not all(torch.equal(now[name], after[name]) for name in self._weights()):
            raise RuntimeError("it takes no learning rate that changes at every step")


def _renew_generator(numbers: Tensor, device: torch.device) -> None:
    """Set the random generator of a GPU anew.

    After a failed recording, some versions of PyTorch leave it waiting for the end of that, and
    refuse to draw numbers.
    """
    fresh = torch.Generator(device)
    fresh.set_state(numbers)
    generator = torch.cuda.default_generators[device.index]
    generator.graphsafe_set_state(fresh.graphsafe_get_state())


def _reason(error: BaseException) -> str:
    """Return the first line of the root error."""
    while error.__context__ is not None:
        error = error.__context__
    return next(iter(str(error).splitlines()), type(error).__name__)
