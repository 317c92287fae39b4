"""The processes in which runs are made."""

import importlib
import multiprocessing
import os
import signal
import sys

import pytest

from mnist_zoo.commands.sweep import workers


class Sender:
    def send(self, message):
        self.message = message


@pytest.mark.parametrize(
    ("jobs", "said", "num_threads"),
    [(1, None, None), (2, None, "4"), (16, None, "1"), (2, "3", "3")],
)
def test_runs_at_a_time_share_the_cores(monkeypatch, tmp_path, jobs, said, num_threads):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(workers, "_end_with_the_sweep", lambda: None)
    monkeypatch.setenv("OMP_NUM_THREADS", said or "")  # put back in the end, whatever is set here
    if not said:
        monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(
        workers.sweep_run, "make", lambda *_: {"threads": os.environ.get("OMP_NUM_THREADS")}
    )
    sender = Sender()
    workers._make_and_tell(None, tmp_path, workers.Processes(tmp_path, jobs).num_threads, sender)
    assert sender.message == {"threads": num_threads}


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
