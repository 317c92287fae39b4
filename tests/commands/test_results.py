"""``mnist-zoo results``: the table of the records, and where it is written."""

from pathlib import Path

import pytest

from mnist_zoo.recipes import all_recipes, settings_hash
from mnist_zoo.report import run_records


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def recorded(seed, acc, recipe="Dense", flags=("--data.val_size=0",), **changed):
    config = all_recipes()[recipe].path.read_text(encoding="utf-8")
    return {
        "recipe": recipe,
        "flags": list(flags),
        "seed": seed,
        "status": "finished",
        "recipe_sha256": settings_hash(config),
        "test_acc": acc,
        "seconds": 60.0,
        "device": "cpu",
        "versions": {"torch": "2.6", "lightning": "2.6.0"},
        "date": "2026-01-01",
        "epochs": {"train/acc": [0.5, 0.75], "train/loss": [1.0, 0.5]},
        **changed,
    }


@pytest.fixture
def records(tmp_path):
    """Records in the folder in which ``cli`` runs."""

    def write(*made):
        for record in made:
            run_records.append(tmp_path / "results", record)

    return write


def first_table(out):
    return [line.split() for line in out.split("\n\n")[0].splitlines()]


@pytest.mark.parametrize(("accs", "holds"), [((0.97, 0.98), "yes"), ((0.96, 0.97), "no")])
def test_a_figure_is_set_beside_the_published_one(cli, records, accs, holds):
    records(*(recorded(seed, acc) for seed, acc in enumerate(accs)))
    header, line, flags = first_table(cli("results").out)
    assert header[-2:] == ["published", "holds"]
    assert line[0] == "Dense"
    assert line[-3:] == ["97.85", "%", holds]
    assert flags == ["--data.val_size=0"]


def test_another_run_than_the_published_one_is_not_set_beside_it(cli, records):
    records(recorded(0, 0.97, flags=("--data.val_size=0", "--model.lr=1")))
    assert "97.85" not in cli("results").out


def test_it_says_how_the_runs_were_made(cli, records):
    records(recorded(0, 0.97), recorded(1, 0.98, seconds=80.0, date="2026-01-03"))
    text = cli("results").out
    assert "70  " in text
    for word in ("cpu", "2.6.0", "2026-01-01–", "2026-01-03"):
        assert word in text


def test_recipes_are_chosen_by_name(cli, records):
    records(recorded(0, 0.97), recorded(0, 0.96, recipe="MLPDropout", flags=()))
    assert "MLPDropout" not in cli("results", "Dense").out
    assert "Did you mean Dense?" in cli("results", "Densee", status=2).err


def test_without_records_it_says_who_writes_them(cli, tmp_path):
    assert "mnist-zoo sweep" in cli("results", "--results", tmp_path / "none", status=2).err


def test_records_of_another_recipe_of_that_name_are_left_out(cli, records):
    records(recorded(0, 0.97), recorded(1, 0.5, recipe_sha256="of other settings"))
    result = cli("results")
    assert "1 records of Dense left out" in result.err
    assert first_table(result.out)[1][:3] == ["Dense", "1", "97.00"]


def test_the_tables_are_written_between_their_marks_only(cli, records, tmp_path):
    records(recorded(0, 0.975), recorded(1, 0.985))
    readme = tmp_path / "README.md"
    readme.write_text(
        "above\n<!-- begin: mnist-zoo models --markdown -->\noutdated\n<!-- end -->\nbetween\n"
        "<!-- begin: something else -->\nkept\n<!-- end -->\n"
        "<!-- begin: mnist-zoo results --markdown -->\n<!-- end -->\nbelow\n"
    )
    cli("results", "--readme", readme)
    text = readme.read_text()
    assert "outdated" not in text
    assert "kept" in text
    assert text.startswith("above\n")
    assert text.endswith("below\n")
    assert "| 98.00 ± 0.71 % (2) |" in text
    assert cli("results", "--markdown").out.strip() in text
    cli("results", "--readme", readme)
    assert readme.read_text() == text
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["README.md"]


