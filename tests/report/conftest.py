"""Records as a sweep writes them."""

import pytest


@pytest.fixture
def record():
    """Return a function that makes a record of a run."""
    return _record


def _record(seed, acc, status="finished", flags=()):
    base = {"recipe": "Dense", "recipe_sha256": "0", "flags": list(flags), "seed": seed}
    base |= {"status": status}
    if status == "crashed":
        return {**base, "reason": "ValueError: boom"}
    return {**base, "test_acc": acc, "seconds": 12.3}
