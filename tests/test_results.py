"""The records in results/: complete, and of the recipes as they are now."""

import pytest

from mnist_zoo import registry
from mnist_zoo.recipes import all_recipes, settings_hash
from mnist_zoo.report import run_records

RECORDS = run_records.read(registry.shipped("results"))


def test_there_are_records():
    assert RECORDS


@pytest.mark.parametrize("record", RECORDS, ids=[f"{r['recipe']}-{r['seed']}" for r in RECORDS])
def test_a_record_says_all_that_a_figure_must(record):
    recipe = all_recipes()[record["recipe"]]
    assert record["recipe_sha256"] == settings_hash(recipe.path.read_text()), (
        "made with other settings"
    )
    assert record["status"] in ("finished", "diverged")
    assert 0 <= record["test_acc"] <= 1
    assert record["weights"] == ("last" if "--data.val_size=0" in record["flags"] else "best")
    assert record["device"]
    assert record["device_name"]
    assert record["num_threads"]
    assert record["date"]
    is_ensemble = any(flag.startswith("--ensemble") for flag in record["flags"])
    assert is_ensemble or record["epochs"]
    assert {"mnist-zoo", "torch", "lightning", "python"} <= set(record["versions"])
