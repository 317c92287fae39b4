"""Steps as a CUDA graph: a few are recorded once, then replayed by a single call.

With ten images a step, a GPU spends most of its time waiting for the CPU to start the next kernel.
A graph starts all kernels of several steps at once; the weights are the same up to rounding.
"""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Steps = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Trains on images and targets; returns the mean loss and all outputs."""
Rates = Tensor | Sequence[Sequence[float]]
"""The learning rate of each step and parameter group, (steps, groups)."""

# Largest difference allowed between graph and plain steps, relative to how far the steps moved the
# weights. Rounding usually stays far below, a wrong replay is far above.
_TOLERANCE = 0.01
# Batch norm of few images magnifies rounding within a few steps. A graph may therefore differ by so
# many times as much as plain steps do when they are taken once more.
_TIMES_ROUNDING = 10


class _Recording(NamedTuple):
    """A graph and the tensors from which it reads and to which it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    results: tuple[Tensor, Tensor]


def together(results: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the mean loss and all outputs of consecutive parts of a block."""
    if len(results) == 1:
        return results[0]
    losses, outputs = zip(*results, strict=True)
    weights = [len(some) for some in outputs]
    total = sum(loss * weight for loss, weight in zip(losses, weights, strict=True))
    return total / sum(weights), torch.cat(outputs)


@dataclass(eq=False)
class GraphedSteps:
    """Steps replayed as a CUDA graph, or taken one by one if that is impossible.

    The first steps are taken both ways from the same state; a graph that leads to other weights is
    never used. This begins with graphs of one step, in which rounding cannot hide an error. Once a
    graph has failed, all steps are taken plainly.

    Args:
        steps: What to replay: GPU work only, whose results depend only on the network, the
            optimizer and its arguments.
        plainly: The same steps, counted one by one; taken once a graph has failed.
        count: Called with a number of steps otherwise taken.
        network: The network to train.
        optimizer: Its optimizer; a new learning rate means new graphs.
        batch_size: Number of images in a step.
        num_steps: How many steps a graph has; what is left of a block then has graphs of one step,
            and a smaller last minibatch its own.
        notify: Called with a line that says why there is no graph.
    """

    steps: Callable[..., tuple[Tensor, Tensor]]
    plainly: Steps
    count: Callable[[int], None]
    network: nn.Module
    optimizer: Optimizer
    batch_size: int
    num_steps: int
    notify: Callable[[str], None]
    failed: bool = field(default=False, init=False)
    _recorded: dict[torch.Size, _Recording] = field(default_factory=dict, init=False)
    _settings: Any = field(default=None, init=False)

    # Settings of the optimizer that are among the arguments of the steps.
    _given: ClassVar[tuple[str, ...]] = ()

    def heed_changes(self) -> None:
        """Forget the graphs if anything that they fix has changed; takes about a millisecond."""
        if self._recorded and self._settings != self._settings_now():
            self._recorded.clear()

    def train(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a block, or a part of one; return its mean loss and all its outputs.

        Since ``heed_changes``, only the steps themselves may have changed anything.
        """
        if self.failed:
            return self.plainly(images, targets)
        sizes = self._sizes(images)
        parts = zip(torch.split(images, sizes), torch.split(targets, sizes), strict=True)
        return together([self._part(*part) for part in parts])

    def _sizes(self, images: Tensor) -> list[int]:
        """Divide a block: whole graphs, single steps, and a smaller last minibatch."""
        single = self.batch_size
        whole = self.num_steps * single
        is_recorded = images[:single].shape in self._recorded
        # The first step of all may only create the optimizer's state.
        num_first = 0 if is_recorded else min(2, len(images) // single)
        num_whole, rest = divmod(len(images) - num_first * single, whole)
        num_single, last = divmod(rest, single)
        singles = [single] * num_single + [last] * bool(last)
        return [single] * num_first + [whole] * num_whole + singles

    def _part(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on images that have one graph."""
        if self.failed:
            return self.plainly(images, targets)
        results = self._take(images, targets)
        self.count(self._num_steps(images))
        return results

    def _num_steps(self, images: Tensor) -> int:
        return math.ceil(len(images) / self.batch_size)

    def _take(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Replay the graph for such inputs, or record it."""
        recorded = self._recorded.get(inputs[0].shape)
        if recorded is None:
            return self._first(*inputs)
        for static, given in zip(recorded.inputs, inputs, strict=True):
            static.copy_(given)
        recorded.graph.replay()
        loss, outputs = recorded.results
        return loss.clone(), outputs.clone()

    def _first(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take steps plainly, and record a graph of the same steps."""
        device = inputs[0].device
        before, numbers = self._state(), torch.cuda.get_rng_state(device)
        try:
            # PyTorch also requires such a warm-up before recording.
            plainly = self._on_another_stream(*inputs)
        except RuntimeError as error:
            # Steps that synchronise cannot be recorded. What the optimizer has created in the
            # failed steps must not be kept.
            if not any(isinstance(name, tuple) for name in before):
                self.optimizer.state.clear()
            self._restore(before)
            torch.cuda.set_rng_state(numbers, device)
            self._give_up(_reason(error))
            return self._not_recorded(*inputs)
        after, numbers_after = self._state(), torch.cuda.get_rng_state(device)
        if any(tensor.device != device for tensor in after.values()):
            # A replay does not update what lies elsewhere, such as an optimizer's count of steps.
            self._give_up("not all of the state that a step changes is on the GPU")
            return plainly
        if after.keys() != before.keys():
            # The first step, in which the optimizer creates its tensors, is unlike the others.
            return plainly

        def start_over() -> None:
            self._restore(before)
            torch.cuda.set_rng_state(numbers, device)

        try:
            start_over()
            self._record(*inputs)
            deviation = self._deviation(before, after)
            if max(deviation) > _TOLERANCE:
                start_over()
                self.steps(*inputs)
                self._require_rounding(deviation, self._deviation(before, after))
            self._restore(after)
            torch.cuda.set_rng_state(numbers_after, device)
            self._require_effect_of_inputs(inputs[0].shape)
        except RuntimeError as error:
            finite = all(torch.isfinite(after[name]).all() for name in self._weights())
            self._give_up(_reason(error) if finite else "the weights are not finite")
            self._restore(after)
            _renew_generator(numbers_after, device)
        return plainly

    def _not_recorded(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take the steps whose recording has failed."""
        return self.steps(*inputs)

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
        self._settings = self._settings_now()
        static = tuple(given.clone() for given in inputs)
        graph = torch.cuda.CUDAGraph()
        # Some versions of PyTorch leave their stream in place if recording fails.
        current = torch.cuda.stream(torch.cuda.current_stream())
        with self._capturable(), _garbage_kept(), current, torch.cuda.graph(graph):
            results = self.steps(*static)
        self._recorded[inputs[0].shape] = _Recording(graph, static, results)
        graph.replay()
        torch.cuda.synchronize(inputs[0].device)

    def _require_effect_of_inputs(self, shape: torch.Size) -> None:
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
        self.failed = True
        self._recorded.clear()
        self.optimizer.zero_grad()
        self.notify(f"CUDA graph disabled (slower): {reason}")

    def _settings_now(self) -> Any:
        """Return what graphs fix but Python might change."""
        groups = [
            {name: value for name, value in group.items() if name not in ("params", *self._given)}
            for group in self.optimizer.param_groups
        ]
        modules = [
            # The last one shows settings such as the probability of dropout.
            (module.training, *map(len, _hooks(module)), module.extra_repr())
            for module in self.network.modules()
        ]
        weights = [
            (weight.requires_grad, len(weight._backward_hooks or ()))
            for weight in self.network.parameters()
        ]
        # A graph reads and writes memory, whatever Python may have put in its place.
        tensors = self._tensors()
        places = {name: tensor.data_ptr() for name, tensor in tensors.items()}
        device = next(iter(tensors.values())).device.type
        precision = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        return groups, modules, weights, places, precision

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

    def _deviation(self, before: dict[object, Tensor], after: dict[object, Tensor]) -> list[float]:
        """Return how far the current state is from ``after``, relative to the way from ``before``.

        One number for the weights and for each kind of buffer and of optimizer state, which change
        on different scales: infinity if the way was half or twice as long.
        """
        now = self._state()
        kinds: dict[str, list[object]] = {"weights": list(self._weights())}
        for name in after.keys() - {*kinds["weights"]}:
            kind = name[1] if isinstance(name, tuple) else str(name).rpartition(".")[2]
            kinds.setdefault(kind, []).append(name)

        def distance(names: list[object], one: Any, other: Any) -> float:
            parts = [(one[name] - other[name]).double().flatten() for name in names]
            return float(torch.linalg.vector_norm(torch.cat(parts)))

        found = []
        for names in kinds.values():
            way, wanted = distance(names, now, before), distance(names, after, before)
            # Not so if anything is NaN.
            is_usual = wanted / 2 <= way <= wanted * 2
            far = distance(names, now, after) / (wanted or 1.0)
            found.append(far if is_usual else math.inf)
        return found

    @staticmethod
    def _require_rounding(deviation: list[float], of_plain_steps: list[float]) -> None:
        """Raise RuntimeError if a graph deviates by more than rounding explains."""
        for one, plain in zip(deviation, of_plain_steps, strict=True):
            if one > max(_TOLERANCE, _TIMES_ROUNDING * min(plain, 1.0)):
                raise RuntimeError("it gave different weights from plain steps")


@dataclass(eq=False)
class GraphedStepsAtRates(GraphedSteps):
    """Graphed steps whose learning rate, their third argument, changes, maybe at every step.

    Args:
        schedulers: Those to be stepped after every step; they may change nothing but the learning
            rate. ``plainly`` steps them itself.
    """

    schedulers: Sequence[Any] = ()

    _given: ClassVar[tuple[str, ...]] = ("lr",)

    def _not_recorded(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        images, targets, rates = inputs
        # Numbers, as it may be tensors that the optimizer does not take.
        return self.steps(images, targets, rates.tolist())

    def _part(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on images that have one graph."""
        if self.failed:
            return self.plainly(images, targets)
        groups, rates = self.optimizer.param_groups, []
        with warnings.catch_warnings():
            # PyTorch expects the optimizer's step before the scheduler's.
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(self._num_steps(images)):
                rates.append([group["lr"] for group in groups])
                for scheduler in self.schedulers:
                    scheduler.step()
        after = [group["lr"] for group in groups]
        # Fused optimizers take nothing else, and 64-true changes the default.
        given = torch.tensor(rates, dtype=torch.float32).to(images.device, non_blocking=True)
        try:
            results = self._take(images, targets, given)
        finally:
            # The steps leave the tensors of the last one there.
            for group, rate in zip(groups, after, strict=True):
                group["lr"] = rate
        self.count(self._num_steps(images))
        return results

    def _require_effect_of_inputs(self, shape: torch.Size) -> None:
        """Check that nothing moves at a rate of zero: the graph may hold the rates as numbers.

        The first replay does not show that: its rates are those that were recorded.
        """
        recorded = self._recorded[shape]
        rates = recorded.inputs[2]
        after, numbers_after = self._state(), torch.cuda.get_rng_state(rates.device)
        rates.zero_()
        recorded.graph.replay()
        now = self._state()
        self._restore(after)
        torch.cuda.set_rng_state(numbers_after, rates.device)
        if not all(torch.equal(now[name], after[name]) for name in self._weights()):
            raise RuntimeError("it takes no learning rate that changes at every step")


@contextmanager
def _garbage_kept() -> Iterator[None]:
    """Collect no garbage meanwhile: freeing a graph of an earlier run would end the recording."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _hooks(module: nn.Module) -> Iterator[Any]:
    yield module._forward_hooks
    yield module._forward_pre_hooks
    yield module._backward_hooks
    yield module._backward_pre_hooks


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
