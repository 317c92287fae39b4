"""``export``: files that other programs read, checked, whole or not at all."""

import json
import shutil

import pytest
import torch
from safetensors import safe_open

import mnist_zoo
from mnist_zoo.commands.export import SUFFIXES
from mnist_zoo.data import Digits
from mnist_zoo.models import ConvNetReLU, checkpoint
from mnist_zoo.models import export as exports


@pytest.fixture
def images():
    return Digits().load(train=False)[0][:7]


@pytest.fixture
def export(cli, trained):
    def run(kind, *arguments, status=0, ckpt_path=trained.best):
        out = f"x{SUFFIXES[kind]}"
        arguments = ("--ckpt_path", ckpt_path, "--format", kind, "--out", out, *arguments)
        return cli("export", *arguments, status=status)

    return run


@pytest.mark.slow
def test_onnx_gives_the_probabilities_of_any_number_of_images(export, images, trained, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    onnx = pytest.importorskip("onnx")
    out = export("onnx").out
    assert "opset 18" in out
    assert float(out.rpartition(" ")[2]) < 1e-4
    session = ort.InferenceSession(tmp_path / "x.onnx")
    network = mnist_zoo.load(trained.best)
    for num in (1, 7):
        pixels = images[:num, None].numpy().astype("float32") / 255
        (probabilities,) = session.run(["probabilities"], {"images": pixels})
        assert abs(torch.tensor(probabilities) - network.predict(images[:num])).max() < 1e-5
    model = onnx.load(tmp_path / "x.onnx")
    assert model.opset_import[0].version == 18
    about = json.loads({p.key: p.value for p in model.metadata_props}["mnist_zoo"])
    assert about["data"]["init_args"]["mean"] == 0.0


@pytest.mark.slow
def test_torch_export_needs_no_class_of_ours(export, images, trained, tmp_path):
    export("torch_export")
    with (tmp_path / "x.pt2").open("rb") as stream:
        module = torch.export.load(stream).module()
    expected = mnist_zoo.load(trained.best).predict(images)
    assert torch.allclose(module(images[:, None] / 255), expected, atol=1e-6)


def test_state_dict_is_plain_tensors(export, tmp_path):
    out = export("state_dict").out
    assert "The file does not include normalisation: its input is pixels / 255\n" in out
    state = torch.load(tmp_path / "x.pt", weights_only=True)
    assert type(state) is dict
    assert {"0.0.weight", "0.0.bias", "3.weight"} <= set(state)


def test_safetensors_are_loaded_as_the_checkpoint_is(export, images, trained, cli, tmp_path):
    export("safetensors", "--measure")
    network = mnist_zoo.load(tmp_path / "x.safetensors")
    assert torch.equal(network.predict(images), mnist_zoo.load(trained.best).predict(images))
    assert not network.training
    weights = checkpoint.read(tmp_path / "x.safetensors")
    assert weights.record["num_epochs"] == 3
    assert weights.record["test_data"] == "Digits"
    assert (
        f"{100 * weights.record['test_acc']:.2f} %" in cli("test", "--ckpt_path", trained.best).out
    )
    assert str(tmp_path.anchor + "tmp") not in json.dumps([weights.record, weights.data])


def test_where_ones_data_lie_is_not_told(export, trained, tmp_path):
    content = torch.load(trained.best, weights_only=True)
    places = {name: f"/home/me/{name}" for name in ("root", "train_file", "test_file")}
    entry = {"class_path": "mnist_zoo.data.TextFile", "init_args": {"batch_size": 7, **places}}
    content["mnist_zoo"]["data"] = entry
    torch.save(content, tmp_path / "own.ckpt")
    export("safetensors", ckpt_path="own.ckpt")
    weights = checkpoint.read(tmp_path / "x.safetensors")
    assert weights.data == {**entry, "init_args": {"batch_size": 7}}
    assert None not in weights.record["settings"].values()


def test_weights_are_exported_again_with_their_record(export, tmp_path):
    export("safetensors", "--measure")
    export("safetensors", "--out", "y.safetensors", ckpt_path="x.safetensors")
    files = [
        safe_open(tmp_path / name, framework="pt") for name in ("x.safetensors", "y.safetensors")
    ]
    assert files[0].metadata() == files[1].metadata()
    for key in files[0].keys():  # noqa: SIM118
        assert torch.equal(*[file.get_tensor(key) for file in files])
    assert "is the file to export" in (
        export("safetensors", "--out", "y.safetensors", ckpt_path="y.safetensors", status=2).err
    )


def test_a_checkpoint_is_not_overwritten_under_another_name(cli, trained, tmp_path):
    shutil.copy(trained.best, tmp_path / "run.pt")
    before = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "link.pt").symlink_to("run.pt")
    (tmp_path / "sub").mkdir()
    for out in ("run.pt", "link.pt", "sub/../run.pt"):
        error = cli("export", "--ckpt_path=run.pt", f"--out={out}", status=2).err
        assert "is the file to export" in error
        assert (tmp_path / "run.pt").read_bytes() == before


@pytest.mark.parametrize("command", ["test", "validate"])
def test_weights_alone_give_the_figures_of_their_checkpoint(export, cli, trained, command):
    export("safetensors")
    tables = [
        cli(command, f"--ckpt_path={file}", "--pictures=false").out
        for file in ("x.safetensors", trained.best)
    ]
    assert "accuracy" in tables[0]
    assert tables[0] == tables[1]


def test_weights_alone_are_not_trained_on(export, cli):
    export("safetensors")
    assert "holds only weights" in cli("fit", "--ckpt_path=x.safetensors", status=2).err


