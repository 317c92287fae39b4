"""What every figure is recorded with: versions, device and date."""

from __future__ import annotations

import contextlib
import platform
import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def versions() -> dict[str, str]:
    """Return the versions that a figure depends on."""
    import lightning
    import torch

    from mnist_zoo import __version__

    return {
        "mnist-zoo": __version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": platform.python_version(),
    }


def device_name(device: torch.device) -> str:
    """Return the name of a device's processor or accelerator."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if match := re.search(r"^model name\s*: (.+)$", cpu, flags=re.M):
            return match[1]
    if platform.system() == "Darwin":
        asked = ("sysctl", "-n", "machdep.cpu.brand_string")
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.check_output(asked, text=True).strip()
    return platform.processor() or platform.machine()


def today() -> str:
    """Return the date, the same all over the world."""
    return datetime.now(timezone.utc).date().isoformat()
