"""Sweeps whose runs Ray makes."""

import json
import subprocess
import sys

import pytest

from mnist_zoo.errors import ZooError


def test_ray_that_is_not_installed_is_an_error_in_a_line(tmp_path, monkeypatch):
    from mnist_zoo.commands.sweep.workers import Cluster

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ZooError, match=r"pip install 'mnist-zoo\[ray\]'"):
        Cluster(tmp_path, "local", 1, 0)


@pytest.mark.slow
def test_on_a_local_ray_it_makes_the_same_records(zoo, tmp_path, comparable):
    pytest.importorskip("ray", reason="needs the optional package ray")
    arguments = ("sweep", "ConvNetReLU-digits", "--trainer.accelerator", "cpu")
    arguments += ("--seeds", "2", "--trainer.max_epochs", "1")
    assert zoo(*arguments, "--results", "here").returncode == 0
    on_ray = zoo(*arguments, "--results", "ray", "--runs", "runs/ray", "--ray", "local")
    assert on_ray.returncode == 0, on_ray.stderr
    assert comparable(tmp_path / "ray") == comparable(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/net/tcp")
def test_a_local_ray_listens_on_loopback_only(tmp_path):
    pytest.importorskip("ray", reason="needs the optional package ray")
    code = (
        "import contextlib, json, os, pathlib\n"
        "from mnist_zoo.commands.sweep.workers import Cluster\n"
        "def sockets():  # of this process and of Ray's, not of other tests\n"
        "    for process in pathlib.Path('/proc').glob('[0-9]*'):\n"
        "        with contextlib.suppress(OSError):\n"
        "            command = (process / 'cmdline').read_bytes()\n"
        "            if b'ray' in command or process.name == str(os.getpid()):\n"
        "                yield from (os.readlink(fd) for fd in (process / 'fd').iterdir())\n"
        "cluster = Cluster(pathlib.Path('runs'), 'local', 1, 0)\n"
        "ours = set(sockets())\n"
        "lines = [line.split() for name in ('tcp', 'tcp6')\n"
        "         for line in pathlib.Path(f'/proc/net/{name}').read_text().splitlines()[1:]]\n"
        "print(json.dumps([line[1] for line in lines\n"
        "                  if line[3] == '0A' and f'socket:[{line[9]}]' in ours]))\n"
        "cluster.stop(at_once=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    ports = json.loads(done.stdout.splitlines()[-1])
    assert ports
    assert not [port for port in ports if not port.partition(":")[0].endswith("0100007F")]
