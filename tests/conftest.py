"""What the tests share: the real MNIST, the command line, and who is skipped where."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from mnist_zoo import registry

REPOSITORY = Path(__file__).parents[1]
# What would let a test depend on where it runs, or on the tests before it.
_LEFT_OUT = ("MNIST_ZOO_DATA", "MNIST_ZOO_RUN", "LOCAL_RANK", "FORCE_COLOR", "PYTHONPATH")

Zoo = Callable[..., subprocess.CompletedProcess[str]]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked ``gpu`` where there is no GPU."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU, and torch finds none")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Keep the small networks of the tests, and tests run in parallel, from fighting for cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Let signals interrupt that pytest was started to ignore, as by ``&`` in a script or nohup."""
    handlers = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    numbers = {getattr(signal, name, None): handler for name, handler in handlers.items()}
    before = {n: signal.signal(n, handler) for n, handler in numbers.items() if n is not None}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """Folder with the real MNIST, for ``--data.root``; without it the test is skipped."""
    candidates = [REPOSITORY.parent / "shared" / "data", REPOSITORY / "data"]
    if given := os.environ.get("MNIST_ZOO_DATA"):
        candidates.insert(0, Path(given).expanduser().absolute())
    for root in candidates:
        if (root / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
            return root
    pytest.skip(
        f"no MNIST/raw/train-images-idx3-ubyte in {' or '.join(map(str, candidates))};"
        " download it by: mnist-zoo fit --model Dense --trainer.fast_dev_run true,"
        " or name the folder that has it by MNIST_ZOO_DATA"
    )


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """Run the command line as a user types it, in a process of its own.

    ``zoo("fit", "--model", "ConvNetReLU", cwd=folder, env={...}, timeout=seconds)`` returns what
    came out as text. ``cwd`` is ``tmp_path`` unless given; ``env`` is added to the environment.
    """

    def run(
        *arguments: str | Path,
        cwd: Path = tmp_path,
        env: dict[str, str] | None = None,
        timeout: float = 900,
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in _LEFT_OUT}
        environment |= {
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "OMP_NUM_THREADS": "1",
            # Like the installed script, and unlike `python -m`: no current folder in sys.path.
            "PYTHONSAFEPATH": "1",
            **(env or {}),
        }
        return subprocess.run(
            [sys.executable, "-m", "mnist_zoo", *map(str, arguments)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=timeout,
        )

    return run


@pytest.fixture
def plugins(monkeypatch):
    """Declare networks as installed packages do: name = module:Class."""

    def declare(**networks):
        entry_points = [
            EntryPoint(name, value, registry.PLUGIN_GROUP) for name, value in networks.items()
        ]
        monkeypatch.setattr(registry, "plugins", lambda: entry_points)

    return declare


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, whose files may be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    registry.look_into_current_folder()
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)
