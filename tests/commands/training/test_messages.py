"""What a newcomer gets wrong ends in a few plain lines that say what to do, and leaves nothing."""

import pytest
import torch
import yaml

import mnist_zoo
from mnist_zoo import registry
from mnist_zoo.commands.training.parser_messages import in_plain_words

FIT = "fit --model=ConvNetReLU --data=Digits --trainer.accelerator=cpu"
DENSE = "fit --model=Dense --data=Digits"


@pytest.fixture
def mistake(cli, tmp_path):
    """Run a command that fails; return what it says, checked for its form."""

    def made(*arguments):
        before = sorted(tmp_path.rglob("*"))
        result = cli(*(part for argument in arguments for part in str(argument).split()), status=2)
        assert result.err.startswith("error: ")
        assert len(result.err.splitlines()) <= 3, result.err
        assert "Traceback" not in result.err
        assert len(result.err) < 600, result.err
        assert sorted(tmp_path.rglob("*")) == before, "it left something behind"
        return result.err.removeprefix("error: ")

    return made


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("tset", "unknown command tset. Did you mean test?"),
        ("ConvNetReLU", "unknown command ConvNetReLU."),
        ("--modl=Dense", "unknown option --modl=Dense."),
        ("fit", "which network? Name one with --model."),
        ("fit ConvNetReLU", "Did you mean --model ConvNetReLU?"),
        ("fit Conv --trainer.max_epochs 1", "which network? Name one with --model."),
        ("fit ConvNetReLU-digits", "Did you mean --config ConvNetReLU-digits?"),
        ("fit --model", "--model: a value is missing."),
        ("fit --model=ConvNetDroput", "Did you mean ConvNetDropout?"),
        ("fit --model convnetrelu", "Did you mean ConvNetReLU?"),
        ("fit --model=nowhere.Net", "no module nowhere for nowhere.Net"),
        ("fit --model=json.dumps", "json.dumps: not a network (a subclass of Classifier)"),
        ("fit --model=Dense --data=os.path", "not a data set (a subclass of ImageData)"),
        ("fit --model=torch.nn.Linear", "not a network (a subclass of Classifier)"),
        ("fit --model=Dense --data=nowhere.Data", "no module nowhere for nowhere.Data"),
        ("fit --model=Dense --data=torch.nn.Linear", "not a data set (a subclass of ImageData)"),
        (f"{FIT} --trainer.accumulate_grad_batches 0", "accumulate_grad_batches 0: must be at lea"),
        (f"{FIT} --trainer.check_val_every_n_epoch 0", "check_val_every_n_epoch 0: must be at lea"),
        (f"{FIT} --trainer.enable_checkpointing false", "fit always keeps checkpoints."),
        (f"{FIT} --trainer.barebones true", "--trainer.barebones true: neither checkpoints"),
        ("test --ckpt_path=ConvNetReLU --trainer.barebones true", "barebones true: neither "),
        (f"{FIT} --trainer.val_check_interval 9999", "must be less than or equal to the number"),
        (f"{FIT} --trainer.limit_train_batches 0.0001", "less than one of the 130 minibatches"),
        (f"{FIT} --trainer.logger=WandbLogger", "Requirement 'wandb"),
        (
            f"{FIT} --trainer.max_epochs -1 --trainer.max_time 00:00:00:05"
            " --model.scheduler OneCycleLR",
            "OneCycleLR spans the whole run, which has no end: give --trainer.max_epochs",
        ),
        (
            f"{FIT} --model.scheduler StepLR --model.scheduler_args.step_size 0",
            "the learning-rate scheduler fails: integer modulo by zero.",
        ),
        (
            f"{FIT} --model.scheduler OneCycleLR --model.scheduler_args.div_factor 0",
            "OneCycleLR does not accept this: float division by zero.",
        ),
        ("fit --model=mnist_zoo.models.dense.Dens", "has no class Dens. Did you mean Dense?"),
        ("fit --config=ConvNetRelu-expand", "Did you mean ConvNetReLU-expanded?"),
        ("fit --config=nowhere.yaml", "nowhere.yaml: neither a file nor a recipe."),
        ("test", "which checkpoint? Name one with --ckpt_path"),
        ("models Dense x", "unknown argument x."),
        ("data to-text ~nobody/o.txt --data=Digits", "cannot write"),
        ("data to-text o.txt --val_size x", "x: expected a number of images, or a fraction."),
        ("data to-text o.txt --data=Digits --val_size nan", "must be a number from 0"),
        (f"predict {'x' * 300}.png --ckpt_path={'y' * 300}", "File name too long."),
        ("export --ckpt_path=ConvNetReLU --format=onnx --data=X", "--data and --root are for --m"),
        ("export --ckpt_path=ConvNetReLU --format=safetensors --out=x.bin", "end in .safetensors"),
        ("predict --model=Dense", "which checkpoint? Name one with --ckpt_path"),
        ("test --ckpt_path=last", "last: neither a file nor installed weights (there are "),
        ("fit --model=Dense --config", "--config"),
        (f"{FIT} again", "unknown argument again."),
        (f"{FIT} --trainer.acelerator cpu", "Did you mean --trainer.accelerator?"),
        (f"{FIT} --trainer.max_epoch 3", "Did you mean --trainer.max_epochs?"),
        (f"{FIT} --lr 3", "unknown option --lr."),
        (f"{FIT} --trainer.max_epochs two", "--trainer.max_epochs two: expected int."),
        (f"{FIT} --trainer.precision 17", "--trainer.precision 17: expected "),
        (f"{FIT} --seed_everything x", "--seed_everything x: expected "),
        (f"{FIT} --best.mode up", "--best.mode up: expected max or min."),
        (f"{FIT} --model.lr abc", "--model.lr abc: expected float."),
        (f"{FIT} --model.lr -1", "--model.lr -1.0: must be above 0."),
        (f"{FIT} --model.lr", "--model.lr: a value is missing."),
        ("fit --model --data Digits", "--model: a value is missing.\n"),
        ("test --ckpt_path --data Digits", "--ckpt_path: a value is missing.\n"),
        (f"{FIT} --config", "--config: a value is missing.\n"),
        (f"{FIT} --data=", "--data: a value is missing.\n"),
        (f"{FIT} --model.lr null", "--model.lr: expected float, but there is no value.\n"),
        (f"{FIT} --data.batch_size null", "--data.batch_size: expected int, but there is no "),
        (f"{FIT} --data.std null", "--data.std: expected float, but there is no value.\n"),
        (f"{FIT} --model.lr .inf", "--model.lr inf: must be above 0 and finite.\n"),
        (f"{FIT} --trainer.max_time 00:00:00:00", "max_time 00:00:00:00: trains nothing."),
        (f"{FIT} --trainer.gradient_clip_val -1", "--trainer.gradient_clip_val -1: is below 0."),
        (f"{FIT} --trainer.strategy ddp_spawn", "--trainer.strategy ddp_spawn: its processes"),
        (f"{FIT} --trainer.strategy ddp_fork", "--trainer.strategy ddp_fork: its processes"),
        ("fit --ckpt last.ckpt", "unknown option --ckpt. Did you mean --ckpt_path?"),
        ("test --weights=x", "unknown option --weights. Did you mean --ckpt_path?"),
        ("test --model runs/best.ckpt", "Did you mean --ckpt_path runs/best.ckpt?"),
        ("fit --model mine.yaml", "Did you mean --config mine.yaml?"),
        ("fit --model ../x/net.N", "--model ../x/net.N: in the folder ../x, use --model net.N"),
        ("fit --model /x/y/net.N", "--model /x/y/net.N: in the folder /x/y, use --model net.N"),
        ("sweep Dense --seeds 99999999999999999999", "For this seed alone: --seeds 999999999999"),
        ("sweep Dense --seeds 4294967296-4294967296", "seeds are from 0 to 4294967295"),
        ("results Dense --readme README.md", "writes the tables of all recipes: leave out Dense."),
        (
            "fit --model ConvNetBatchNorm-99.4",
            "that is a recipe of ConvNetBatchNorm, as in --config ConvNetBatchNorm-99.4\n",
        ),
        (f"{FIT} --model.lr 0,1", "--model.lr 0,1: expected float. Did you mean 0.1?"),
        ("train --model=Dense", "unknown command train. Did you mean fit?"),
        ("sweep", "which recipes?"),
        ("sweep Dense --seed 2", "unknown option --seed. Did you mean --seeds?"),
        ("sweep Nope", "Nope: neither a file nor a recipe."),
        (f"{FIT} --model.weight_decy 0.1", "Did you mean --model.weight_decay?"),
        (f"{FIT} --model.num_hidden 3", "unknown option --model.num_hidden."),
        (f"{DENSE} --model.num_hiden 3", "Did you mean --model.num_hidden?"),
        (
            f"{FIT} --data.xyz true",
            "unknown option --data.xyz.\nFor all options of Digits: mnist-zoo fit"
            " --data.help Digits\n",
        ),
        ("fit --model my-net.MyNet", "cannot be imported: my-net is no name in Python"),
        ("sweep Dense --model.lr 0.1, 0.2", "0.1, 0.2: leave out the space after the comma."),
        (f"{DENSE} --model.num_hidden 1.5", "--model.num_hidden 1.5: expected int."),
        (f"{FIT} --model.optimizer Adm", "Did you mean Adam?"),
        (f"{FIT} --model.optimizer_args.momentun 0.9", "momentun"),
        (f"{FIT} --model.optimizer_args 3", "--model.optimizer_args 3: expected "),
        (f"{FIT} --model.scheduler CosineAnnealing", "Did you mean CosineAnnealingLR?"),
        (f"{FIT} --model.scheduler StepLR", "step_size"),
        (f"{FIT} --model.optimizer_args.momentm 0.9", "Did you mean momentum?"),
        (f"{FIT} --model.optimizer LBFGS", "cannot be used"),
        (f"{FIT} --trainer.max_epochs 0", "--trainer.max_epochs 0: trains nothing."),
        (f"{FIT} --trainer.val_check_interval 0", "val_check_interval 0: must be at least 1."),
        (f"{FIT} --data.val_size 0 --model.scheduler ReduceLROnPlateau", "there is no validation"),
        ("fit --model=Dense --data Digitz", "--data Digitz: no such class. Did you mean Digits?"),
        ("fit --model=Dense --data Mnist", "Did you mean MNIST?"),
        ("fit --model=Dense --data Photographs", "Choose from "),
        (f"{FIT} --data.batchsize 3", "Did you mean --data.batch_size?"),
        (f"{FIT} --data.batch_size 0", "--data.batch_size 0: must be at least 1."),
        (f"{FIT} --data.batch_size ten", "--data.batch_size ten: expected int."),
        (f"{FIT} --data.val_size 5000", "--data.val_size 5000: leaves none of the 1,437"),
        (f"{FIT} --data.num_train 2000", "there are only 1,437 training images"),
        (f"{FIT} --data.root data", "unknown option --data.root."),
        ("fit --model=Dense --data=TextFile", "name it with --data.train_file."),
        ("fit --model=Dense --data.download=false --data.root=empty", "MNIST is not in "),
    ],
)  # fmt: skip
def test_a_mistyped_command_says_what_is_wrong(mistake, command, text):
    assert text in mistake(command)


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("lr", "--model.lr"),
        ("learning_rate", "--model.lr"),
        ("wd", "--model.weight_decay"),
        ("weight_decay", "--model.weight_decay"),
        ("optimizer", "--model.optimizer"),
        ("batch_size", "--data.batch_size"),
        ("batch-size", "--data.batch_size"),
        ("bs", "--data.batch_size"),
        ("epochs", "--trainer.max_epochs"),
        ("max_epochs", "--trainer.max_epochs"),
        ("device", "--trainer.accelerator"),
        ("accelerator", "--trainer.accelerator"),
        ("precision", "--trainer.precision"),
        ("seed", "--seed_everything"),
    ],
)
def test_a_name_of_other_projects_is_understood(name, flag):
    text = in_plain_words(f"unrecognized arguments: --{name}=3", options=(), classes={})
    assert text == f"unknown option --{name}. Did you mean {flag}?"


