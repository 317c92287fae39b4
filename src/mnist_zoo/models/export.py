"""Export of trained networks for other programs; each file is read back and checked.

ONNX and torch_export files take ``images``, float32 (N, 1, 28, 28) in [0, 1] for any N, and return
``probabilities``, float32 (N, 10); they include pixel normalisation and softmax.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mnist_zoo.errors import ZooError
from mnist_zoo.files import whole
from mnist_zoo.models.classifier import Classifier

OPSET = 18
TOLERANCE = 1e-4


class ExportError(ZooError):
    """A network that cannot be exported, or whose file gives other results."""


class EndToEnd(nn.Module):
    """A network with the pre- and postprocessing of ``Classifier.predict``.

    Maps images (N, 1, 28, 28) in [0, 1] to probabilities (N, 10).
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Normalise, classify, turn into probabilities."""
        network = self.network
        pixels = (images - network.pixel_mean) / network.pixel_std
        return network.probabilities(network(pixels))


def export(
    network: Classifier, kind: str, file: Path, images: Tensor, about: dict[str, Any]
) -> float:
    """Write a network, read it back, and compare the two on some images.

    Args:
        network: In evaluation mode, on the CPU.
        kind: A key of ``FORMATS``.
        file: Where to write; an existing file is replaced only if everything succeeds.
        images: float32 (N, 1, 28, 28) in [0, 1] to compare on.
        about: Metadata to store, as plain values: ``model``, ``data``, ``pixels``, ``record``,
            ``licence``. ``mnist_zoo.load`` reads all but the last.

    Returns:
        The largest difference in a probability between file and network.

    Raises:
        ExportError: The network cannot be exported, or the difference is over 1e-4.
        ZooError: The network returns NaN or infinity.
    """
    expected = network.predict(images)
    # These are weights alone.
    metadata = "" if kind == "state_dict" else _metadata(network, about)
    with whole(file) as unfinished:
        reread = FORMATS[kind](network, unfinished, metadata)
        with torch.no_grad():
            difference = float((reread(images) - expected).abs().max())
        # Written so that NaN fails, too.
        if not difference <= TOLERANCE:
            raise ExportError(
                f"the exported network differs by {difference:.2g} in a probability, over"
                f" {TOLERANCE:g}: nothing was written."
            )
    return difference


Reread = Callable[[Tensor], Tensor]


def _onnx(network: Classifier, file: Path, metadata: str) -> Reread:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the package {error.name}: pip install 'mnist-zoo[export]'"
        ) from error
    try:
        program = torch.onnx.export(
            EndToEnd(network).eval(),
            (torch.zeros(2, 1, 28, 28),),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
        )
        assert program is not None
        model = program.model_proto
    except Exception as error:  # whatever the exporter makes of a network
        raise _cannot(network, "ONNX", error) from error
    onnx.helper.set_model_props(model, {"mnist_zoo": metadata})
    onnx.checker.check_model(model)
    onnx.save(model, file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def reread(images: Tensor) -> Tensor:
        (probabilities,) = session.run(["probabilities"], {"images": images.numpy()})
        return torch.from_numpy(probabilities)

    return reread


def _torch_export(network: Classifier, file: Path, metadata: str) -> Reread:
    try:
        program = torch.export.export(
            EndToEnd(network).eval(),
            (torch.zeros(2, 1, 28, 28),),
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={"mnist_zoo": metadata})
    except Exception as error:  # whatever the exporter makes of a network
        raise _cannot(network, "torch.export", error) from error
    file.write_bytes(content.getvalue())
    # A stream, since a file name would have to end in .pt2.
    with file.open("rb") as stream:
        reread: Reread = torch.export.load(stream).module()
    return reread


def _state_dict(network: Classifier, file: Path, metadata: str) -> Reread:
    state = network.state_dict()
    # Keys like those of a plain nn.Sequential, if the network is nothing more.
    prefix = "layers." if all(key.startswith("layers.") for key in state) else ""
    # On a full disk, torch would fail without saying so.
    content = io.BytesIO()
    torch.save({key.removeprefix(prefix): value for key, value in state.items()}, content)
    file.write_bytes(content.getvalue())
    reread = torch.load(file, weights_only=True)
    return _loaded(network, {prefix + key: value for key, value in reread.items()})


def _safetensors(network: Classifier, file: Path, metadata: str) -> Reread:
    # Copies, since safetensors refuses weights that share memory.
    state = {
        key: value.clone(memory_format=torch.contiguous_format)
        for key, value in network.state_dict().items()
    }
    file.write_bytes(save(state, {"format": "pt", "mnist_zoo": metadata}))
    return _loaded(network, load_file(file))


def _loaded(network: Classifier, state: dict[str, Tensor]) -> Reread:
    """Return what such a network computes with the weights of a file, which must have them all."""
    other = copy.deepcopy(network)
    other.load_state_dict(state)
    return other.predict


FORMATS: dict[str, Callable[[Classifier, Path, str], Reread]] = {
    "onnx": _onnx,
    "torch_export": _torch_export,
    "state_dict": _state_dict,
    "safetensors": _safetensors,
}


def _metadata(network: Classifier, about: dict[str, Any]) -> str:
    """Return what is known of a network as JSON, from which it can be built again.

    Raises:
        ExportError: JSON cannot hold it: it turns keys that are numbers into words.
    """
    if not _has_words_for_keys(about):
        raise ExportError(
            f"{type(network).__name__} or its data has an argument that JSON, in which it would be"
            " stored, cannot hold.\nTake numbers, words, lists, and dicts whose keys are words."
        )
    return json.dumps(about)


def _has_words_for_keys(value: Any) -> bool:
    """Return whether plain values have no sets, and dicts only with words for keys."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and _has_words_for_keys([*value.values()])
    if isinstance(value, list | tuple):
        return all(map(_has_words_for_keys, value))
    return not isinstance(value, set)


def _cannot(network: Classifier, what: str, error: Exception) -> ExportError:
    reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
    return ExportError(f"{type(network).__name__} cannot be exported by {what}: {reason[:200]}")
