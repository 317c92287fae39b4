"""What TensorBoard shows of a run."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS_PER_EPOCH = 41  # 1,293 images in minibatches of 32


class TestTensorBoard:
    @pytest.fixture
    def events(self, trained):
        return EventAccumulator(str(trained.folder)).Reload()

    def test_has_every_curve(self, events):
        tags = set(events.Tags()["scalars"])
        assert {"train/loss", "train/acc", "val/loss", "val/acc"} <= tags
        assert any(tag.startswith("lr-") for tag in tags)

    def test_a_curve_has_a_point_an_epoch_at_its_last_step(self, events):
        for tag in ("train/loss", "train/acc", "val/loss", "val/acc"):
            steps = [event.step for event in events.Scalars(tag)]
            assert steps == [STEPS_PER_EPOCH * epoch - 1 for epoch in (1, 2, 3)], tag

    def test_shows_the_learning_rate(self, events):
        (tag,) = [tag for tag in events.Tags()["scalars"] if tag.startswith("lr-")]
        assert [event.value for event in events.Scalars(tag)] == pytest.approx([0.1] * 3)

    def test_has_a_row_of_hyperparameters_with_the_final_metrics(self, events):
        assert "_hparams_/session_start_info" in events.summary_metadata
        info = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        for name in (b"lr", b"batch_size", b"optimizer"):
            assert name in info
        for tag in ("val/acc", "val/loss", "train/acc", "train/loss"):
            assert events.Scalars(f"final/{tag}")[-1].value == events.Scalars(tag)[-1].value
