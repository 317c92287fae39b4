"""Checkpoints as untrusted data: nothing in them is run, and nothing outside is overwritten."""

import json

import pytest
import torch
import yaml

from mnist_zoo.models import checkpoint as checkpoints

ON_CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


def content(checkpoint):
    return torch.load(checkpoint, weights_only=True)


class Opened:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.mark.parametrize("command", ["test", "fit"])
class TestAStrangersCheckpoint:
    """Nothing that it names is imported, called or built, wherever in it the name stands."""

    @pytest.fixture(params=["a module in the folder", "a class of the library"])
    def trap(self, request, tmp_path):
        """What leaves a file when it is imported, or when it is built."""
        if request.param == "a class of the library":
            arguments = {"filename": str(tmp_path / "sprung")}
            return {"class_path": "logging.FileHandler", "init_args": arguments}
        (tmp_path / "trap.py").write_text(
            "import pathlib\n\nfrom mnist_zoo.models.dense import Dense\n\n"
            f"pathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n\n\nclass Net(Dense): ...\n"
        )
        return {"class_path": "trap.Net"}

    @pytest.fixture
    def open_changed(self, cli, command, trained, tmp_path):
        """Have the command open a changed checkpoint; return what it says of it."""

        def opened(change):
            checkpoint = content(trained.best)
            change(checkpoint)
            torch.save(checkpoint, tmp_path / "changed.ckpt")
            trial = ("--trainer.fast_dev_run=true", *ON_CPU)
            result = cli(command, "--ckpt_path=changed.ckpt", *trial, status=None)
            assert not (tmp_path / "sprung").exists()
            assert result.err.startswith("error: ") == (result.status == 2)
            return result.err

        return opened

    def test_in_its_pickle(self, open_changed, tmp_path):
        text = open_changed(lambda c: c.update(more=Opened(tmp_path / "sprung")))
        assert "could run code" in text

    @pytest.mark.parametrize("part", ["model", "data"])
    def test_as_its_class(self, open_changed, trap, part):
        text = open_changed(lambda c: c["mnist_zoo"][part].update(trap))
        assert f"--{part} {trap['class_path']}" in text

    @pytest.mark.parametrize("argument", ["lr", "optimizer_args"])
    def test_as_an_argument(self, open_changed, trap, argument):
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update({argument: trap}))
        assert "more than plain values" in text

    @pytest.mark.parametrize("argument", ["optimizer_args", "scheduler_args"])
    @pytest.mark.parametrize("in_a_list", [False, True])
    def test_within_an_argument(self, open_changed, trap, argument, in_a_list):
        nested = {argument: {"momentum": [0.9, trap] if in_a_list else trap}}
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(nested))
        assert "more than plain values" in text

    @pytest.mark.parametrize(
        "words",
        [
            lambda spec: {"momentum": json.dumps(spec)},
            lambda spec: json.dumps({"momentum": spec}),
            lambda spec: {"momentum": [json.dumps([spec])]},
            lambda spec: {"momentum": json.dumps(json.dumps(spec))},
            lambda spec: {"momentum": json.dumps(spec).replace("class_path", r"class_\u0070ath")},
            lambda spec: {"momentum": yaml.safe_dump(spec)},
        ],
    )
    def test_in_a_word_within_an_argument(self, open_changed, trap, words):
        nested = {"optimizer_args": words(trap)}
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(nested))
        assert "more than plain values" in text

    @pytest.mark.parametrize(
        "path", ["mnist_zoo.handwriting.Digit", "mnist_zoo.models.checkpoint.Path"]
    )
    def test_as_a_class_of_ours_that_is_no_network(self, open_changed, path):
        text = open_changed(lambda c: c["mnist_zoo"]["model"].update(class_path=path))
        assert f"is of {path}, which is neither in this zoo" in text

    @pytest.mark.parametrize("name", ["trap.Net", "torch.optim.SGD", "logging.FileHandler"])
    def test_as_its_optimizer(self, open_changed, name):
        text = open_changed(lambda c: c["mnist_zoo"]["model"]["init_args"].update(optimizer=name))
        assert f"--model.optimizer {name}: torch.optim has no such class." in text

    @pytest.mark.parametrize("part", ["model", "data"])
    def test_as_the_class_in_the_settings_of_its_run(self, open_changed, trap, part):
        open_changed(lambda c: c.update(mnist_zoo_run={part: trap}))

    @pytest.mark.parametrize("setting", ["precision", "gradient_clip_val"])
    def test_as_a_setting_of_its_trainer(self, open_changed, trap, setting):
        text = open_changed(lambda c: c.update(mnist_zoo_run={"trainer": {setting: trap}}))
        assert f"--trainer.{setting}" not in text, "left out, not taken for a value"

    @pytest.mark.parametrize("part", ["callbacks", "logger", "strategy"])
    def test_as_a_part_of_its_trainer(self, open_changed, trap, part):
        value = [trap] if part == "callbacks" else trap
        open_changed(lambda c: c.update(mnist_zoo_run={"trainer": {part: value}}))


