"""What the tests of training read of a run."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


@pytest.fixture
def curve():
    """Return the values of a tag of TensorBoard, in their order."""

    def values(run, tag):
        events = EventAccumulator(str(run)).Reload()
        return [event.value for event in events.Scalars(tag)]

    return values
