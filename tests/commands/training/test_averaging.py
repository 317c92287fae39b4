"""A moving average of the weights: what is kept of a run, and that it goes on exactly."""

import pytest
import torch

from mnist_zoo.engine.average import Average

LAST = "runs/ConvNetReLU/version_{}/checkpoints/last.ckpt"


def read(folder, version=0):
    return torch.load(folder / LAST.format(version), weights_only=True)


def test_the_average_is_kept_and_the_weights_beside_it(fit, tmp_path):
    fit("--average.decay=0.9", "--average.every_n_steps=3")
    saved = read(tmp_path)
    averaged, current = saved["state_dict"], saved["current_model_state"]
    assert averaged.keys() == current.keys()
    assert not torch.equal(averaged["layers.0.0.weight"], current["layers.0.0.weight"])

    fit()
    plain = read(tmp_path, version=1)["state_dict"]
    torch.testing.assert_close(current, plain, rtol=0, atol=0)


def test_the_average_is_the_one_that_was_asked_for(fit, monkeypatch):
    made = []
    monkeypatch.setattr(
        "mnist_zoo.commands.training.fit.Average",
        lambda **settings: made.append(settings) or Average(**settings),
    )
    fit("--average.decay=0.75", "--average.every_n_steps=4", "--trainer.limit_train_batches=2")
    assert made == [{"decay": 0.75, "update_every_n_steps": 4}]


@pytest.mark.parametrize(
    ("precision", "kept"),
    [
        ("64-true", torch.float64),
        ("32-true", torch.float32),
        ("bf16-mixed", torch.float32),
        ("bf16-true", torch.float32),
    ],
)
def test_the_average_is_kept_in_no_less_than_single_precision(fit, tmp_path, precision, kept):
    # A rate at which weights move in half precision, too.
    flags = "--average.decay=0.9", "--trainer.limit_train_batches=3", "--model.lr=0.5"
    fit(*flags, f"--trainer.precision={precision}")
    saved = read(tmp_path)
    averaged, current = saved["state_dict"], saved["current_model_state"]
    assert averaged["layers.0.0.weight"].dtype == kept
    assert not torch.equal(averaged["layers.0.0.weight"], current["layers.0.0.weight"].to(kept))


@pytest.mark.parametrize("callback", ["EMAWeightAveraging", "StochasticWeightAveraging"])
def test_there_is_only_one_average(fit, callback):
    swa = ["--trainer.callbacks.swa_lrs=0.1"] if callback.startswith("Stoch") else []
    flags = ["--average.decay=0.9", f"--trainer.callbacks+={callback}", *swa]
    error = fit(*flags, status=2).err
    assert "a run can have only one average of its weights" in error
    assert callback in error


@pytest.mark.slow
def test_a_resumed_run_averages_on(fit, cli, tmp_path):
    fit("--average.decay=0.9", "--average.every_n_steps=3", epochs=2)
    fit("--average.decay=0.9", "--average.every_n_steps=3")
    cli("fit", f"--ckpt_path={LAST.format(1)}", "--trainer.max_epochs=2")
    whole, resumed = read(tmp_path), read(tmp_path, version=1)
    assert whole["global_step"] == resumed["global_step"]
    for weights in ("state_dict", "current_model_state"):
        torch.testing.assert_close(whole[weights], resumed[weights], rtol=0, atol=0)


@pytest.mark.parametrize(
    "flag", ["--average.decay=1.5", "--average.decay=1", "--average.every_n_steps=0"]
)
def test_what_cannot_be_averaged_is_refused(fit, flag):
    flags = {"--average.decay=0.9", flag} if "every" in flag else {flag}
    error = fit(*flags, status=2).err
    assert error.startswith("error: " + flag.replace("=", " "))
    assert "must be" in error
