"""``mnist-zoo models``: every network with its size, recipes and figures."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from mnist_zoo import registry
from mnist_zoo.commands.arguments import Parser
from mnist_zoo.errors import ZooError, did_you_mean


def main(argv: list[str]) -> int:
    """Print the table of networks whose names match a pattern."""
    parser = Parser(
        prog="mnist-zoo models",
        description="List the networks of the zoo and of installed plugins, with their recipes.",
        epilog="examples:\n  mnist-zoo models\n  mnist-zoo models 'Conv*'",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="shell pattern, case ignored; default: all"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    arguments = parser.parse_args(argv)
    pattern: str = arguments.pattern
    names = registry.list_models(pattern)
    if not names:
        hint = did_you_mean(pattern, registry.list_models())
        raise ZooError(f"no network matches {pattern}.{hint}\nAll networks: mnist-zoo models")

    from rich.console import Console

    from mnist_zoo.report import results
    from mnist_zoo.report.zoo import Row, markdown_table, zoo_table

    records = results.read(registry.shipped("results"))
    rows = [
        Row(name, size, recipe, published, results.measured(records, recipe), source)
        for name in names
        for size, recipe, published, source in _recipes_of(name)
    ]
    if arguments.markdown:
        print(markdown_table(rows))
        return 0
    console = Console(highlight=False)
    console.print(zoo_table(rows, with_source=console.width >= 100))
    console.print("\nTrain one:  mnist-zoo fit --model NETWORK  or  mnist-zoo fit --config RECIPE")
    return 0


def _recipes_of(network: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield parameters, name, published accuracy and source of each recipe of a network."""
    recipes = registry.recipes_of(network)
    for recipe in recipes:
        facts = recipe.facts
        percent = re.match(r"[\d.]+ %", facts.get("Published", ""))
        yield (
            facts.get("Parameters") or _count_parameters(network),
            recipe.name,
            percent[0] if percent else "",
            facts.get("Source", "").partition(" (")[0],
        )
    if not recipes:
        yield _count_parameters(network), "", "", ""


def _count_parameters(network: str) -> str:
    """Count the parameters of a network that has no recipe to state them, such as a plugin."""
    from mnist_zoo.models.classifier import num_parameters

    try:
        return f"{num_parameters(registry.import_class(registry.class_path(network))()):,}"
    except Exception as error:  # whatever a plugin does, the others are listed
        print(f"warning: {network}: {error}", file=sys.stderr)
        return ""
