"""The records in results/: complete, and of the recipes as they are now."""

import pytest

from mnist_zoo import registry
from mnist_zoo.commands.sweep import settings_hash
from mnist_zoo.report import results

RECORDS = results.read(registry.shipped("results"))


@pytest.mark.parametrize("record", RECORDS, ids=[f"{r['recipe']}-{r['seed']}" for r in RECORDS])
def test_a_record_says_all_that_a_figure_must(record):
    recipe = registry.recipes()[record["recipe"]]
    assert record["recipe_sha256"] == settings_hash(recipe.path), "made with other settings"
    assert record["status"] in ("finished", "diverged")
    assert 0 <= record["test_acc"] <= 1
    assert record["weights"] == ("last" if "--data.val_size=0" in record["flags"] else "best")
    assert record["device"]
    assert record["date"]
    assert {"mnist-zoo", "torch", "lightning", "python"} <= set(record["versions"])


def test_what_is_measured_is_the_published_run_where_there_is_one():
    def record(seed, acc, flags):
        return {"recipe": "A", "flags": flags, "seed": seed, "status": "finished", "test_acc": acc}

    published = [record(0, 0.90, ["--data.val_size=0"]), record(1, 0.92, ["--data.val_size=0"])]
    plain = [record(0, 0.5, [])]
    assert results.measured(plain + published, "A") == "91.00 ± 1.41 % (2)"
    assert results.measured(plain, "A") == "50.00 % (1)"
    assert results.measured([*plain, record(0, 0.1, ["--model.lr=9"])], "A") == "50.00 % (1)"
    assert results.measured(plain, "B") == ""
