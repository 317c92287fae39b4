"""Flags of ``fit`` that do not change what is learnt."""

from __future__ import annotations

OF_THE_MACHINE = ("--data.root", "--data.download", "--trainer.accelerator")
"""Flags for the location of the data and for the device."""

WITHOUT_EFFECT = (
    *OF_THE_MACHINE, "--steps_per_execution", "--cuda_graph", "--channels_last", "--test_curve",
)  # fmt: skip
"""Flags that change at most the rounding in a run, where it is made, or what it also logs."""
