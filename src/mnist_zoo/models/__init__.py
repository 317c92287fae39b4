"""The networks, one file per family, found without a list, and what they all share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mnist_zoo import registry

if TYPE_CHECKING:
    from mnist_zoo.models.classifier import Classifier as Classifier


def __getattr__(name: str) -> Any:
    if name == "Classifier":
        from mnist_zoo.models.classifier import Classifier

        return Classifier
    if name in registry.builtin_networks():
        return registry.import_class(registry.builtin_networks()[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["Classifier", *registry.builtin_networks()]
