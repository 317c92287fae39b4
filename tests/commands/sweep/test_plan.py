"""The runs that recipes, flags and seeds come to, and what makes a run another one."""

import contextlib

import pytest

from mnist_zoo.commands.sweep import command as sweep
from mnist_zoo.commands.sweep import plan as plans
from mnist_zoo.errors import ZooError
from mnist_zoo.recipes import all_recipes


def test_the_plan_is_the_product_of_recipes_values_and_seeds(plan):
    runs = plan(["--model.lr", "1,2", "--data.batch_size=5"], recipes=("Dense", "ConvNetReLU"))
    assert len(set(runs)) == len(runs) == 8
    assert runs[0].recipe == "Dense"
    assert runs[0].flags == ("--model.lr=1", "--data.batch_size=5")
    assert [run.seed for run in runs[:2]] == [0, 1]
    assert len({run.folder for run in runs}) == 8


def test_a_recipe_that_is_given_twice_counts_once(plan, monkeypatch, cli):
    planned = []
    monkeypatch.setattr(sweep, "runs_of", lambda recipes, *_: planned.extend(recipes) or iter(()))
    with contextlib.suppress(Exception):
        sweep.main(["Dense", "ConvNetReLU", "Dense"])
    assert planned == ["Dense", "ConvNetReLU"]


@pytest.mark.parametrize(
    ("flag", "counts"),
    [
        ("--trainer.precision=bf16-mixed", True),
        ("--channels_last=false", False),
        ("--trainer.max_epochs=2", True),
        ("--trainer.accelerator=cpu", False),
        ("--data.root=here", False),
        ("--steps_per_execution=3", False),
        ("--cuda_graph=false", False),
    ],
)
def test_what_may_change_the_outcome_makes_another_run(plan, flag, counts):
    (plain,), (changed,) = plan(seeds=[0]), plan([flag], seeds=[0])
    assert (plain.key != changed.key) is counts
    assert (plain.folder != changed.folder) is counts


@pytest.mark.parametrize(
    ("text", "alternatives"),
    [
        ("0.03", ["0.03"]),
        ("0.03,0.005", ["0.03", "0.005"]),
        ("{pct_start: 0.25, three_phase: false}", ["{pct_start: 0.25, three_phase: false}"]),
        ("[1, 2],[3, [4, 5]]", ["[1, 2]", "[3, [4, 5]]"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ('"it\'s, so",b', ['"it\'s, so"', "b"]),
        ("", [""]),
    ],
)
def test_commas_divide_values_save_within_brackets(text, alternatives):
    assert plans._alternatives(text) == alternatives


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [0, 1, 2]),
        ("3,7,9", [3, 7, 9]),
        ("5-9", [5, 6, 7, 8, 9]),
        ("7-7,1", [7, 1]),
    ],
)
def test_seeds_are_a_number_or_themselves(text, seeds):
    assert plans.parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("seeds", "named"), [([0], "seed 0"), ([0, 1, 2], "seeds 0 to 2"), ([7, 3], "seeds 7, 3")]
)
def test_seeds_are_named_before_the_runs(seeds, named):
    assert plans.in_words(seeds) == named


@pytest.mark.parametrize("text", ["", "0", "a", "-1", "1,", "2:3", "9-5"])
def test_other_seeds_are_refused(text):
    with pytest.raises(ZooError, match="--seeds"):
        plans.parse_seeds(text)


def test_what_changes_nothing_is_no_setting(plan):
    one, other = (
        plan(flags, seeds=[0])[0]
        for flags in (["--model.lr=1"], ["--model.lr=1", "--data.root=x", "--test_curve=true"])
    )
    assert one.key == other.key
    assert one.folder == other.folder
    assert other.of_the_machine == ("--data.root=x",)


@pytest.mark.parametrize(
    "flag",
    [
        "--data.root=x",
        "--trainer.accelerator=cpu",
        "--steps_per_execution=3",
        "--cuda_graph=false",
        "--test_curve=true",
    ],
)
def test_none_of_these_makes_another_run(flag, plan):
    assert [run.key for run in plan([flag])] == [run.key for run in plan()]


def test_a_recipe_that_was_changed_makes_another_run(tmp_path, plan):
    files = []
    for number, lr in enumerate((1, 2)):
        files.append(tmp_path / str(number) / "Mine.yaml")
        files[-1].parent.mkdir()
        files[-1].write_text(f"# {number}\nmodel: {{class_path: Dense, init_args: {{lr: {lr}}}}}")
    one, other = (plan(recipes=[str(file)], seeds=[0])[0] for file in files)
    assert one.recipe == other.recipe == "Mine"
    assert one.folder != other.folder
    files[1].write_text(files[0].read_text().replace("# 0", "# another comment"))
    assert plan(recipes=[str(files[1])], seeds=[0])[0].folder == one.folder


