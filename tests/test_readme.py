"""What README and course show can be typed as it stands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import Trainer
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from mnist_zoo import registry
from mnist_zoo.__main__ import main
from mnist_zoo.data import Digits
from mnist_zoo.recipes import all_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = README + (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXTS, flags=re.S | re.M)
PROSE = re.sub(r"^```.*?^```$", "", TEXTS, flags=re.S | re.M)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = sorted(
    {
        match.partition(" #")[0].strip()
        for _, code in BLOCKS
        for match in re.findall(r"^(?:\$ )?(mnist-zoo .*)$", code, flags=re.M)
    }
    | {" ".join(match.split()) for match in re.findall(r"`(mnist-zoo [^`]+)`", PROSE)}
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the checkpoints and the files that the README speaks of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MNIST_ZOO_DATA", str(tmp_path / "data"))
    for code in PYTHON:
        for name, file in (("MyNet", "my_net.py"), ("Letters", "my_data.py")):
            if f"class {name}(" in code:
                (tmp_path / file).write_text(code)
    return tmp_path


def write_checkpoint(path, name):
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        fast_dev_run=True, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(registry.import_class(registry.class_path(name))(), Digits())
    trainer.save_checkpoint(path)


def test_there_are_commands():
    assert {command.split()[1] for command in COMMANDS} >= {"fit", "test", "models"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_accepted(command, folder, capsys, monkeypatch):
    arguments = shlex.split(command)[1:]
    for path, name in re.findall(r"(runs/(\w+)/version_0/checkpoints/\w+\.ckpt)", command):
        write_checkpoint(folder / path, "my_net.MyNet" if name == "MyNet" else name)
    if arguments[0] == "data":
        assert main([*arguments, "--data=Digits"]) == 0
    elif arguments[0] == "demo":
        uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn, of the extra demo")
        monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
        assert main([*arguments, "--port=0", "--no_browser"]) == 0
    elif arguments[0] in ("predict", "export"):
        for word in arguments[1:]:
            if word.endswith((".png", ".jpg")):
                Image.fromarray(Digits().load(train=True)[0][0].numpy()).save(word)
        if "onnx" in arguments:
            pytest.importorskip("onnxscript")
        # Without the images of MNIST there is nothing to measure by.
        assert main([word for word in arguments if word != "--measure"]) == 0
    elif arguments[0] == "models":
        assert main(arguments) == 0
    elif arguments[0] == "results":
        assert main([*arguments, "--results", str(ROOT / "results")]) == 0
    elif arguments[0] == "sweep":
        # Its flags are checked as ever; only the runs are not made.
        monkeypatch.setattr("mnist_zoo.commands.sweep.command._Sweep.run", lambda *_: None)
        assert main([*arguments, "--data=Digits"]) == 0
        assert "recorded already: 0" in capsys.readouterr().out
    elif arguments[0] == "explain":
        if "four.png" in arguments:
            picture = Image.new("L", (60, 60), 255)
            picture.paste(0, (20, 10, 27, 50))
            picture.save("four.png")
        assert main(arguments) == 0
    elif arguments[0] == "plot":
        networks = [word for word in arguments if word.startswith("runs/")]
        for network in networks:
            with SummaryWriter(f"{network}/version_0") as writer:
                writer.add_scalar(arguments[arguments.index("--tag") + 1], 0.5, 1)
        assert main(arguments) == 0
        num = len(networks)
        assert f"{num} run{'s' * (num > 1)} in {num} line" in capsys.readouterr().out
    else:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--print_config"])
        assert end.value.code in (0, None)
        assert yaml.safe_load(capsys.readouterr().out)["model"]["class_path"]


TABLES = re.findall(r"<!-- begin: mnist-zoo (.*?) -->\n(.*?)<!-- end -->", README, flags=re.S)


def test_there_are_tables():
    assert [command for command, _ in TABLES] == ["models --markdown", "results --markdown"]


@pytest.mark.parametrize(("command", "table"), TABLES, ids=[command for command, _ in TABLES])
def test_a_table_is_what_the_command_prints(command, table, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(registry, "plugins", list)
    all_recipes.cache_clear()
    assert main(shlex.split(command)) == 0
    all_recipes.cache_clear()
    assert capsys.readouterr().out.strip() == table.strip()


@pytest.mark.parametrize("code", PYTHON)
def test_python_runs(code, folder):
    write_checkpoint(folder / "best.ckpt", "ConvNetReLU")
    if "onnxruntime" in code:
        pytest.importorskip("onnxscript")
        export = "mnist-zoo export --ckpt_path runs/ConvNetReLU/version_0/checkpoints/best.ckpt"
        (written,) = re.findall(rf"`{re.escape(export)}\s+(--format onnx --out .*?)`", README)
        assert main(["export", "--ckpt_path", "best.ckpt", *written.split()]) == 0
    # What would train on MNIST for minutes is not run, but what it imports must be there.
    code = "".join(line for line in code.splitlines(keepends=True) if ".fit(" not in line)
    if "four.png" in code:
        Image.fromarray(Digits().load(train=True)[0][0].numpy()).save("four.png")
    names = {"images": torch.rand(2, 1, 28, 28)}
    exec(compile(code, "README.md", "exec"), names)
    if "logits" in names:
        assert names["logits"].shape == (2, 10)
    if "Letters" in names:
        images, targets = Digits().load(train=False)
        np.savez("test.npz", images=images.numpy(), targets=targets.numpy())
        data = names["Letters"]()
        data.setup("test")
        assert data.num_test_images == len(targets)


def test_files_that_it_links_to_are_there():
    links = re.findall(r"\]\(([^)#]+)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_make_has_the_targets_that_it_names():
    targets = set(re.findall(r"\bmake (\w+)$", "\n".join(code for _, code in BLOCKS), flags=re.M))
    targets |= set(re.findall(r"`make (\w+)`", PROSE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_data_sets_that_it_names_are_there():
    from mnist_zoo import data

    section = README.partition("## Data\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, flags=re.M)
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert named == {n for n in data.__all__ if isinstance(getattr(data, n), type)} - {
        "Batches", "DataError", "ImageData",
    }  # fmt: skip
