"""Folders of runs."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from mnist_zoo.engine import run_folders
from mnist_zoo.errors import ZooError


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("MNIST_ZOO_RUN", "")
    monkeypatch.delenv("MNIST_ZOO_RUN")


def test_the_first_is_version_0_then_they_count_up(tmp_path):
    folder = tmp_path / "runs" / "Net"
    assert [run_folders.claim(folder).folder.name for _ in range(3)] == [
        "version_0",
        "version_1",
        "version_2",
    ]


def test_a_number_is_not_used_again_and_other_names_do_not_count(tmp_path):
    for name in ("version_3", "version_11", "version_x", "version_99_copy", "notes"):
        (tmp_path / name).mkdir()
    assert run_folders.claim(tmp_path).folder == tmp_path / "version_12"


@pytest.mark.parametrize(
    "executor",
    [
        lambda: ThreadPoolExecutor(8),
        pytest.param(
            lambda: ProcessPoolExecutor(4, multiprocessing.get_context("spawn")),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["threads", "processes"],
)
def test_runs_that_start_at_once_never_share_a_folder(tmp_path, executor):
    with executor() as pool:
        claimed = list(pool.map(run_folders.claim, [tmp_path] * 40))
    assert len({claim.folder for claim in claimed}) == 40
    assert {path.name for path in tmp_path.iterdir()} == {f"version_{n}" for n in range(40)}


def test_the_processes_of_one_run_share_its_folder(tmp_path, monkeypatch):
    first = run_folders.claim(tmp_path).folder
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    other = run_folders.claim(tmp_path)
    assert other.folder == first
    other.discard()
    assert first.exists()
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    assert run_folders.claim(tmp_path).folder != first


def test_a_process_that_cannot_know_the_folder_makes_none_and_removes_none(tmp_path, monkeypatch):
    (tmp_path / "version_0").mkdir()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    run_folders.claim(tmp_path).discard()
    assert [path.name for path in tmp_path.iterdir()] == ["version_0"]


def test_one_command_alone_trains_in_a_folder(tmp_path, monkeypatch):
    with run_folders.locked(tmp_path):
        with (
            pytest.raises(ZooError, match="is being trained by another command"),
            run_folders.locked(tmp_path),
        ):
            pytest.fail("two commands train in one folder")
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        with run_folders.locked(tmp_path):
            assert not run_folders.is_first_process()
        monkeypatch.setattr(rank_zero_only, "rank", 0)
    # It was released, and can be had again.
    with run_folders.locked(tmp_path), pytest.raises(Timeout):
        FileLock(tmp_path / ".lock").acquire(timeout=0)


def test_where_the_file_system_has_no_locks_nothing_is_locked(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("no flock")

    monkeypatch.setattr(run_folders.FileLock, "acquire", refuse)
    with run_folders.locked(tmp_path), run_folders.locked(tmp_path):
        assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(ZooError, match=r"cannot write to .*runs/Net: .*\n.*default_root_dir"):
        run_folders.claim(tmp_path / "runs" / "Net")


def test_a_run_that_wrote_no_checkpoint_is_removed_with_the_folders_made_for_it(tmp_path):
    run = run_folders.claim(tmp_path / "runs" / "Net")
    (run.folder / "events").touch()
    run.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_removed_leaves_the_others(tmp_path):
    first, second = run_folders.claim(tmp_path / "Net"), run_folders.claim(tmp_path / "Net")
    second.discard()
    assert list(tmp_path.rglob("*")) == [tmp_path / "Net", first.folder]


def test_a_run_that_wrote_a_checkpoint_is_kept(tmp_path):
    run = run_folders.claim(tmp_path)
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "last.ckpt").touch()
    run.discard()
    assert (run.folder / "checkpoints" / "last.ckpt").is_file()


def test_the_run_of_a_checkpoint_is_found_by_its_place(tmp_path, monkeypatch):
    run = tmp_path / "runs" / "Net" / "version_3"
    assert run_folders.of_checkpoint(run / "checkpoints" / "best.ckpt") == run
    assert run_folders.of_checkpoint(run / "best.ckpt") is None
    assert run_folders.of_checkpoint(tmp_path / "checkpoints" / "best.ckpt") is None
    (run / "checkpoints").mkdir(parents=True)
    (run / "pictures").symlink_to("checkpoints")  # within the folder, links do no harm
    monkeypatch.chdir(run / "checkpoints")
    assert run_folders.of_checkpoint(run_folders.Path("best.ckpt")) == run


@pytest.mark.parametrize("name", ["pictures", "predictions.csv", "checkpoints/last.ckpt", ".lock"])
def test_a_folder_with_a_link_that_leads_out_of_it_is_not_written_to(tmp_path, name):
    run = tmp_path / "runs" / "Dense" / "version_0"
    (run / "checkpoints").mkdir(parents=True)
    (run / name).symlink_to("../../precious")
    with pytest.raises(ZooError, match="a link that leads out of its run's folder"):
        run_folders.of_checkpoint(run / "checkpoints" / "best.ckpt")
