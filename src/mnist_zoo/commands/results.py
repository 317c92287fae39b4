"""``mnist-zoo results``: the recorded figures, compared with the published ones.

A table of records chooses nothing, since its runs are over. It also shows what a choice may be
based on: the validation accuracy of the tested weights.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_zoo import registry
from mnist_zoo.commands import models
from mnist_zoo.commands.shared import by_epoch, screen
from mnist_zoo.commands.shared.arguments import Parser
from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.files import expanded, whole
from mnist_zoo.recipes import all_recipes, recipe_hashes
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Accuracy, Record

if TYPE_CHECKING:
    from mnist_zoo.report.results_table import Row

_MARKED = re.compile(r"(<!-- begin: (mnist-zoo [^>]*?) -->\r?\n).*?(?=<!-- end -->)", flags=re.S)


def main(argv: list[str]) -> int:
    """Print the table of the records, or write it to a file."""
    arguments = _parser().parse_intermixed_args(argv)
    by_epoch.check_options(arguments.plot, arguments.tag)
    if arguments.readme and arguments.recipes:
        raise ZooError(
            f"--readme writes the tables of all recipes: leave out {' '.join(arguments.recipes)}."
        )
    if arguments.readme and arguments.markdown:
        raise ZooError("--readme writes to a file, --markdown prints: give one of them.")
    records = _records(arguments.results, arguments.recipes)
    rows = _rows(records)
    if arguments.readme:
        _write_tables(arguments.readme, rows, records)
        print(f"tables written to {arguments.readme}")
    elif arguments.markdown:
        from mnist_zoo.report import results_table

        print(results_table.markdown(rows))
    else:
        _print(rows)
    if arguments.plot:
        by_epoch.plot(records, arguments.plot, arguments.tag)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo results",
        description="Print test accuracy over seeds, from the records that sweep has written,\n"
        "and whether the published figure holds: the mean must be higher, or lower by no more\n"
        "than the Tolerance in the head of the recipe, or within it if that is a range.",
        epilog="examples:\n  mnist-zoo results\n  mnist-zoo results MLPLogSoftmax --markdown",
    )
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="default: all on record")
    parser.add_argument(
        "--results",
        type=expanded,
        help="folder of the records; default: results, or those of this project",
    )
    parser.add_argument("--markdown", action="store_true", help="print one table in Markdown")
    parser.add_argument(
        "--readme",
        type=expanded,
        metavar="FILE",
        help="update the tables between the marks in a file",
    )
    by_epoch.add_options(parser)
    return parser


def _records(folder: Path | None, recipes: Sequence[str]) -> list[Record]:
    """Return the records of some recipes, or of all.

    Raises:
        ZooError: There are none.
    """
    here = Path("results")
    folder = folder or (here if here.is_dir() else registry.shipped("results"))
    records = run_records.read(folder)
    names = {record["recipe"] for record in records}
    if not names:
        raise ZooError(f"no records in {folder}. mnist-zoo sweep writes them.")
    for name in recipes:
        if name not in names:
            known = name in all_recipes()
            hint = f"\nTo make some: mnist-zoo sweep {name}" if known else did_you_mean(name, names)
            raise ZooError(f"no records of {name} in {folder}.{hint}")
    wanted = [record for record in records if not recipes or record["recipe"] in recipes]
    return _of_recipes_now(wanted)


def _of_recipes_now(records: Sequence[Record]) -> list[Record]:
    """Leave out records made before their recipe was changed, with a warning."""
    hashes = recipe_hashes()
    kept = run_records.current(records, hashes)
    before = Counter(record["recipe"] for record in records)
    before.subtract(record["recipe"] for record in kept)
    for recipe, number in (+before).items():
        now = "the recipe has now" if recipe in hashes else "its last record"
        print(
            f"warning: {number} records of {recipe} left out, made with other settings, or other"
            f" custom code, than {now}",
            file=sys.stderr,
        )
    return kept


def _rows(records: Sequence[Record]) -> list[Row]:
    """Return the rows of records, in the order of the recipes, with the published figures."""
    from mnist_zoo.report import results_table

    recipes = all_recipes()
    order = {name: number for number, name in enumerate(sorted(recipes))}
    rows = []
    for row in sorted(results_table.rows(records), key=lambda r: order.get(r.recipe, len(order))):
        recipe = recipes.get(row.recipe)
        if recipe and row.flags == recipe.measured_with:
            holds = recipe.reproduced_by(Accuracy.of(row.records).mean)
            row = dataclasses.replace(row, published=recipe.published, holds=holds)
        rows.append(row)
    return rows


def _print(rows: Sequence[Row]) -> None:
    from mnist_zoo.report import results_table

    console = screen.console()
    whole_table = results_table.table(rows)
    # One wide table if the full names of the recipes fit.
    wide = console.measure(whole_table).minimum + 14 <= console.width
    for names in (results_table.FIGURES,) if wide else results_table.NARROW:
        screen.print_table(results_table.table(rows, names))
        console.print()
    console.print(f"{results_table.LEGEND}\n")
    screen.print_table(results_table.circumstances_table(rows))


def _write_tables(file: Path, rows: Sequence[Row], records: Sequence[Record]) -> None:
    """Replace the text between ``<!-- begin: COMMAND -->`` and ``<!-- end -->``.

    Raises:
        ZooError: The file cannot be read or written, or has no known mark.
    """
    from mnist_zoo.report import results_table

    tables = {
        "mnist-zoo models --markdown": models.markdown(
            sorted(registry.builtin_networks()), records
        ),
        "mnist-zoo results --markdown": results_table.markdown(rows),
    }

    def filled(mark: re.Match[str]) -> str:
        if mark[2] not in tables:
            return mark[0]
        newline = "\r\n" if mark[1].endswith("\r\n") else "\n"
        return mark[1] + newline.join([*tables[mark[2]].splitlines(), ""])

    try:
        with file.open(encoding="utf-8", newline="") as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ZooError(f"{file}: {getattr(error, 'strerror', None) or 'not text'}.") from error
    if not tables.keys() & {mark[2] for mark in _MARKED.finditer(text)}:
        marks = " or ".join(f"<!-- begin: {name} -->" for name in tables)
        raise ZooError(f"{file} has no place for a table. Mark one: {marks}, then <!-- end -->.")
    with whole(file) as unfinished:
        unfinished.write_text(_MARKED.sub(filled, text), encoding="utf-8", newline="")
