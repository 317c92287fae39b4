"""Settings of a process with which a CPU trains faster."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import sys
from collections.abc import Iterator

import torch
from lightning import Trainer

# Parameters of glibc's mallopt, and the highest threshold that all its versions accept.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_CHUNK = 32 * 1024**2
_NEVER = 2**31 - 1


@contextlib.contextmanager
def flush_denormals() -> Iterator[None]:
    """Have the CPU flush numbers below 1.2e-38 to zero.

    Weights that decay towards zero end up there, and make a step take five times as long. Threads
    of torch inherit the setting from the one that starts them, so this comes before all work.
    """
    before = bool(torch.tensor(1e-38) / 10 == 0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def slow_precision(trainer: Trainer) -> str:
    """Return a line of advice if the processor is slow in the precision asked for, else nothing."""
    half = trainer.precision in ("bf16-mixed", "bf16-true")
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if half and on_cpu and emulates_bfloat16():
        return "This processor is slow in bfloat16: --trainer.precision 32-true is faster."
    return ""


def emulates_bfloat16() -> bool:
    """Whether this is an x86 processor without instructions for bfloat16, which is slow there."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    known = [getattr(torch.cpu, unit)() for unit in units if hasattr(torch.cpu, unit)]
    return bool(known) and not any(known)


def keep_freed_memory() -> None:
    """Have the C library keep the memory of freed tensors for the next, until the process ends.

    By default, glibc returns it to the system after a step of many images, and the system fills it
    with zeros for the next: about a quarter of the time. Other C libraries are left as they are.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_CHUNK)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
