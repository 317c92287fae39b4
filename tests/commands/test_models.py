"""``mnist-zoo models``: the table of the zoo."""

import pytest

from mnist_zoo import registry
from mnist_zoo.recipes import all_recipes, recipes_of


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def rows(out):
    return [line.split() for line in out.split("\n\n")[0].splitlines()[1:]]


def test_lists_every_network_once_and_every_recipe(cli):
    out = cli("models").out
    listed = rows(out)
    for network in registry.builtin_networks():
        assert [row[0] for row in listed].count(network) >= 1
        assert f"{network} " in out
    words = {word for row in listed for word in row}
    assert all_recipes().keys() <= words


def test_shows_size_recipe_published_accuracy_and_source(cli):
    (row,) = [row for row in rows(cli("models").out) if row[0] == "Dense"]
    assert row[:5] == ["Dense", "79,510", "Dense", "97.85", "%"]
    assert row[-5:] == ["Nielsen", "2015,", "ch.", "1", "(S1)"]


def test_further_recipes_stand_below_the_first_of_their_network(cli):
    listed = rows(cli("models").out)
    (first,) = [i for i, row in enumerate(listed) if row[0] == "ConvNetReLU"]
    assert listed[first][1:5] == ["85,670", "ConvNetReLU", "99.43", "%"]
    further = listed[first + 1 : first + len(recipes_of("ConvNetReLU"))]
    assert [row[0] for row in further] == sorted(row[0] for row in further)
    assert ["ConvNetReLU-decay", "85.31", "%"] in [row[:3] for row in further]
    assert ["ConvNetReLU-expanded", "99.51", "%"] in [row[:3] for row in further]


def test_a_recipe_with_another_source_than_the_first_names_it(cli):
    (line,) = [line for line in cli("models").out.splitlines() if "ConvNetReLU-digits" in line]
    assert "this project" in line


def test_a_pattern_chooses_ignoring_case(cli):
    listed = rows(cli("models", "mlp*").out)
    assert [row[0] for row in listed] == ["MLPDropout", "MLPLogSoftmax"]


def test_says_how_to_train_one(cli):
    assert "mnist-zoo fit --model NETWORK" in cli("models", "Dense").out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ConvNetRelux"], "no network matches ConvNetRelux. Did you mean ConvNetReLU?"),
        (["Trans*"], "no network matches Trans*."),
        (["Conv"], "no network matches Conv. Did you mean 'Conv*'?"),
        (["--al"], "unknown option --al."),
        (["Dense", "MLP*"], "MLP*"),
    ],
)
def test_a_mistake_is_answered_in_plain_words(cli, arguments, text):
    result = cli("models", *arguments, status=2)
    assert result.err.startswith("error: ")
    assert text in result.err
    assert len(result.err.splitlines()) == 2


def test_fits_a_narrow_terminal(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = cli("models").out
    assert max(map(len, out.splitlines())) <= 80
    for name in all_recipes():
        assert name in out