def test_a_flag_that_is_given_twice_is_passed_on_twice(plan):
    callbacks = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks+=Timer"]
    assert plan(callbacks, seeds=[0])[0].flags == tuple(callbacks)


def test_any_other_flag_may_not_be_given_twice(plan):
    with pytest.raises(ZooError, match=r"--model.lr is given twice; .*: --model.lr 1,2"):
        plan(["--model.lr=1", "--model.lr", "2"])


def test_a_value_that_is_given_twice_makes_one_run(plan):
    assert len(plan(["--model.lr=1,1"], seeds=[0])) == 1


@pytest.mark.parametrize(
    ("flag", "values"), [("--trainer.accelerator", "cpu,auto"), ("--cuda_graph", "true,false")]
)
def test_several_values_of_what_changes_nothing_are_refused(flag, values, plan):
    with pytest.raises(ZooError, match=f"{flag} {values}: records do not tell its values apart"):
        plan([flag, values])


def test_the_settings_of_each_callback_stay_with_it(plan):
    def stopping(*monitors):
        return [
            flag
            for monitor, patience in monitors
            for flag in (
                "--trainer.callbacks+=EarlyStopping",
                f"--trainer.callbacks.monitor={monitor}",
                f"--trainer.callbacks.patience={patience}",
            )
        ]

    flags = [
        stopping(("val/loss", 1), ("train/loss", 50)),
        stopping(("val/loss", 50), ("train/loss", 1)),
    ]
    one, other = (plan(given, seeds=[0])[0] for given in flags)
    assert sorted(one.flags) == sorted(other.flags)
    assert one.key != other.key
    assert one.folder != other.folder
    between = plan([*flags[0][:3], "--model.lr=1", *flags[0][3:]], seeds=[0])[0]
    assert between.key == plan(["--model.lr=1", *flags[0]], seeds=[0])[0].key


def test_the_order_of_flags_makes_no_other_run(plan):
    flags = "--model.lr=1", "--data.batch_size=5"
    one, other = (plan(order, seeds=[0])[0] for order in (flags, flags[::-1]))
    assert one.key == other.key
    assert one.folder == other.folder


@pytest.mark.parametrize("flags", [
    ["--model.optimizer_args.nesterov=true", "--model.optimizer_args={momentum: 0.9}"],
    ["--trainer.profiler.filename=a", "--trainer.profiler=SimpleProfiler"],
    ["--model.momentum=0.5", "--model.init_args={momentum: 1}"],
    ["--data.init_args.val_size=3", "--data={class_path: Digits, init_args: {val_size: 1}}"],
])  # fmt: skip
def test_the_order_of_a_setting_and_its_parts_makes_another(flags, plan):
    one, other = (
        plan([*order, "--trainer.max_epochs=1"], seeds=[0])[0] for order in (flags, flags[::-1])
    )
    assert one.key != other.key
    assert one.folder != other.folder
    assert other.key == plan(["--trainer.max_epochs=1", *flags[::-1]], seeds=[0])[0].key


def test_the_order_of_a_class_and_its_settings_makes_none(plan):
    flags = "--data.val_size=0", "--data=FashionMNIST"
    one, other = (plan(order, seeds=[0])[0] for order in (flags, flags[::-1]))
    assert one.key == other.key


def test_a_class_and_all_its_settings_may_both_be_given(plan):
    assert len(plan(["--model=Dense", "--model.init_args={lr: 1}"], seeds=[0])) == 1


def test_a_setting_may_not_be_given_twice_under_two_names(plan):
    with pytest.raises(ZooError, match=r"--model.init_args.lr is given twice"):
        plan(["--model.lr=1", "--model.init_args.lr", "2"])


def test_two_recipes_of_one_name_are_refused(tmp_path, plan):
    for number in (1, 2):
        file = tmp_path / str(number) / "Mine.yaml"
        file.parent.mkdir()
        file.write_text(f"model: {{class_path: Dense, init_args: {{lr: {number}}}}}")
    with pytest.raises(ZooError, match="two recipes are called Mine"):
        plan(recipes=[str(tmp_path / "1/Mine.yaml"), str(tmp_path / "2/Mine.yaml")])


def test_a_file_that_is_called_like_a_recipe_must_have_its_settings(tmp_path, plan):
    file = tmp_path / "Dense.yaml"
    file.write_text(all_recipes()["Dense"].path.read_text())
    assert plan(recipes=[str(file)]) == plan()
    file.write_text("model: Dense")
    with pytest.raises(ZooError, match=r"Dense\.yaml: the zoo has a recipe Dense with other"):
        plan(recipes=[str(file)])


def test_a_network_of_the_zoo_has_its_recipe_by_its_path_too(plan):
    paths = ["mnist_zoo.models.Dense", "mnist_zoo.models.dense.Dense", "Dense"]
    assert len({plan(recipes=[path], seeds=[0])[0].key for path in paths}) == 1