def test_weights_that_do_not_fit_the_flags_are_refused(export, cli):
    export("safetensors")
    file = "--ckpt_path=x.safetensors"
    assert "does not fit" in cli("test", file, "--model=ConvNetSimple", status=2).err


def test_where_it_goes_unless_told(cli, copied):
    assert "best.pt, " in cli("export", "--ckpt_path", copied.best, "--format=state_dict").out
    assert copied.best.with_suffix(".pt").is_file()


def test_the_name_of_the_file_says_the_format(cli, trained, tmp_path):
    cli("export", "--ckpt_path", trained.best, "--out=x.safetensors")
    assert isinstance(mnist_zoo.load(tmp_path / "x.safetensors"), ConvNetReLU)


def test_formats_are_those_that_can_be_written():
    assert list(SUFFIXES) == list(exports.FORMATS)


def test_installed_weights_go_into_the_current_folder(cli, tmp_path):
    out = cli("export", "--ckpt_path=ConvNetReLU", "--format=state_dict").out
    assert "written to ConvNetReLU.pt, " in out
    assert [file.name for file in tmp_path.iterdir()] == ["ConvNetReLU.pt"]


def test_data_of_ones_own_are_named(fit, cli, tmp_path):
    (tmp_path / "mine.py").write_text("from mnist_zoo.data import Digits\nclass Own(Digits): ...\n")
    (tmp_path / "own.yaml").write_text("model: {class_path: Dense}\ndata: {class_path: mine.Own}\n")
    cli(
        "fit", "--config=own.yaml", "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--pictures=false",
    )  # fmt: skip
    (best,) = tmp_path.glob("runs/*/version_0/checkpoints/best.ckpt")
    measured = ("export", "--ckpt_path", best, "--format=safetensors", "--measure")
    assert "name it: --data mine.Own\n" in cli(*measured, status=2).err
    other = cli(*measured, "--data=Digits", status=2).err
    assert f"--data Digits does not fit --ckpt_path: {best} is of Own.\n" in other
    assert "Accuracy on 360 test images" in cli(*measured, "--data=mine.Own").out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--format=onx", "invalid choice: 'onx'"),
        ("--format=state_dict --out=no/x.pt", "cannot write no/x.pt: there is no folder no."),
        ("--format=state_dict --out=.", "--out .: for this format, the name must end in .pt."),
        ("--format=onnx --out=four.png", "four.png: for this format, the name must end in .onnx."),
        ("--format=onnx --out=x.pt", "--out x.pt: for this format, the name must end in .onnx."),
        ("--format=torch_export --out=x.pt", "x.pt: for this format, the name must end in .pt2."),
        ("--format=safetensors --out=x", "x: for this format, the name must end in .safetensors."),
        ("--out=x.bin", "which format? Give --format onnx or torch_export or "),
        ("", "or --out with a name that ends in .onnx or .pt2 or .pt or .safetensors."),
        ("--format=state_dict --ckpt_path=missing.ckpt", "missing.ckpt does not exist"),
        ("--format=state_dict --model=Dense", "--model Dense does not fit --ckpt_path: "),
        ("--format=state_dict --ckpt_path=ConvNet", "Did you mean ConvNetReLU?"),
    ],
)
def test_mistakes_are_told(cli, trained, tmp_path, arguments, text):
    result = cli("export", "--ckpt_path", trained.best, *arguments.split(), status=2)
    assert text in result.err
    assert not list(tmp_path.iterdir())


def test_what_computes_something_else_is_not_written(export, monkeypatch, tmp_path):
    for wrong in (1e-3, float("nan")):
        monkeypatch.setattr(exports, "_loaded", lambda n, *_, by=wrong: lambda x: n.predict(x) + by)
        assert "nothing was written" in export("state_dict", status=2).err
        assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(export, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert "pip install 'mnist-zoo[export]'" in export("onnx", status=2).err


def test_a_network_that_diverged_is_not_written(export, diverged, tmp_path):
    assert export("state_dict", ckpt_path=diverged, status=2).err == (
        "error: ConvNetReLU returns NaN or infinity: its training has diverged.\n"
    )
    assert list(tmp_path.iterdir()) == [diverged]


def test_a_file_says_how_pixels_are_normalised_and_its_licence(fit, cli, tmp_path):
    fit("--data.mean=0.25", "--data.std=0.5", "--trainer.limit_train_batches=2")
    best = "--ckpt_path=runs/ConvNetReLU/version_0/checkpoints/best.ckpt"
    assert "its input is (pixels / 255 - 0.25) / 0.5\n" in cli("export", best, "--out=x.pt").out
    cli("export", best, "--out=x.safetensors", "--licence=CC0-1.0")
    network = mnist_zoo.load(tmp_path / "x.safetensors")
    assert (network.pixel_mean, network.pixel_std) == (0.25, 0.5)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as content:
        assert json.loads(content.metadata()["mnist_zoo"])["licence"] == "CC0-1.0"


@pytest.mark.parametrize("trainer", [5, {"precision": torch.zeros(2)}, {"max_epochs": [1]}])
def test_settings_that_are_none_are_left_out(cli, trained, tmp_path, trainer):
    content = torch.load(trained.best, weights_only=True)
    content["mnist_zoo_run"] = {"trainer": trainer, "seed_everything": "abc"}
    torch.save(content, tmp_path / "changed.ckpt")
    cli("export", "--ckpt_path=changed.ckpt", "--out=x.safetensors")
    assert (tmp_path / "x.safetensors").exists()
