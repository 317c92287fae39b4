"""The processes in which runs are made."""

import os

import pytest

from mnist_zoo.commands import workers


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
    workers._make(None, tmp_path, workers.Processes(tmp_path, jobs).num_threads, sender)
    assert sender.message == {"threads": num_threads}
