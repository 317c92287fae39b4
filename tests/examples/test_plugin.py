"""The example plugin, installed as its README says but into a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
TRY_OUT = ("--data", "Digits", "--trainer.fast_dev_run", "true")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the plugin in it; as PYTHONPATH it makes the plugin an installed one."""
    pytest.importorskip("hatchling", reason="pip builds the plugin with hatchling")
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder, PLUGIN], check=True, timeout=120)
    return folder


@pytest.fixture
def zoo_with(zoo):
    """Run the command line with the packages of some folders installed."""

    def run(folders, *arguments):
        env = {"PYTHONPATH": os.pathsep.join(map(str, folders))}
        return zoo(*arguments, env=env)

    return run


def declare(folder, package, entry_point, code):
    """Write a package of one module that declares one network, as pip would leave it."""
    (folder / f"{package}.py").write_text(code)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mnist_zoo.models]\n{entry_point}\n")
    return folder


def output(result):
    return result.stdout + result.stderr


def test_its_wheel_holds_the_recipe(site):
    assert (site / "zoo_example" / "configs" / "TinyConvNet.yaml").is_file()


def test_its_recipe_counts_its_parameters(site, monkeypatch):
    from mnist_zoo.models.classifier import num_parameters

    monkeypatch.syspath_prepend(site)
    from zoo_example.tiny import TinyConvNet

    recipe = (site / "zoo_example" / "configs" / "TinyConvNet.yaml").read_text()
    assert f"# Parameters: {num_parameters(TinyConvNet()):,}\n" in recipe


def test_its_network_is_listed_with_those_of_the_zoo(site, zoo_with):
    result = zoo_with([site], "models")
    assert result.returncode == 0, result.stderr
    assert "ConvNetReLU" in result.stdout
    (row,) = [line for line in result.stdout.splitlines() if "TinyConvNet" in line]
    assert "5,994" in row


def test_it_trains_by_its_recipe_and_its_checkpoint_is_tested(site, zoo_with, tmp_path):
    short = ("--data.num_train", "200", "--trainer.max_epochs", "1")
    result = zoo_with([site], "fit", "--model", "TinyConvNet", "--data", "Digits", *short)
    assert result.returncode == 0, result.stderr
    assert "TinyConvNet (5,994 parameters) on Digits" in result.stdout
    run = tmp_path / "runs" / "TinyConvNet" / "version_0"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["lr"] == 0.03, "as the recipe says"

    result = zoo_with([site], "test", "--ckpt_path", run / "checkpoints" / "best.ckpt")
    assert result.returncode == 0, result.stderr
    assert "TinyConvNet on 360 test images of Digits" in result.stdout


def test_the_zoo_does_not_know_it_without_it(zoo):
    assert "TinyConvNet" not in zoo("models").stdout
    result = zoo("fit", "--model", "TinyConvNet")
    assert result.returncode == 2
    assert "unknown network TinyConvNet" in result.stderr


class TestABrokenPlugin:
    @pytest.fixture
    def broken(self, tmp_path):
        folder = tmp_path / "broken"
        folder.mkdir()
        code = "raise RuntimeError('no such thing as a free lunch')\n"
        return declare(folder, "zoo_broken", "BrokenNet = zoo_broken:BrokenNet", code)

    def test_is_reported_in_one_line_and_breaks_nothing(self, broken, site, zoo_with):
        declare(broken, "zoo_gone", "GoneNet = zoo_never.was:GoneNet", "")
        result = zoo_with([broken, site], "fit", "--model", "TinyConvNet", *TRY_OUT)
        assert result.returncode == 0, result.stderr
        (line,) = [line for line in output(result).splitlines() if "BrokenNet" in line]
        assert "zoo_broken" in line
        assert "RuntimeError: no such thing as a free lunch" in line
        (line,) = [line for line in output(result).splitlines() if "GoneNet" in line]
        assert "zoo_never" in line
        assert "Traceback" not in output(result)

    def test_leaves_the_table_whole(self, broken, zoo_with):
        declare(broken, "zoo_gone", "GoneNet = zoo_never.was:GoneNet", "")
        result = zoo_with([broken], "models")
        assert result.returncode == 0, result.stderr
        assert "ConvNetReLU" in result.stdout
        assert "Traceback" not in output(result)

    def test_is_an_error_where_it_is_asked_for(self, broken, zoo_with):
        result = zoo_with([broken], "fit", "--model", "BrokenNet", *TRY_OUT)
        assert result.returncode == 2
        assert "no such thing as a free lunch" in result.stderr
        assert "Traceback" not in output(result)


class TestTwoOfTheSameName:
    @pytest.fixture
    def twins(self, site, tmp_path):
        code = (
            "from zoo_example.tiny import TinyConvNet as Tiny\n\n\nclass TinyConvNet(Tiny): ...\n"
        )
        folder = tmp_path / "twin"
        folder.mkdir()
        declare(folder, "zoo_twin", "TinyConvNet = zoo_twin:TinyConvNet", code)
        return [folder, site]

    @pytest.fixture
    def namesake(self, tmp_path):
        """A plugin whose network is called like one of the zoo."""
        code = "from mnist_zoo.models.convnet import ConvNetReLU as Base\n\n\n"
        code += "class ConvNetReLU(Base): ...\n"
        folder = tmp_path / "namesake"
        folder.mkdir()
        return declare(folder, "zoo_namesake", "ConvNetReLU = zoo_namesake:ConvNetReLU", code)

    def test_the_error_names_both(self, twins, zoo_with):
        result = zoo_with(twins, "fit", "--model", "TinyConvNet", *TRY_OUT)
        assert result.returncode == 2
        assert "2 networks are called TinyConvNet" in result.stderr
        assert "--model zoo_example.tiny.TinyConvNet" in result.stderr
        assert "--model zoo_twin.TinyConvNet" in result.stderr
        assert "Traceback" not in output(result)

    def test_the_full_path_says_which(self, twins, zoo_with):
        result = zoo_with(twins, "fit", "--model", "zoo_twin.TinyConvNet", *TRY_OUT)
        assert result.returncode == 0, result.stderr
        assert "TinyConvNet (5,994 parameters) on Digits" in result.stdout

    def test_a_name_of_the_zoo_is_no_exception(self, namesake, zoo_with):
        result = zoo_with([namesake], "fit", "--model", "ConvNetReLU", *TRY_OUT)
        assert result.returncode == 2
        assert "--model zoo_namesake.ConvNetReLU" in result.stderr
        path = "mnist_zoo.models.convnet.ConvNetReLU"
        assert f"--model {path}" in result.stderr
        result = zoo_with([namesake], "fit", "--model", path, *TRY_OUT)
        assert result.returncode == 0, result.stderr
