import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "hello_neuron.py"
PUBLISHED = {
    "output before": 0.8506,
    "w1 after": 1.5814,
    "b1 after": -0.1383,
    "w2 after": 2.4529,
    "b2 after": -0.1062,
    "output after": 0.8515,
}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hello_neuron", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["hello_neuron"] = module
    spec.loader.exec_module(module)
    return module


def numbers(example, step):
    arguments = (example.INITIAL, example.INPUT, example.TARGET, example.LEARNING_RATE)
    before, parameters, after = getattr(example, step)(*arguments)
    return [before, *parameters, after]


@pytest.mark.parametrize("step", ["step_by_hand", "step_by_autograd"])
def test_a_step_gives_the_published_numbers(example, step):
    assert [round(number, 4) for number in numbers(example, step)] == list(PUBLISHED.values())


def test_both_ways_agree(example):
    by_hand, by_autograd = (numbers(example, s) for s in ("step_by_hand", "step_by_autograd"))
    assert by_hand == pytest.approx(by_autograd, abs=1e-6, rel=0)


def test_the_step_goes_downhill(example):
    before, *_, after = numbers(example, "step_by_hand")
    assert before < after < example.TARGET


def test_the_derivatives_are_those_of_the_loss(example):
    # Central differences: neither of the two ways is trusted here.
    def loss(parameters):
        (y, *_) = example.step_by_hand(parameters, x=0.3, target=0.2, lr=0.0)
        return (y - 0.2) ** 2

    start, small = example.Parameters(0.5, -0.4, -1.5, 0.7), 1e-6
    stepped = example.step_by_hand(start, x=0.3, target=0.2, lr=1.0).parameters
    for name in example.Parameters._fields:
        value = getattr(start, name)
        above = loss(start._replace(**{name: value + small}))
        below = loss(start._replace(**{name: value - small}))
        assert value - getattr(stepped, name) == pytest.approx((above - below) / (2 * small))


def test_the_script_prints_both_columns():
    result = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, encoding="utf-8", check=True
    )
    rows = result.stdout.splitlines()[2:]
    assert rows[0].split() == ["by", "hand", "autograd"]
    printed = {row[:14].strip(): [float(word) for word in row[14:].split()] for row in rows[1:]}
    assert printed == {name: [number, number] for name, number in PUBLISHED.items()}
    assert len({len(row) for row in rows}) == 1, "the columns are aligned"
    assert not result.stderr
