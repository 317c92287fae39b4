"""mnist-zoo: the published MNIST networks, trained, tested and compared from one place.

Importing the package is cheap: torch is imported only when a network is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_zoo.models.checkpoint import load as load
    from mnist_zoo.registry import list_models as list_models

    __version__: str

__all__ = ["__version__", "list_models", "load"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mnist-zoo")
    if name == "list_models":
        from mnist_zoo.registry import list_models

        return list_models
    if name == "load":
        from mnist_zoo.models.checkpoint import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
