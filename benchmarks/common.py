"""What the benchmarks share."""

from __future__ import annotations

import os

# Flags with which a command trains as at a terminal: redirected, it would draw no progress bar.
AT_A_TERMINAL = ["--trainer.enable_progress_bar=true"]
# By this the library of the bar draws it on what is no terminal, too.
os.environ |= {"FORCE_COLOR": "1", "TERM": "xterm"}
