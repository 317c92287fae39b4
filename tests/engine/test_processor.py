"""Settings of the processor and of the C library, in processes of their own."""

import subprocess
import sys

import pytest
import torch

from mnist_zoo.engine import processor

FAULTS_OF_LARGE_TENSORS = """
import resource, torch
from mnist_zoo.engine import processor

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        # As in a step: all of them live at once, and are then freed.
        kept = [torch.ones(2**21) for _ in range(8)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
before = faults()
processor.keep_freed_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_used_again_without_asking_the_system():
    code = [sys.executable, "-c", FAULTS_OF_LARGE_TENSORS]
    out = subprocess.run(code, capture_output=True, text=True, check=True).stdout
    before, after = map(int, out.split())
    if before < 1000:
        pytest.skip("this C library keeps freed memory anyway")
    assert after < before / 10


@pytest.mark.parametrize(
    ("machine", "units", "emulates"),
    [("x86_64", [False, False], True), ("x86_64", [False, True], False), ("arm64", [], False)],
)
def test_bfloat16_is_slow_without_units_for_it(monkeypatch, machine, units, emulates):
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for name, has in zip(names, units, strict=False):
        monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)
    assert processor.emulates_bfloat16() is emulates