class TestResumingTheCheckpointOfAStranger:
    @pytest.fixture
    def resume(self, cli, copied, tmp_path):
        def resumed(change, status=0):
            checkpoint = content(copied.last)
            change(checkpoint)
            torch.save(checkpoint, tmp_path / "changed.ckpt")
            more = ("--trainer.max_epochs=9", "--trainer.limit_train_batches=1", *ON_CPU)
            return cli("fit", "--ckpt_path=changed.ckpt", *more, status=status)

        return resumed

    @pytest.mark.parametrize("scheme", ["", "local://", "file://"])
    @pytest.mark.parametrize("callback", ["Last", "Best"])
    def test_deletes_nothing(self, resume, tmp_path, callback, scheme):
        (tmp_path / "dear").mkdir()
        (tmp_path / "dear" / "file").touch()
        path = f"{scheme}{tmp_path}/runs/ConvNetReLU/version_0/checkpoints/../../../../dear"
        keys = "best_model_path", "kth_best_model_path", "last_model_path"

        def change(checkpoint):
            (state,) = (s for n, s in checkpoint["callbacks"].items() if n.startswith(callback))
            state |= dict.fromkeys(keys, path) | {"best_k_models": {path: torch.tensor(0.0)}}

        resume(change)
        assert (tmp_path / "dear" / "file").exists()

    @pytest.mark.parametrize(
        ("optimizer", "name"), [("Adam", "exp_avg"), ("Muon", "momentum_buffer")]
    )
    def test_keeps_the_optimizer_within_its_memory(self, cli, fit, tmp_path, optimizer, name):
        fit(f"--model.optimizer={optimizer}")
        last = tmp_path / "runs/ConvNetReLU/version_0/checkpoints/last.ckpt"
        checkpoint = content(last)
        for state in checkpoint["optimizer_states"][0]["state"].values():
            state[name] = torch.zeros(1)
        torch.save(checkpoint, last)
        error = cli("fit", f"--ckpt_path={last}", "--trainer.max_epochs=2", *ON_CPU, status=2).err
        assert f"does not fit the network: {name} is (1,)" in error

    def test_with_a_state_of_random_generators_that_is_none(self, resume):
        def change(checkpoint):
            (state,) = (s for n, s in checkpoint["callbacks"].items() if n.startswith("Last"))
            state["random"]["cpu"] = torch.full_like(state["random"]["cpu"], 255)

        assert "no usable state of the random generators" in resume(change, status=2).err


def test_links_in_a_strangers_folder_have_nothing_overwritten(copied, cli, tmp_path):
    target = tmp_path / "precious.csv"
    target.write_text("mine")
    (copied.folder / "predictions.csv").symlink_to(target)
    for command in ("predict", "fit"):
        arguments = (f"--ckpt_path={copied.last}", *ON_CPU, "--trainer.max_epochs=4")
        assert "leads out of its run's folder" in cli(command, *arguments, status=2).err
    out = cli("test", f"--ckpt_path={copied.best}", *ON_CPU).out
    assert "accuracy on 9" in out
    assert "warning: no pictures: " in out
    assert target.read_text() == "mine"
    assert {file.name for file in tmp_path.iterdir()} == {"runs", target.name}


