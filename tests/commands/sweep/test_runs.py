"""Runs of a sweep: made once, recorded whole, gone on with when stopped, never made twice."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from mnist_zoo.commands.sweep import command as sweep
from mnist_zoo.commands.sweep import run as sweep_run
from mnist_zoo.commands.training import command as training
from mnist_zoo.errors import ZooError
from mnist_zoo.report import events, run_records

DIGITS = ("ConvNetReLU-digits", "--trainer.accelerator", "cpu")


def test_a_run_goes_on_from_the_newest_of_its_checkpoints(tmp_path):
    assert sweep_run.last_checkpoint(tmp_path) is None
    for version, written in (("version_0", 1000), ("version_1", 3000), ("version_2", 2000)):
        file = tmp_path / "Dense" / version / "checkpoints" / "last.ckpt"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (written, written))
    newest = tmp_path / "Dense" / "version_1" / "checkpoints" / "last.ckpt"
    assert sweep_run.last_checkpoint(tmp_path) == newest


def test_a_crashed_run_is_recorded_and_made_again_next_time(tmp_path, plan, recorded):
    runs = plan(seeds=[12, 13, 14])
    for made in ([12, 13, 14], [13]):
        workers = recorded()
        one = sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs")
        one.run(workers, 1)
        assert [run.seed for run in workers.made] == made
        assert one.print_table() == 1
    (crashed,) = [r for r in run_records.read(tmp_path / "results") if r["status"] == "crashed"]
    assert crashed["reason"] == "ValueError: boom"


def test_a_run_of_another_sweep_is_neither_shown_nor_counted(tmp_path, plan, recorded):
    for seed in (13, 14):
        one = sweep._Sweep(plan(seeds=[seed]), tmp_path / "results", tmp_path / "runs")
        one.run(recorded(), 1)
    assert one.print_table() == 0
    assert [record["seed"] for record in one.records()] == [14]


@pytest.mark.parametrize(
    ("recipes", "records"),
    [(["Dense"], "results/Dense.jsonl"), (["Dense", "ConvNetReLU"], "results")],
)
def test_the_last_line_says_where_records_and_runs_lie(
    cli, tmp_path, monkeypatch, recipes, records, recorded
):
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.check", lambda runs: None)
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.Processes", lambda *_: recorded())
    out = cli("sweep", *recipes, "--seeds", "2", "--runs", "my [runs]").out
    assert out.endswith(f"\nRecords: {Path(records)}; runs: my [runs]\n")
    assert (tmp_path / records).exists()


@pytest.mark.parametrize("seconds", [-1, 600])
def test_a_long_run_says_now_and_then_in_a_file_how_far_it_is(
    tmp_path, capsys, monkeypatch, seconds, plan, recorded
):
    class Lasting(recorded):
        """Workers whose runs have two epochs behind them before they end."""

        def make(self, run, on_epoch):
            on_epoch(1, 40)
            on_epoch(2, None)
            return super().make(run, on_epoch)

    monkeypatch.setattr(sweep, "_SECONDS_BETWEEN_LINES", seconds)
    (run,) = plan(seeds=[3])
    sweep._Sweep([run], tmp_path / "results", tmp_path / "runs").run(Lasting(), 1)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith("epochs")]
    said = [f"{run.title}: 1 of 40 epochs", f"{run.title}: 2 of ? epochs"]
    assert lines == (said if seconds < 0 else [])


class Interrupted:
    """Workers that are stopped by Ctrl-C while the run of seed 1 is being made."""

    def __init__(self):
        self.working, self.stopped = threading.Event(), threading.Event()

    def make(self, run, on_epoch):
        if run.seed != 1:
            self.working.wait(60)
            raise KeyboardInterrupt
        self.working.set()
        self.stopped.wait(60)
        return run.crashed("its process ended with -9")

    def stop(self, at_once):
        if not at_once:
            raise KeyboardInterrupt  # a second time
        self.stopped.set()


def test_what_ctrl_c_stops_is_no_crashed_run(tmp_path, capsys, plan):
    one = sweep._Sweep(plan(seeds=[0, 1]), tmp_path / "results", tmp_path / "runs")
    with pytest.raises(SystemExit) as end:
        one.run(Interrupted(), 2)
    assert end.value.code == 130
    assert "The same command resumes here." in capsys.readouterr().out
    assert run_records.read(tmp_path / "results") == []


def test_a_run_that_another_sweep_is_making_is_left_to_it(tmp_path, capsys, plan, recorded):
    runs = plan(seeds=[0, 1])
    (tmp_path / "runs" / runs[0].folder).mkdir(parents=True)
    workers = recorded()
    with FileLock(tmp_path / "runs" / runs[0].folder / ".lock"):
        sweep._Sweep(runs, tmp_path / "results", tmp_path / "runs").run(workers, 1)
    assert workers.made == runs[1:]
    assert "seed 0: left to another sweep" in capsys.readouterr().out


def test_a_run_that_another_sweep_has_made_meanwhile_is_not_made_again(tmp_path, plan, recorded):
    (run,) = plan(seeds=[0])
    late, early = (sweep._Sweep([run], tmp_path / "results", tmp_path / "runs") for _ in "ab")
    workers = recorded()
    early.run(workers, 1)
    assert "in the meantime" in late._make_unless_made(run, workers)
    assert workers.made == [run]


def test_the_test_images_are_read_once_after_training(tmp_path, monkeypatch, plan):
    commands = []
    command = training.run

    def listed(words, **kwargs):
        commands.append(words)
        return command(words, **kwargs)

    monkeypatch.setattr(training, "run", listed)
    flags = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu"]
    (run,) = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0])
    outcome = sweep_run.train_and_test(run, tmp_path)
    assert [words[0] for words in commands] == ["fit", "test"]
    assert commands[1][1].endswith("checkpoints/best.ckpt")
    assert outcome["weights"] == "best"
    assert outcome["val_acc"] == max(outcome["epochs"]["val/acc"])
    assert {len(values) for values in outcome["epochs"].values()} == {2}
    assert not [tag for tag in outcome["epochs"] if "test" in tag]
    assert outcome["train_loss"] == outcome["epochs"]["train/loss"][-1]
    assert outcome["device"] == "cpu"
    assert outcome["device_name"]

    # What was trained to the end but not recorded is tested and not trained again.
    for told in (["test"], ["fit", "test"]):
        commands.clear()
        again = sweep_run.train_and_test(run, tmp_path)
        assert [words[0] for words in commands] == told
        assert {**again, "seconds": 0} == {**outcome, "seconds": 0}
        (ended,) = tmp_path.rglob(sweep_run._TRAINED)
        ended.unlink()


def test_the_accuracy_on_the_validation_images_is_that_of_the_weights_that_are_tested(
    tmp_path, plan
):
    flags = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--best.mode=min"]
    (run,) = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0])
    outcome = sweep_run.train_and_test(run, tmp_path)
    first, second = outcome["epochs"]["val/acc"]
    assert first < second
    assert outcome["val_acc"] == first
    assert outcome["num_epochs"] == 2


def test_weights_can_not_be_chosen_by_the_test_images(tmp_path, plan):
    flags = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--test_curve=true"]
    flags.append("--best.monitor=test_curve/acc")
    (run,) = plan(flags, recipes=["ConvNetReLU-digits"], seeds=[0])
    with pytest.raises(ZooError, match="test_curve/acc"):
        sweep_run.train_and_test(run, tmp_path)


@pytest.mark.slow
class TestOnDigits:
    ARGUMENTS = ("sweep", *DIGITS, "--seeds", "2", "--trainer.max_epochs", "1")

    def test_runs_are_recorded_and_only_missing_ones_are_made(self, zoo, tmp_path):
        first = zoo(*self.ARGUMENTS, "--plot", "curves.png")
        assert first.returncode == 0, first.stderr
        assert (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
        records = run_records.read(tmp_path / "results")
        assert [(r["seed"], r["status"], r["weights"]) for r in records] == [
            (0, "finished", "best"),
            (1, "finished", "best"),
        ]
        assert all(r["num_steps"] == 41 and 0 < r["test_acc"] < 1 for r in records)
        assert records[0]["test_acc"] != records[1]["test_acc"]

        file = tmp_path / "results" / "ConvNetReLU-digits.jsonl"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text(lines[1])
        again = zoo(*self.ARGUMENTS)
        assert "Runs: 2 (seeds 0 to 1); recorded already: 1" in again.stdout
        remade = {r["seed"]: r for r in run_records.read(tmp_path / "results")}
        assert remade[0]["test_acc"] == records[0]["test_acc"]
        assert remade[1] == records[1]

    def test_a_wrong_flag_ends_it_as_it_ends_fit(self, zoo, tmp_path):
        wrong = ("--model.lrr", "3")
        fit = zoo("fit", "--model", "Dense", *wrong)
        result = zoo("sweep", "Dense", *wrong)
        assert (result.returncode, result.stderr) == (fit.returncode, fit.stderr)
        assert fit.returncode == 2
        assert "Did you mean --model.lr?" in fit.stderr
        result = zoo("sweep", *DIGITS, "--model.lr", "0.1,ten")
        assert result.returncode == 2
        assert "--model.lr ten" in result.stderr
        result = zoo("sweep", *DIGITS, "--data.num_test", "99999")
        assert result.returncode == 2
        assert "--data.num_test 99999: there are only 360 test images" in result.stderr
        assert not (tmp_path / "results").exists()
        assert not (tmp_path / "runs").exists()

    def test_a_crashed_or_diverged_run_stops_no_other(self, zoo, tmp_path):
        result = zoo(
            "sweep", *DIGITS, "--seeds", "1", "--trainer.limit_train_batches", "0.0001,0.2",
            "--model.lr", "0.1,1e30", "--trainer.max_epochs", "1",
        )  # fmt: skip
        assert result.returncode == 1, result.stderr
        records = run_records.read(tmp_path / "results")
        assert sorted(r["status"] for r in records) == [
            "crashed",
            "crashed",
            "diverged",
            "finished",
        ]
        assert "crashed, DataError: --trainer.limit_train_batches 0.0001: " in result.stdout
        (diverged,) = [r for r in records if r["status"] == "diverged"]
        assert diverged["epochs"]["train/loss"] == [None]

    @pytest.mark.timeout(1500)
    def test_killed_and_started_again_it_ends_with_the_same_records(
        self, zoo, tmp_path, comparable
    ):
        arguments = ("sweep", *DIGITS, "--seeds", "2", "--trainer.max_epochs", "12")
        whole = tmp_path / "whole"
        whole.mkdir()
        assert zoo(*arguments, cwd=whole).returncode == 0

        cut = tmp_path / "cut"
        cut.mkdir()
        runs, records = cut / "runs" / "sweep", cut / "results" / "ConvNetReLU-digits.jsonl"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for seed in (0, 1):
            process = subprocess.Popen(
                [sys.executable, "-m", "mnist_zoo", *arguments],
                cwd=cut,
                env=environment,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            begun = f"*seed{seed}/*/version_0/checkpoints/last.ckpt"
            while not list(runs.glob(begun)):
                assert process.poll() is None
                time.sleep(0.01)
            if seed == 0:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                # Of the sweep alone: the process of the run is to end by itself.
                process.kill()
            process.wait()
            assert len(records.read_text().splitlines() if records.exists() else []) == seed
            for _ in range(600):
                if not (alive := processes_in(process.pid)):
                    break
                time.sleep(0.1)
            assert not alive

        result = zoo(*arguments, cwd=cut)
        assert "Runs: 2 (seeds 0 to 1); recorded already: 1" in result.stdout
        assert len(records.read_text().splitlines()) == 2
        assert comparable(cut / "results") == comparable(whole / "results")

    @pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
    @pytest.mark.usefixtures("ctrl_c")
    def test_stopped_by_ctrl_c_its_runs_lose_no_step(self, tmp_path):
        words = ("Dense", "--seeds", "1", "--data", "Digits", "--data.batch_size", "1")
        words += ("--steps_per_execution", "50")
        process = subprocess.Popen(
            [sys.executable, "-m", "mnist_zoo", "sweep", *words, "--jobs", "1"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while not list(tmp_path.glob("runs/sweep/*/*/version_0/checkpoints/last.ckpt")):
                assert process.poll() is None
                time.sleep(0.05)
            # As a terminal does: it is sent to the processes of the runs, too.
            os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        assert process.returncode == 130
        assert "Ctrl-C again stops at once." in out
        assert out.endswith("Stopped. The same command resumes here.\n")
        assert not (tmp_path / "results").exists()
        (last,) = tmp_path.glob("runs/sweep/*/*/version_0/checkpoints/last.ckpt")
        step = torch.load(last, weights_only=True)["global_step"]
        # No step, nor the time until then; it may have been stopped between two epochs.
        assert events.read_scalars(last.parents[1])["stopped"] == [(step, 1.0)]


def processes_in(session):
    """The processes of a session that are alive, by their numbers."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--sid", str(session)], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if "Z" not in line]