@pytest.mark.parametrize("option", ["--model.num_hidden", "--data.root"])
def test_an_option_that_other_classes_have_is_not_suggested(mistake, option):
    assert "Did you mean" not in mistake(f"{FIT} {option} 3")


def test_a_device_that_does_not_exist(mistake):
    assert "gqu" in mistake(FIT.replace("cpu", "gqu"))


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "tpu"])
def test_a_device_that_is_not_there(mistake, accelerator):
    if torch.cuda.is_available() and accelerator in ("gpu", "cuda"):
        pytest.skip("there is one")
    text = mistake(FIT.replace("cpu", accelerator))
    assert "--trainer.accelerator cpu" in text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("trainer: {max_epoch: 3}", "Did you mean trainer.max_epochs?"),
        ("model: {class_path: ConvNetReLu}", "Did you mean ConvNetReLU?"),
        ("model: {class_path: Dense, num_hidden: 3}", "num_hidden"),
        ("model: {class_path: Dense, init_args: {lr: high}}", "--model.lr high: expected float."),
        ("model: {class_path: mnist_zoo.models.Dens}", "has no class Dens. Did you mean Dense?"),
        ("model: nowhere.Net", "no module nowhere for nowhere.Net"),
        ("model: torch.nn.Linear", "torch.nn.Linear: not a network (a subclass of Classifier)"),
        ("model: {init_args: {lr: 1}}", "model has no class_path in the configuration."),
        (
            "{model: Dense, trainer: {callbacks: [{class_path: EarlyStopping}]}}",
            "EarlyStopping needs monitor: give --trainer.callbacks.monitor.",
        ),
        ("model: [Dense]", "model must be a name, or class_path and init_args below it."),
        ("trainer: {1: 2}", "1 is not the name of a setting."),
        (
            "model: Dense\ntrainer: {}\nmodel: MLPDropout",
            "mine.yaml, line 3: not valid YAML (model",
        ),
        ("trainer: [1, 2", "mine.yaml"),
        ("just words", "mine.yaml"),
    ],
)
def test_a_mistaken_configuration(mistake, tmp_path, content, text):
    (tmp_path / "mine.yaml").write_text(content)
    assert text in mistake("fit --config=mine.yaml --data=Digits")


