"""``mnist-zoo models``: every network with its size, recipes and figures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mnist_zoo import registry
from mnist_zoo.commands.shared import screen
from mnist_zoo.commands.shared.arguments import Parser
from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.recipes import recipe_hashes, recipes_of
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Accuracy, Record

if TYPE_CHECKING:
    from mnist_zoo.report.models_table import Row


def main(argv: list[str]) -> int:
    """Print the table of networks whose names match a pattern.

    Raises:
        ZooError: None matches, or the arguments are wrong.
    """
    arguments = _parser().parse_args(argv)
    pattern: str = arguments.pattern
    names = registry.list_models(pattern)
    if not names:
        hint = did_you_mean(pattern, registry.list_models())
        if registry.list_models(f"{pattern}*"):
            hint = f" Did you mean '{pattern}*'?"
        raise ZooError(f"no network matches {pattern}.{hint}\nAll networks: mnist-zoo models")

    made = run_records.read(registry.shipped("results"))
    records = run_records.current(made, recipe_hashes())
    if arguments.markdown:
        print(markdown(names, records))
        return 0

    from mnist_zoo.report.models_table import zoo_table

    console = screen.console()
    screen.print_table(zoo_table(_rows(names, records), console.width))
    console.print("\nTrain one:  mnist-zoo fit --model NETWORK  or  mnist-zoo fit --config RECIPE")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo models",
        description="List the networks of the zoo and of installed plugins, with their recipes.",
        epilog="examples:\n  mnist-zoo models\n  mnist-zoo models 'Conv*'",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*", help="shell pattern, case ignored; default: all"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    return parser


def markdown(networks: Iterable[str], records: Sequence[Record]) -> str:
    """Return the table of some networks in Markdown, with the figures of some records."""
    from mnist_zoo.report.models_table import markdown_table

    return markdown_table(_rows(networks, records))


def _rows(networks: Iterable[str], records: Sequence[Record]) -> list[Row]:
    """Return a row for each recipe of each network."""
    from mnist_zoo.report.models_table import Row

    found = []
    for network in networks:
        for recipe in recipes_of(network):
            made = run_records.measured(records, recipe.name, recipe.measured_with)
            source = recipe.facts.get("Source", "").partition(" (")[0]
            system = recipe.facts.get("System", "none")
            found.append(
                Row(
                    network,
                    recipe.facts.get("Parameters") or _count_parameters(network),
                    recipe.name,
                    recipe.published,
                    str(Accuracy.of(made)),
                    source if system.startswith("none") else f"{source} ({system})",
                )
            )
        if not recipes_of(network):
            found.append(Row(network, _count_parameters(network), "", "", "", ""))
    return found


def _count_parameters(network: str) -> str:
    """Count the parameters of a network that has no recipe to state them, such as a plugin."""
    from mnist_zoo.models.classifier import num_parameters

    try:
        return f"{num_parameters(registry.import_class(registry.class_path(network))()):,}"
    except Exception as error:  # a broken plugin must not hide the others
        print(f"warning: {network}: {error}", file=sys.stderr)
        return ""
