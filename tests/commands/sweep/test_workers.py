"""The processes in which runs are made."""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mnist_zoo.commands.sweep import workers


class Sender:
    def send(self, message):
        self.message = message


@pytest.mark.parametrize(
    ("jobs", "said", "num_threads"),
    [(1, None, None), (2, None, "4"), (16, None, "1"), (2, "3", "3")],
)
def test_runs_at_a_time_share_the_cores(monkeypatch, tmp_path, jobs, said, num_threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(8)}, raising=False)
    monkeypatch.setattr(workers, "_end_with_the_sweep", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", said or "")  # put back in the end, whatever is set here
    if not said:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(
        workers.sweep_run, "make", lambda *_: {"threads": os.environ.get("OMP_NUM_THREADS")}
    )
    sender = Sender()
    workers._make_and_tell(None, tmp_path, workers.Processes(tmp_path, jobs).num_threads, 0, sender)
    assert sender.message == {"threads": num_threads}


@pytest.mark.parametrize(
    ("count", "visible", "seen"),
    [
        (0, None, [None] * 3),
        (1, None, [None] * 3),
        (1, "3", ["3"] * 3),
        (2, None, ["0", "1", "0"]),
        (2, "5, 7", ["5", "7", "5"]),
        (2, "0,1,-1,3", ["0", "1", "0"]),
    ],
)
def test_runs_at_a_time_divide_the_gpus(monkeypatch, count, visible, seen):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for number, name in enumerate(seen):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        workers._take_a_gpu(number)
        assert os.environ.get("CUDA_VISIBLE_DEVICES") == name


def test_runs_at_a_time_have_different_numbers(monkeypatch, tmp_path):
    together = threading.Barrier(3)
    numbers = []

    def in_own_process(target, run, runs, num_threads, number, on_message):
        numbers.append(number)
        together.wait(60)
        if run == "crashes":
            raise OSError
        return {}

    monkeypatch.setattr(workers, "_in_own_process", in_own_process)
    processes = workers.Processes(tmp_path, jobs=3)
    for run in ("crashes", "succeeds"):
        with ThreadPoolExecutor(3) as pool:
            made = [pool.submit(processes.make, run, None) for _ in range(3)]
        assert sorted(numbers) == [0, 1, 2]
        assert all(bool(one.exception()) is (run == "crashes") for one in made)
        numbers.clear()


@pytest.fixture
def targets(tmp_path, monkeypatch):
    """Functions that a new process can import."""
    (tmp_path / "targets_of_workers.py").write_text(
        "import os, signal, time\n\n\n"
        "def killed(sender):\n"
        "    sender.send((3, 60))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n\n\n"
        "def lasting(sender):\n"
        "    sender.send((3, 60))\n"
        "    time.sleep(120)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("targets_of_workers")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signal")
def test_of_a_killed_process_the_signal_is_what_is_told(targets):
    progress = []
    told = workers._in_own_process(targets.killed, on_message=progress.append)
    assert told == -signal.SIGKILL
    assert progress == [(3, 60)]


def test_a_process_ends_with_the_command_that_waits_for_it(targets):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers._in_own_process(targets.lasting, on_message=interrupt)
    for process in multiprocessing.active_children():
        process.join(60)
    assert not multiprocessing.active_children()
