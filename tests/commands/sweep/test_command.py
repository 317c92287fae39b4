"""The words of a sweep on the command line: what is refused before anything runs."""

import pytest

from mnist_zoo.commands.sweep import command as sweep
from mnist_zoo.errors import ZooError


def test_a_tilde_is_the_home_folder_as_for_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = sweep._parser().parse_args(["Dense", "--runs=~/runs", "--plot=~/a.png"])
    assert (arguments.runs, arguments.plot) == (tmp_path / "runs", tmp_path / "a.png")


def test_the_bars_show_flags_as_they_are(tmp_path):
    progress = sweep._Sweep([], tmp_path, tmp_path).progress
    progress.add_task("Dense --data.x=[/a], seed 0, epoch")
    assert str(progress.columns[0].render(progress.tasks[0])) == progress.tasks[0].description


def test_a_word_that_is_no_flag_is_refused(plan):
    with pytest.raises(ZooError, match="oops"):
        plan(["--model.lr=1", "oops"])


@pytest.mark.slow
def test_a_run_without_steps_is_refused(cli):
    error = cli("sweep", "ConvNetReLU-digits", "--trainer.max_epochs=0", status=2).err
    assert "--trainer.max_epochs 0: trains nothing" in error


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--tag=val/acc"], "--tag val/acc: draw it where?"),
        (["--tag=val/accc", "--plot=a.png"], "Did you mean val/acc?"),
        (["--plot=/proc/a.png"], "cannot write /proc/a.png: "),
        (["--ray=localhost:1"], "--ray localhost:1: nothing answers there"),
        (["--ray=local", "--jobs=2"], "--jobs is for one machine without --ray"),
        (["--cpus_per_run=3"], "--cpus_per_run and --gpus_per_run are for --ray"),
        (["--gpus_per_run=0.5"], "--cpus_per_run and --gpus_per_run are for --ray"),
    ],
)
def test_what_is_drawn_and_where_runs_are_made_is_looked_at_before_the_runs(cli, flags, text):
    if "--ray" in flags[0]:
        pytest.importorskip("ray")
    assert text in cli("sweep", "Dense", "--data=Digits", "--seeds=1", *flags, status=2).err


@pytest.mark.parametrize("content", [b"model: [", b"\xff\xfe"])
def test_a_damaged_recipe_is_an_error_in_a_line(cli, tmp_path, content):
    (tmp_path / "bad.yaml").write_bytes(content)
    assert "not valid YAML" in cli("sweep", "bad.yaml", status=2).err


def test_records_that_cannot_be_written_are_told_before_anything_runs(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.check", lambda runs: None)
    (tmp_path / "file").touch()
    for flag in ("--results", "--runs"):
        result = cli("sweep", "Dense", flag, "file", status=2)
        assert result.err.startswith("error: cannot write to file: ")
        assert result.err.endswith(f"Give another folder: {flag} FOLDER\n")


@pytest.mark.parametrize("flag", ["--results", "--runs"])
def test_a_folder_that_takes_no_files_is_told_before_anything_runs(
    cli, tmp_path, monkeypatch, fill_up, flag
):
    monkeypatch.setattr("mnist_zoo.commands.sweep.workers.check", lambda runs: None)
    (tmp_path / "full").mkdir()
    fill_up("full")
    error = cli("sweep", "Dense", flag, "full", status=2).err
    assert error.startswith("error: cannot write to full: No space left on device.\n")


@pytest.mark.parametrize(
    "flag",
    [
        "--seed_everything",
        "--trainer.logger",
        "--trainer.limit_test_batches",
        "--trainer.devices",
        "--print_config",
        "--model.help",
    ],
)
def test_what_a_sweep_says_itself_is_refused(flag, plan):
    with pytest.raises(ZooError, match=f"{flag}: a sweep sets this itself"):
        plan([flag, "1"])


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--model", "Dense"], "--model"),
        (["--config=Dense"], "--config"),
        (["-c", "Dense"], "-c"),
    ],
)
def test_a_recipe_named_by_a_flag_is_refused_with_the_command_that_was_meant(cli, words, flag):
    assert cli("sweep", *words, "--seeds", "1", status=2).err == (
        f"error: {flag}: a sweep takes recipes without a flag: mnist-zoo sweep Dense --seeds 1\n"
        "For all options: mnist-zoo sweep --help\n"
    )


def test_so_is_one_that_is_named_further_on(plan):
    with pytest.raises(ZooError, match="--config: a sweep takes recipes and files first"):
        plan(["--config", "MLPDropout"])


@pytest.mark.parametrize("flags", [["--model.lr"], ["--model", "--model.lr", "1"]])
def test_a_flag_without_its_value_is_refused(flags, plan):
    with pytest.raises(ZooError, match=f"{flags[0]}: no value follows it"):
        plan(flags)


def test_an_unknown_recipe_is_an_error_before_anything_runs(cli):
    result = cli("sweep", "Densee", status=2)
    assert "Did you mean Dense?" in result.err


def test_a_run_that_trains_nothing_is_refused_before(cli):
    flags = ("--data=Digits", "--seeds=1", "--trainer.limit_train_batches=0")
    error = cli("sweep", "Dense", *flags, status=2).err
    assert "--trainer.limit_train_batches 0: trains nothing." in error


def test_settings_of_the_trainer_are_given_one_by_one(plan):
    with pytest.raises(ZooError, match="--trainer: give its settings one by one"):
        plan(["--trainer", '{"devices": 2}'])
    with pytest.raises(ZooError, match=r"--trainer\.logger\.save_dir: a sweep sets this itself"):
        plan(["--trainer.logger.save_dir=x"])
