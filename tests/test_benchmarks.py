"""The benchmarks that need a GPU, tried out on a CPU: they use what no other test does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.parametrize(
    ("script", "flags", "measured"),
    [
        ("accelerator", ["--steps=20"], "ms"),
        ("records_on_gpu", ["--only=short.yaml"], "seconds"),
    ],
)
def test_it_measures_and_writes(script, flags, measured, mnist_root, tmp_path):
    (tmp_path / "short.yaml").write_text(
        "model: Dense\ndata: MNIST\ntrainer: {max_epochs: 1, limit_train_batches: 20}\n"
    )
    command = [sys.executable, BENCHMARKS / f"{script}.py", "--accelerator=cpu", "--rounds=1"]
    files = [f"--root={mnist_root}", "--json=found.json"]
    done = subprocess.run(
        [*command, *flags, *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["device"] == "cpu"
    assert found[measured]