@pytest.fixture
def names_a_function(trained, tmp_path):
    """A checkpoint whose network, or data, is a function that leaves a file."""

    def make(part):
        checkpoint = content(trained.best)
        command = {"command": f"touch {tmp_path / 'sprung'}"}
        checkpoint["mnist_zoo"][part] = {"class_path": "os.system", "init_args": command}
        torch.save(checkpoint, tmp_path / "function.ckpt")
        return "--ckpt_path=function.ckpt"

    return make


@pytest.mark.parametrize(
    "command",
    [
        "test", "fit", "predict digit.png", "explain", "explain digit.png", "demo --no_browser",
        "export --format=state_dict",
    ],
)  # fmt: skip
def test_a_function_is_not_called_even_if_it_is_named(cli, names_a_function, tmp_path, command):
    (tmp_path / "digit.png").write_bytes(b"")
    flags = (*command.split(), names_a_function("model"), "--model=os.system")
    error = cli(*flags, status=2).err
    assert error.startswith("error: --model os.system: not a network (a subclass of Classifier).")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("command", ["test", "explain", "export --format=state_dict --measure"])
def test_nor_as_data(cli, names_a_function, tmp_path, command):
    error = cli(*command.split(), names_a_function("data"), "--data=os.system", status=2).err
    assert error.startswith("error: --data os.system: not a data set (a subclass of ImageData).")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("path", ["a\nb.Net", "x" * 1000, "a b.Net", "", "\x1b[31m.Net"])
def test_a_name_that_is_no_import_path_is_not_printed(cli, trained, tmp_path, path):
    checkpoint = content(trained.best)
    checkpoint["mnist_zoo"]["model"]["class_path"] = path
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    error = cli("test", "--ckpt_path=odd.ckpt", status=2).err
    assert error.startswith("error: odd.ckpt is not a checkpoint of an mnist-zoo network")
    assert len(error) < 200


def test_names_of_classes_hold_no_control_codes(trained, tmp_path):
    checkpoint = content(trained.best)
    entry = {"class_path": "their.Data", "init_args": {}, "classes": ["\x1b[31m0", *"123456789"]}
    checkpoint["mnist_zoo"]["data"] = entry
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    names = checkpoints.class_names(checkpoints.read(tmp_path / "odd.ckpt"))
    assert names == ["\\x1b[31m0", *"123456789"]


def test_names_of_classes_can_be_drawn(trained, tmp_path):
    checkpoint = content(trained.best)
    classes = ["\ud800", "x" * 10**6, *range(8)]
    checkpoint["mnist_zoo"]["data"] = {
        "class_path": "their.Data", "init_args": {}, "classes": classes
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    names = checkpoints.class_names(checkpoints.read(tmp_path / "odd.ckpt"))
    assert names == ["\\ud800", "x" * 100, *"01234567"]


def nested():
    """Return a list in lists, which as a text would fill the memory."""
    value = ["x"]
    for _ in range(40):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda zoo: zoo["data"].update(class_path="their.Data", classes=[nested()] * 10),
        lambda zoo: zoo["model"]["init_args"].update({3: 3}),
    ],
)
def test_what_is_no_entry_of_ours_is_refused(cli, trained, tmp_path, change):
    checkpoint = content(trained.best)
    change(checkpoint["mnist_zoo"])
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    error = cli("test", "--ckpt_path=odd.ckpt", *ON_CPU, status=2).err
    assert "odd.ckpt is not a checkpoint of an mnist-zoo network" in error


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["optimizer_states"].__setitem__(0, {}),
        lambda c: c["optimizer_states"][0]["param_groups"].append({}),
        lambda c: c.update(lr_schedulers=None),
        lambda c: c.update(callbacks=[]),
        lambda c: c["mnist_zoo"].update(pixels={"mean": "x", "std": 1.0}),
        lambda c: c.update(global_step=float("inf")),
        lambda c: c.update(global_step=2**63),
    ],
)
def test_a_state_that_cannot_be_restored_is_told_in_two_lines(cli, trained, tmp_path, change):
    checkpoint = content(trained.last)
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    flags = ("--trainer.max_epochs=4", "--trainer.limit_train_batches=1", *ON_CPU)
    error = cli("fit", "--ckpt_path=odd.ckpt", *flags, status=2).err
    assert error.startswith("error: ")
    assert len(error.splitlines()) <= 2
    assert "odd.ckpt" in error
