"""Files are written whole or not at all, in their own place."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnist_zoo import files
from mnist_zoo.errors import ZooError
from mnist_zoo.files import absolute, expanded, require_writable, whole


def write(file, text="new"):
    with whole(file) as unfinished:
        unfinished.write_text(text)


def test_replaces_what_was_there(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    write(file)
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(("num_refused", "is_replaced"), [(2, True), (99, False)])
def test_on_windows_it_waits_until_nobody_reads_the_old(
    num_refused, is_replaced, tmp_path, monkeypatch
):
    new, old = tmp_path / "new.txt", tmp_path / "old.txt"
    new.write_text("new")
    old.write_text("old")
    refused = iter(range(num_refused))
    replace = Path.replace

    def refuse(self, target):
        if next(refused, None) is not None:
            raise PermissionError
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(files, "os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(files, "_SECONDS_BETWEEN_TRIES", 0)
    if is_replaced:
        files._replace(new, old)
    else:
        with pytest.raises(PermissionError):
            files._replace(new, old)
    assert old.read_text() == ("new" if is_replaced else "old")


def test_a_tilde_is_the_home_folder_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a") == absolute("~/a") == tmp_path / "a"
    assert str(expanded("~nobody_at_all/a")) == "~nobody_at_all/a"
    assert str(expanded("a/~")) == "a/~"


def test_of_a_link_the_file_that_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to("real.txt")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_pipe_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ZooError, match="it is a pipe or device"):
        write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_of_two_writers_each_writes_its_own(tmp_path):
    file = tmp_path / "a.txt"
    with whole(file) as unfinished:
        unfinished.write_text("one")
        write(file, "other")
    assert file.read_text() == "one"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def fail():
        with whole(file) as unfinished:
            unfinished.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such permissions")
def test_a_file_keeps_its_permissions(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    file.chmod(0o600)
    with whole(file) as unfinished:
        unfinished.write_text("new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["none/a.txt", "file/a.txt", "folder", ""])
def test_what_cannot_be_written_is_told_in_a_line(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ZooError, match=r"^cannot write .*\.$"):
        write(type(tmp_path)(name))


def test_a_folder_that_cannot_be_written_is_told_with_what_to_do(tmp_path):
    require_writable(tmp_path / "not" / "yet", "Go home.")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "within"):
        with pytest.raises(ZooError, match=r"cannot write to .*: .*\.\nGo home\."):
            require_writable(folder, "Go home.")