def test_a_configuration_without_a_network(mistake, tmp_path):
    (tmp_path / "mine.yaml").write_text("trainer: {max_epochs: 1}")
    assert "which network? Name one with --model." in mistake("fit --config=mine.yaml")


def test_a_folder_in_place_of_a_configuration(mistake, tmp_path):
    (tmp_path / "configs").mkdir()
    assert "neither a file nor a recipe" in mistake("fit --config=configs")


def test_damaged_data(mistake, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(b"<html>Not found</html>")
    text = mistake("fit --model=Dense --data.root", tmp_path)
    assert "train-images-idx3-ubyte is damaged" in text
    assert "Delete it and run again" in text


def test_a_file_in_place_of_the_folder_of_data(mistake, tmp_path):
    (tmp_path / "data").touch()
    assert "cannot be written" in mistake("fit --model=Dense --data.root=data")


@pytest.mark.parametrize("file", ["runs", "runs/ConvNetReLU"])
def test_a_file_in_place_of_the_folder_of_runs(mistake, tmp_path, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    text = mistake(FIT)
    assert "cannot write to " in text
    assert "--trainer.default_root_dir DIR" in text


class TestCheckpoint:
    @pytest.fixture(params=["test", "fit"])
    def opened(self, request, mistake, tmp_path):
        """Have two commands open a checkpoint with this content."""

        def of(content):
            file = tmp_path / "a.ckpt"
            file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
            return mistake(request.param, "--ckpt_path=a.ckpt")

        return of

    def test_that_does_not_exist(self, mistake):
        assert "checkpoint nowhere.ckpt does not exist." in mistake("test --ckpt_path=nowhere.ckpt")

    def test_that_does_not_exist_names_the_newest_of_the_last_run(self, mistake, copied):
        text = mistake("test --ckpt_path nothing-like-it.ckpt")
        both = "There are best.ckpt and last.ckpt in runs/ConvNetReLU/version_0/checkpoints"
        assert text == f"checkpoint nothing-like-it.ckpt does not exist. {both}\n"

    def test_whose_neighbour_is_meant(self, mistake, copied):
        text = mistake("test --ckpt_path", copied.best.with_name("bst.ckpt"))
        assert f"Did you mean {copied.best}?" in text

    def test_that_is_a_folder(self, mistake, copied):
        text = mistake("test --ckpt_path", copied.best.parent)
        assert "is a folder, not a file. Did you mean " in text

    def test_that_is_empty(self, opened):
        assert "a.ckpt is empty: writing it was interrupted." in opened(b"")

    def test_that_is_cut_short(self, opened, trained):
        whole = trained.best.read_bytes()
        for size in (10, len(whole) // 2, len(whole) - 1):
            assert "a.ckpt is damaged: it is truncated" in opened(whole[:size]), size

    def test_that_is_no_checkpoint(self, opened):
        assert "a.ckpt is not a checkpoint" in opened(b"<html>Not found</html>")
        assert "a.ckpt is not a checkpoint" in opened(yaml.safe_dump({"lr": 1}).encode())

    @pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [1, 2], torch.zeros(3), None])
    def test_that_is_of_something_else(self, opened, content):
        assert "a.ckpt is not a checkpoint of an mnist-zoo network" in opened(content)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("callbacks", None), ("callbacks", [1]), ("callbacks", {"Last{}": 5}),
            ("pytorch-lightning_version", 5), ("pytorch-lightning_version", "x.y"),
            ("global_step", -5),
        ],
    )  # fmt: skip
    def test_in_which_an_entry_is_odd(self, opened, trained, key, value):
        content = torch.load(trained.best, weights_only=True)
        assert "a.ckpt is not a checkpoint of an mnist-zoo" in opened(content | {key: value})

    def test_whose_normalisation_is_no_number(self, opened, trained):
        content = torch.load(trained.best, weights_only=True)
        content["mnist_zoo"]["pixels"]["std"] = 10**400
        assert "is not usable" in opened(content)

    def test_that_is_of_a_network_that_is_not_known(self, opened, trained):
        content = torch.load(trained.best, weights_only=True)
        content["mnist_zoo"]["model"]["class_path"] = "theirs.Net"
        assert "a.ckpt is of theirs.Net, which is neither" in opened(content)

    def test_that_has_the_weights_of_another_network(self, opened, trained):
        content = torch.load(trained.best, weights_only=True)
        content["mnist_zoo"]["model"]["class_path"] = "mnist_zoo.models.convnet.ConvNetSimple"
        content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"] = 1
        text = opened(content)
        assert "do not fit the network" in text
        assert "--model" not in text

    def test_that_a_flag_does_not_fit(self, cli, mistake, trained, tmp_path):
        content = torch.load(trained.best, weights_only=True)
        network = mnist_zoo.models.Dense(num_hidden=7)
        content["mnist_zoo"]["model"]["class_path"] = "mnist_zoo.models.dense.Dense"
        content["mnist_zoo"]["model"]["init_args"] = dict(network.hparams)
        content["state_dict"] = network.state_dict()
        torch.save(content, tmp_path / "a.ckpt")
        cli("test", "--ckpt_path=a.ckpt")
        assert "--ckpt_path do not fit" in mistake("test --ckpt_path=a.ckpt --model.num_hidden=8")

    def test_that_has_an_option_which_its_data_has_not(self, opened, trained):
        content = torch.load(trained.best, weights_only=True)
        content["mnist_zoo"]["data"]["init_args"]["plain_epochs"] = 0
        said = "a.ckpt does not fit Digits of this version, which has no argument plain_epochs."
        assert said in opened(content)

    def test_that_has_an_option_which_its_network_has_not(self, opened, trained):
        content = torch.load(trained.best, weights_only=True)
        content["mnist_zoo"]["model"]["init_args"]["width"] = 3
        text = opened(content)
        assert "a.ckpt" in text
        assert "width" in text

    def test_that_has_no_optimizer_to_go_on_with(self, mistake, trained, tmp_path):
        content = torch.load(trained.best, weights_only=True)
        del content["optimizer_states"]
        torch.save(content, tmp_path / "a.ckpt")
        text = mistake("fit --ckpt_path=a.ckpt --trainer.max_epochs=9")
        assert "a.ckpt holds no optimizer state" in text

    def test_whose_weights_are_damaged(self, opened, trained):
        content = bytearray(trained.best.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 400] = bytes(400)
        assert "a.ckpt is damaged: a checksum does not match." in opened(bytes(content))


