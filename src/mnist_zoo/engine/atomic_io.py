"""How checkpoint files are written and read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from mnist_zoo.files import whole


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically, via a temporary file in the same folder.

    Lightning uses the system's temporary folder, often on another disk, where moving means copying.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; an existing file stays until the new one is complete."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole(target) as unfinished, unfinished.open("wb") as file:
            # On a full disk, torch would fail without saying so.
            content = io.BytesIO()
            torch.save(checkpoint, content)
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint; the user's callbacks take over no files outside its folder.

        They would eventually delete them.
        """
        content: dict[str, Any] = super().load_checkpoint(path, *args, **kwargs)
        folder = Path(path).resolve().parent
        for name, state in content.get("callbacks", {}).items():
            # Best and Last do this themselves.
            if "best_model_path" in state and not name.startswith(("Best{", "Last{")):
                for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = state.get(key) if _lies_in(folder, state.get(key)) else ""
                models = state.get("best_k_models", {}).items()
                state["best_k_models"] = {p: score for p, score in models if _lies_in(folder, p)}
        return content


def _lies_in(folder: Path, path: Any) -> bool:
    if not isinstance(path, str) or not path or "://" in path:
        return False
    return Path(path).resolve().is_relative_to(folder)
