"""Where a sweep makes its runs: each in its own process, here or on a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from mnist_zoo.commands.sweep import run as sweep_run
from mnist_zoo.commands.sweep.plan import Run
from mnist_zoo.commands.sweep.run import OnEpoch
from mnist_zoo.errors import ZooError


class Workers(Protocol):
    """Makes runs; several at a time if called from several threads."""

    def make(self, run: Run, on_epoch: OnEpoch) -> dict[str, Any]:
        """Make a run and return its record, whether it finished or crashed."""

    def stop(self, at_once: bool) -> None:
        """End the current runs; called repeatedly until they have ended.

        Args:
            at_once: Whether to end them without writing their checkpoints.
        """


class Processes:
    """Makes runs on this machine.

    Args:
        runs: The folder of the runs.
        jobs: How many are made at a time, sharing the cores, and dividing the GPUs.
    """

    def __init__(self, runs: Path, jobs: int = 1) -> None:
        self.runs = runs
        self._asked: list[BaseProcess] = []
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(jobs):
            self._free.put(number)
        # By default, each would start as many threads as there are cores to use.
        self.num_threads = max(1, _num_cores() // jobs) if jobs > 1 else None

    def make(self, run: Run, on_epoch: OnEpoch) -> dict[str, Any]:
        """Make a run in its own process."""
        number = self._free.get()
        try:
            ended = _in_own_process(
                _make_and_tell,
                run,
                self.runs,
                self.num_threads,
                number,
                on_message=lambda told: on_epoch(*told),
            )
        finally:
            self._free.put(number)
        return ended if isinstance(ended, dict) else run.crashed(f"its process ended with {ended}")

    def stop(self, at_once: bool) -> None:
        """Have each run write its last checkpoint and end, as a stopped ``fit`` does."""
        for process in multiprocessing.active_children():
            if at_once:
                process.kill()
            elif process not in self._asked:
                process.terminate()
                self._asked.append(process)


class Cluster:
    """Makes runs as tasks on a Ray cluster, each in its own process.

    The records are returned here; a run's folder stays on the machine that made it.

    Args:
        runs: The folder of the runs, with the same path on every machine.
        address: ``auto`` for the cluster that this machine belongs to, ``local`` for one on this
            machine that ends with the sweep, or the address of a cluster's head.
        num_cpus: CPU cores per run, and the number of threads that it may use.
        num_gpus: GPUs per run; 0.5 lets two runs share one.

    Raises:
        ZooError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, runs: Path, address: str, num_cpus: float, num_gpus: float) -> None:
        # Ray collects usage statistics by default.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if address == "local":
            # Listen only on loopback, as Ray does by default on systems other than Linux.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        try:
            import ray
        except ImportError:
            raise ZooError("--ray needs the package ray: pip install 'mnist-zoo[ray]'") from None
        _require_listening(address)
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
        except Exception as error:
            reason = str(error).strip().splitlines()[:1]
            raise ZooError(f"--ray {address}: no such cluster. {' '.join(reason)}") from error
        self.runs = runs.absolute()
        # One task per process, never repeated: a run that kills its process is recorded as crashed.
        self.task: Any = ray.remote(
            num_cpus=num_cpus, num_gpus=num_gpus, max_calls=1, max_retries=0
        )(sweep_run.make)

    def make(self, run: Run, on_epoch: OnEpoch) -> dict[str, Any]:
        """Make a run wherever the cluster has room."""
        import ray

        try:
            record: dict[str, Any] = ray.get(self.task.remote(run, self.runs))
        except ray.exceptions.RayError as error:
            return run.crashed(f"{type(error).__name__}: {error}")
        return record

    def stop(self, at_once: bool) -> None:
        """Leave the cluster, which ends the tasks at once: they resume from their last epoch."""
        import ray

        ray.shutdown()


def _num_cores() -> int:
    """Return how many cores this process may use, of those that the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _require_listening(address: str) -> None:
    """Find out in seconds whether anything listens; Ray would try for minutes.

    Raises:
        ZooError: The address is a host and a port, and nothing answers there.
    """
    host, colon, port = address.partition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ZooError(f"--ray {address}: nothing answers there ({reason}).") from error


def check(runs: Sequence[Run]) -> None:
    """Try the recipes and flags of runs without training, in a separate process.

    Raises:
        ZooError: One of them is wrong.
    """
    ended = _in_own_process(_check_and_tell, runs) if runs else 0
    if ended != 0:
        raise ZooError(
            ended if isinstance(ended, str) else f"a run fails before training: status {ended}."
        )


def _in_own_process(target: Any, *args: Any, on_message: Any = None) -> Any:
    """Run a function in a new process; return what it sends last, or else its exit status.

    Tuples that it sends before are passed to ``on_message``.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*args, sender))
    try:
        with _ctrl_c_held_back():
            process.start()
        # With the child as its only holder, the pipe closes when the child ends, in any way.
        sender.close()
        while isinstance(result := receiver.recv(), tuple):
            on_message(result)
    except EOFError:
        result = None
    except BaseException:
        if process.pid:
            process.kill()
        raise
    process.join()
    return process.exitcode if result is None else result


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Have new processes leave Ctrl-C to the sweep from the very start.

    It would end one that is still importing with a traceback, and as a crashed run.
    """
    import signal
    from multiprocessing import resource_tracker

    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    # If started together with the first process, it would unblock Ctrl-C again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_and_tell(
    run: Run, runs: Path, num_threads: int | None, number: int, sender: Connection
) -> None:
    _end_with_the_sweep()
    if num_threads:
        # Before torch is imported, and unless the user has set it.
        os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))
    _take_a_gpu(number)
    sender.send(sweep_run.make(run, runs, lambda done, of: sender.send((done, of))))


def _take_a_gpu(number: int) -> None:
    """Let this process see one of several GPUs, the next for each number, before it uses any."""
    import torch

    count = torch.cuda.device_count()
    if count > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = visible if len(visible) == count else [str(n) for n in range(count)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % count].strip()


def _check_and_tell(runs: Sequence[Run], sender: Connection) -> None:
    _end_with_the_sweep()
    nowhere = Path(os.devnull).open("w", encoding="utf-8", errors="replace")  # noqa: SIM115
    os.dup2(nowhere.fileno(), 1)
    sys.stdout = nowhere
    try:
        sweep_run.check(runs)
    except ZooError as error:
        sender.send(str(error))


def _end_with_the_sweep() -> None:
    """End this process when the sweep ends, even if that is killed; leave Ctrl-C to the sweep."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sweep = multiprocessing.parent_process()
    assert sweep is not None

    def watch() -> None:
        sweep.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