def test_a_network_that_fails_to_import(mistake, tmp_path):
    (tmp_path / "broken_net.py").write_text("import torch\n\nclass Net(torch.nn.Modul): ...\n")
    text = mistake("fit --model=broken_net.Net")
    assert "broken_net fails to import: AttributeError" in text
    assert "(broken_net.py, line 3)" in text


@pytest.mark.parametrize(
    ("flags", "base", "missing"),
    [
        ("--model=mine.Own", "models import Classifier", "__init__, which every network"),
        ("--model=Dense --data=mine.Own", "data import ImageData", "load, which every data set"),
    ],
)
def test_a_class_of_ones_own_that_is_not_whole(mistake, tmp_path, flags, base, missing):
    name = base.rpartition(" ")[2]
    (tmp_path / "mine.py").write_text(f"from mnist_zoo.{base}\n\nclass Own({name}): ...\n")
    assert f"mine.Own: lacks {missing} must have." in mistake(f"fit {flags}")


def test_a_minibatch_too_small_for_batch_norm(mistake, tmp_path):
    lines = (
        "from torch import nn",
        "from mnist_zoo.models import Classifier",
        "",
        "class Own(Classifier):",
        "    def __init__(self, **kwargs):",
        "        super().__init__(**kwargs)",
        "        layers = nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10)",
        "        self.layers = nn.Sequential(*layers)",
    )
    (tmp_path / "mine.py").write_text("\n".join(lines))
    flags = "--data=Digits --data.num_train=11 --data.val_size=0 --trainer.accelerator=cpu"
    text = mistake(f"fit --model=mine.Own {flags}")
    assert "batch normalisation cannot train on a single image" in text
    assert "Choose another --data.batch_size." in text