def test_a_file_keeps_its_line_ends(cli, records, tmp_path):
    records(recorded(0, 0.975))
    readme = tmp_path / "README.md"
    readme.write_bytes(
        b"above\r\n<!-- begin: mnist-zoo results --markdown -->\r\n<!-- end -->\r\nbelow\n"
    )
    cli("results", "--readme", readme)
    above, *table, end, below = readme.read_bytes().split(b"\n")[:-1]
    assert len(table) == 4
    assert all(line.endswith(b"\r") for line in (above, *table, end))
    assert below == b"below"


def test_a_file_without_a_mark_stays_as_it_is(cli, records, tmp_path):
    records(recorded(0, 0.975))
    (tmp_path / "plain.md").write_text("nothing\n")
    assert "no place for a table" in cli("results", "--readme", "plain.md", status=2).err
    assert (tmp_path / "plain.md").read_text() == "nothing\n"
    assert "absent.md" in cli("results", "--readme", "absent.md", status=2).err


def test_a_figure_by_epoch_is_drawn(cli, records, tmp_path):
    records(recorded(0, 0.97), recorded(1, 0.98))
    cli("results", "--plot", "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[1:4] == b"PNG"
    result = cli("results", "--plot", "other.png", "--tag", "train/los", status=2)
    assert "Did you mean train/loss?" in result.err
    assert not (tmp_path / "other.png").exists()
    assert "must end in .png" in cli("results", "--plot", "curves.jpg", status=2).err


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, which are written nowhere."""
    drawn = []
    monkeypatch.setattr("mnist_zoo.report.pictures.save", lambda figure, file: drawn.append(figure))
    return drawn


def test_the_legend_says_what_differs_and_nothing_else(cli, records, figures):
    callbacks = ["--trainer.callbacks+=Timer", "--trainer.callbacks+=Own"]
    for flags in ((), ("--model.lr=1",), ("--model.lr=2", *callbacks)):
        records(recorded(0, 0.9, flags=("--data.val_size=0", *flags)))
    cli("results", "--plot=a.png")
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts] == [
        "Dense", "lr 1", "lr 2, callbacks+ Timer, Own",
    ]  # fmt: skip


def test_a_figure_of_the_test_images_says_that_it_chose_nothing(cli, records, figures):
    epochs = {"train/acc": [0.5, 0.7], "test_curve/acc": [0.5, 0.6]}
    records(recorded(0, 0.97, epochs=epochs))
    cli("results", "--plot=a.png")
    cli("results", "--plot=a.png", "--tag=test_curve/acc")
    heading = "Dense: mean over seeds, lowest to highest"
    assert [(axes.get_ylabel(), axes.get_title("left")) for f in figures for axes in f.axes] == [
        ("train/acc", heading),
        ("test_curve/acc", f"{heading}; nothing was chosen by it"),
    ]


def test_a_file_that_cannot_be_written_whole_stays_as_it_is(cli, records, tmp_path, monkeypatch):
    records(recorded(0, 0.975))
    text = "above\n<!-- begin: mnist-zoo results --markdown -->\n<!-- end -->\n"
    (tmp_path / "plain.md").write_text(text)

    def half(self, text, encoding, newline):
        self.write_bytes(text.encode(encoding)[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        assert "No space left" in cli("results", "--readme", "plain.md", status=2).err
    assert (tmp_path / "plain.md").read_text() == text


def test_recipes_that_lack_the_curve_are_named(cli, records):
    records(
        recorded(0, 0.9),
        recorded(0, 0.9, recipe="ConvNetReLU", epochs={"val/acc": [0.5, 0.6], "val/loss": [2, 1]}),
    )
    result = cli("results", "--plot=a.png", "--tag=val/acc")
    assert "warning: not drawn, without val/acc by epoch: Dense --data.val_size=0\n" in result.err
    result = cli("results", "--plot=a.png")
    assert (
        "warning: not drawn, without train/acc by epoch: ConvNetReLU --data.val_size=0\n"
        in result.err
    )


def test_a_recipe_without_records_is_told_from_a_typing_error(cli, records):
    records(recorded(0, 0.9))
    error = cli("results", "ConvNetUnpadded", status=2).err
    assert error.splitlines()[1] == "To make some: mnist-zoo sweep ConvNetUnpadded"
    assert "Did you mean Dense?" in cli("results", "Dens", status=2).err


def test_a_file_to_write_and_a_table_to_print_are_two_commands(cli, records):
    records(recorded(0, 0.9))
    assert "give one of them" in cli("results", "--readme=a.md", "--markdown", status=2).err
