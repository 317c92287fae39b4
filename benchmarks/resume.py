"""Kill `mnist-zoo fit` at random moments, resume it, and compare the weights at the end.

    python benchmarks/resume.py --kills 20

Two runs on the built-in digits, one like S6 (dropout) and one with augmentation, momentum
and a scheduler. Each is made once without interruption; then again, killed by SIGKILL, SIGTERM or
SIGINT shortly after a random step, resumed from its last.ckpt, killed again, and so on. The number
of weights that differ at the end must be 0.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common
import torch
from common import facts, write

RUNS = {
    "S6-like": ["--model=ConvNetDropout", "--model.lr=0.03", "--data.num_train=500"],
    "augmented": [
        "--model=ConvNetReLU", "--model.lr=0.05", "--model.optimizer_args={momentum: 0.9}",
        "--model.scheduler=OneCycleLR", "--data.rotation=10", "--data.scale=0.1",
        "--data.shift=2", "--data.elastic=0.5", "--data.num_train=1300",
    ],
}  # fmt: skip
COMMON = [
    "--data=Digits", "--data.expanded=true", "--data.val_size=100",
    "--trainer.max_epochs=12", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
    "--steps_per_execution=8", "--last.every_n_train_steps=50",
]  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "mnist_zoo", "fit", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def last(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*/version_*/checkpoints/last.ckpt"))), None)


def steps_of(folder: Path) -> int:
    """Return the number of steps in a run's checkpoint."""
    found = last(folder)
    return int(torch.load(found, weights_only=True)["global_step"]) if found else 0


def go_on(folder: Path, flags: list[str]) -> subprocess.Popen[bytes]:
    """Start a run, or resume it if it has been started."""
    found = last(folder)
    if found is None:
        return start(*flags, *COMMON, f"--trainer.default_root_dir={folder}")
    return start(f"--ckpt_path={found}", "--trainer.enable_progress_bar=false")


def kill_at(target: int, folder: Path, flags: list[str], rng: random.Random) -> str:
    """Resume a run, and kill it shortly after its checkpoint has passed a step."""
    how = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    process = go_on(folder, flags)
    while process.poll() is None and steps_of(folder) < target:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.3))
    if process.poll() is not None:
        return f"ended before {target}"
    os.killpg(process.pid, how)
    process.wait()
    return f"{how.name[3:]}@{steps_of(folder)}"


def main() -> None:
    parser = common.parser("resume", __doc__, rounds=None)
    parser.add_argument("--kills", type=int, default=20, help="in both runs together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=RUNS)
    arguments = parser.parse_args()
    # A shell makes background jobs ignore Ctrl-C, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(arguments.seed)
    results: list[dict[str, Any]] = []
    for name, flags in RUNS.items():
        if arguments.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            whole, killed = Path(folder, "whole"), Path(folder, "killed")
            go_on(whole, flags).wait()
            num_steps = steps_of(whole)
            targets = sorted(rng.randrange(num_steps - 50) for _ in range(arguments.kills // 2))
            kills = [kill_at(target, killed, flags, rng) for target in targets]
            go_on(killed, flags).wait()
            one, other = (torch.load(last(f), weights_only=True) for f in (whole, killed))  # type: ignore[arg-type]
            pairs = zip(one["state_dict"].values(), other["state_dict"].values(), strict=True)
            different = sum(int((a != b).sum()) for a, b in pairs)
            results.append(
                {
                    "run": name,
                    "kills": kills,
                    "by_signal": Counter(k.partition("@")[0] for k in kills if "@" in k),
                    "steps": num_steps,
                    "differing_weights": different,
                }
            )
            print(
                f"{name}: killed {' '.join(kills)}; {num_steps} and {other['global_step']} steps,"
                f" {len(list(killed.glob('*/version_*')))} folder(s), {different} weights differ",
                flush=True,
            )
    write(arguments.json, facts(threads=1) | {"seed": arguments.seed, "results": results})
    sys.exit(any(result["differing_weights"] for result in results))


if __name__ == "__main__":
    main()