def test_a_callback_for_another_kind_of_network(mistake, tmp_path):
    where = f"--trainer.default_root_dir={tmp_path} --trainer.accelerator=cpu"
    error = mistake(DENSE, "--trainer.callbacks=BackboneFinetuning", where)
    assert "what the network does not have: 'Dense' object has no attribute 'backbone'" in error


@pytest.mark.parametrize(
    "callback",
    ["filename=best", "filename=last", "filename=own --trainer.callbacks.save_last=true"],
)
def test_a_checkpoint_that_would_overwrite_those_of_fit(mistake, callback):
    flags = f"--trainer.callbacks=ModelCheckpoint --trainer.callbacks.{callback}"
    assert "fit itself keeps best.ckpt and last.ckpt" in mistake(f"{FIT} {flags}")


def test_what_was_handled_before_a_mistake_does_not_hide_it(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from mnist_zoo.models import Dense\n\n\n"
        "class Net(Dense):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        try:\n"
        "            import no_such_module\n"
        "        except ModuleNotFoundError:\n"
        "            self.no_such_thing.use()\n"
    )
    with pytest.raises(AttributeError, match="no_such_thing"):
        cli("fit", "--model=mine.Net", "--data=Digits")


def test_a_configuration_of_aliases_is_read_in_no_time(mistake, tmp_path):
    lines = ["a0: &a0 {x: 1}"]
    lines += [
        f"a{n}: &a{n} {{{', '.join(f'k{k}: *a{n - 1}' for k in range(9))}}}" for n in range(1, 12)
    ]
    (tmp_path / "mine.yaml").write_text("\n".join([*lines, "ckpt_path: x"]))
    assert "ckpt_path is not read there" in mistake("fit --config=mine.yaml")


def test_control_codes_of_a_file_do_not_reach_the_terminal(mistake, trained, tmp_path):
    content = torch.load(trained.best, weights_only=True)
    content["mnist_zoo"]["model"]["class_path"] = "theirs.\x1b]0;title\x07Net"
    torch.save(content, tmp_path / "a.ckpt")
    text = mistake("test --ckpt_path=a.ckpt")
    assert "\x1b" not in text
    (tmp_path / "a.ckpt").rename(tmp_path / "\x1b]0;title\x07.ckpt")
    assert r"\x1b]0;title\x07.ckpt is not a checkpoint" in mistake(
        "test --ckpt_path", "\x1b]0;title\x07.ckpt"
    )


def test_the_reason_why_a_plugin_is_left_out_is_shown_as_it_is(cli, monkeypatch):
    monkeypatch.setattr(registry, "import_all", lambda: ["plugin X left out: no [/x]"])
    out = cli("fit", "--model=Dense", "--print_config").out
    assert out.startswith("warning: plugin X left out: no [/x]\n")
