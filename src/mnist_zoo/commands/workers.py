"""Where the runs of a sweep are made: each in a process of its own, here or on a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from mnist_zoo.commands import sweep_run
from mnist_zoo.commands.sweep_run import OnEpoch, Run
from mnist_zoo.errors import ZooError


class Workers(Protocol):
    """Makes runs, several at a time where it is called by several threads."""

    def make(self, run: Run, on_epoch: OnEpoch) -> dict[str, Any]:
        """Make a run and return its record, be it finished or crashed."""

    def stop(self, at_once: bool) -> None:
        """End the runs that are going on; called again until they have ended.

        Args:
            at_once: Whether they are not even to write down how far they are.
        """


class Processes:
    """Makes runs on this machine.

    Args:
        runs: The folder of the runs.
        jobs: How many are made at a time, and share the cores.
    """

    def __init__(self, runs: Path, jobs: int = 1) -> None:
        self.runs = runs
        self._asked: list[BaseProcess] = []
        # Otherwise each would start as many threads as there are cores.
        self.num_threads = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else None

    def make(self, run: Run, on_epoch: OnEpoch) -> dict[str, Any]:
        """Make a run in a process of its own."""
        ended = _in_own_process(
            _make, run, self.runs, self.num_threads, on_message=lambda told: on_epoch(*told)
        )
        return ended if isinstance(ended, dict) else run.crashed(f"its process ended with {ended}")

    def stop(self, at_once: bool) -> None:
        """Have each run write its last checkpoint and end, as ``fit`` does when it is stopped."""
        for process in multiprocessing.active_children():
            if at_once:
                process.kill()
            elif process not in self._asked:
                process.terminate()
                self._asked.append(process)


class Cluster:
    """Makes runs as tasks on a Ray cluster, each in a process of its own.

    The records come back here; the folder of a run stays on the machine that made it.

    Args:
        runs: The folder of the runs, the same on every machine.
        address: ``auto`` for the cluster that this machine belongs to, ``local`` for one on this
            machine that ends with the sweep, or where the head of a cluster is.
        num_cpus: CPU cores that a run is given; as many threads as it may use.
        num_gpus: GPUs that a run is given; 0.5 lets two runs share one.

    Raises:
        ZooError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, runs: Path, address: str, num_cpus: float, num_gpus: float) -> None:
        # Ray reports how it is used unless told not to.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if address == "local":
            # What Ray does by itself on other systems than Linux: nothing listens but on loopback.
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
        # One task a process, never repeated: a run that takes its process with it is recorded.
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
        """Leave the cluster, which ends the tasks at once: they go on from their last epoch."""
        import ray

        ray.shutdown()


def _require_listening(address: str) -> None:
    """Find out in seconds what Ray would try for minutes.

    Raises:
        ZooError: The address is of a host and a port, and nothing answers there.
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
    """Try the recipes and flags of runs without training, in a process of its own.

    Raises:
        ZooError: One of them is wrong.
    """
    ended = _in_own_process(_check, runs) if runs else 0
    if ended != 0:
        raise ZooError(
            ended if isinstance(ended, str) else f"a run fails before training: status {ended}."
        )


def _in_own_process(target: Any, *args: Any, on_message: Any = None) -> Any:
    """Return what a function sends last from a process of its own, its exit status if nothing.

    Tuples that it sends before are handed to ``on_message``.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*args, sender))
    try:
        with _ctrl_c_held_back():
            process.start()
        # Held by the child alone, the pipe closes with it, however it ends.
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
    """Have processes that are started leave Ctrl-C to the sweep from their first moment on.

    It would end one that is still importing, with a traceback, and as a run that has crashed.
    """
    import signal
    from multiprocessing import resource_tracker

    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield
        return
    # Started with the first process, it would let Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make(run: Run, runs: Path, num_threads: int | None, sender: Connection) -> None:
    _end_with_the_sweep()
    if num_threads:
        # Before torch is imported, and unless the user has said how many.
        os.environ.setdefault("OMP_NUM_THREADS", str(num_threads))
    sender.send(sweep_run.make(run, runs, lambda done, of: sender.send((done, of))))


def _check(runs: Sequence[Run], sender: Connection) -> None:
    _end_with_the_sweep()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
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
