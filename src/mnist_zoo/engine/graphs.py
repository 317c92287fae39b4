"""A block of steps as one CUDA graph: recorded once, then replayed by a single call.

With ten images a step, a GPU spends most of its time waiting for the CPU to start the next kernel.
A graph starts all kernels of a block at once, with the same numbers in the same order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Steps = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Trains on the images and targets of a block; returns its mean loss and all its outputs."""

# Of the length of a block's change to the weights; kernels that add in no fixed order stay far
# below, a wrong replay far above.
_TOLERANCE = 0.01


class GraphedSteps:
    """Steps that are replayed as a CUDA graph, or taken one by one where that cannot be.

    The first block is trained on both ways, from the same state: a graph that does not lead to the
    same weights is never used. Blocks of another shape than the first, such as the last of an
    epoch, are trained on plainly; so is everything once a graph has failed.

    Args:
        steps: What is to be replayed: the work of the GPU alone, its numbers depending on nothing
            but the network, the optimizer and its two arguments.
        network: What it trains.
        optimizer: What it trains with; a new learning rate is a new graph.
        notify: Is told in a line why there is no graph.
    """

    def __init__(
        self, steps: Steps, network: nn.Module, optimizer: Optimizer, notify: Callable[[str], None]
    ) -> None:
        self.steps = steps
        self.network = network
        self.optimizer = optimizer
        self.notify = notify
        self.failed = False
        self.graph: torch.cuda.CUDAGraph | None = None
        self._recorded_for: tuple[torch.Size, list[float]] | None = None
        self._inputs: tuple[Tensor, Tensor]
        self._results: tuple[Tensor, Tensor]

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a block; return its mean loss and all its outputs."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        shape = self._recorded_for[0] if self._recorded_for else images.shape
        if self.failed or images.shape != shape:
            return self.steps(images, targets)
        if self.graph is None or self._recorded_for != (shape, rates):
            self._recorded_for = shape, rates
            return self._first(images, targets)
        for static, given in zip(self._inputs, (images, targets), strict=True):
            static.copy_(given)
        self.graph.replay()
        loss, outputs = self._results
        return loss.clone(), outputs.clone()

    def _first(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Train on a block plainly, then once more from the same state by a new graph."""
        before, numbers = self._state(), torch.cuda.get_rng_state(images.device)
        # Also what PyTorch asks for: libraries are to be warm before anything is recorded, and
        # the optimizer's own tensors in their places.
        plainly = self._on_another_stream(images, targets)
        after = self._state()
        try:
            self._restore(before)
            torch.cuda.set_rng_state(numbers, images.device)
            self._inputs = images.clone(), targets.clone()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._results = self.steps(*self._inputs)
            self.graph.replay()
            torch.cuda.synchronize(images.device)
            if self._same(before, after):
                loss, outputs = self._results
                return loss.clone(), outputs.clone()
            reason = "it leads to other weights than plain steps do"
        except RuntimeError as error:
            reason = next(iter(str(error).splitlines()), "no reason given")
        self.failed, self.graph = True, None
        self.notify(f"Steps are not replayed as a CUDA graph, which is slower: {reason}")
        self.optimizer.zero_grad()
        self._restore(after)
        return plainly

    def _on_another_stream(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        main, other = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        other.wait_stream(main)
        with torch.cuda.stream(other):
            results = self.steps(images, targets)
            # The graph makes its own, in memory of its own.
            self.optimizer.zero_grad()
        main.wait_stream(other)
        return results

    def _tensors(self) -> dict[object, Tensor]:
        """Return everything that a step changes."""
        found: dict[object, Tensor] = dict(self.network.state_dict(keep_vars=True).items())
        for number, state in enumerate(self.optimizer.state.values()):
            found |= {(number, k): v for k, v in state.items() if isinstance(v, Tensor)}
        return found

    def _state(self) -> dict[object, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def _restore(self, state: dict[object, Tensor]) -> None:
        for name, tensor in self._tensors().items():
            # What an optimizer adds at its first step starts from nothing.
            tensor.copy_(state[name]) if name in state else tensor.zero_()

    def _same(self, before: dict[object, Tensor], after: dict[object, Tensor]) -> bool:
        """Whether the state now is ``after`` but for rounding, as measured by the change to it."""
        now = self._state()
        weights = [name for name, _ in self.network.named_parameters()]

        def distance(one: dict[object, Tensor], other: dict[object, Tensor]) -> Tensor:
            parts = [(one[name] - other[name]).float().flatten() for name in weights]
            length: Tensor = torch.linalg.vector_norm(torch.cat(parts))
            return length

        return bool(distance(now, after) <= _TOLERANCE * distance(after, before))
