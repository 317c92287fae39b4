"""The figure by epoch that ``results`` and ``sweep`` draw: their flags ``--plot`` and ``--tag``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_zoo.commands.shared.arguments import Parser, png_file
from mnist_zoo.errors import ZooError, did_you_mean
from mnist_zoo.files import require_writable_file
from mnist_zoo.report import run_records
from mnist_zoo.report.run_records import Record


def add_options(parser: Parser) -> None:
    """Add ``--plot`` and ``--tag``."""
    parser.add_argument(
        "--plot", type=png_file, metavar="FILE.png", help="draw a figure by epoch, over the seeds"
    )
    parser.add_argument(
        "--tag",
        help="what to draw, such as train/loss; default: val/acc if all have it, else train/acc",
    )


def check_options(file: Path | None, tag: str | None) -> None:
    """Check, before the work, that a figure can be drawn.

    Raises:
        ZooError: No file is given for it, or it cannot be written.
    """
    if tag and not file:
        raise ZooError(f"--tag {tag}: draw it where? Give --plot FILE.png, too.")
    if file:
        require_writable_file(file, "Give another file: --plot FILE.png", makes_folder=True)


def plot(records: Sequence[Record], file: Path, tag: str | None) -> None:
    """Draw a figure by epoch for each recipe and set of flags: mean, and lowest to highest.

    Args:
        records: The runs.
        file: Where to write the figure, atomically.
        tag: What to draw; None for validation accuracy if all have it, else training accuracy.

    Raises:
        ZooError: No record has it by epoch, or the figure cannot be written.
    """
    from mnist_zoo.report import curves, pictures
    from mnist_zoo.report.run_names import run_names

    trained = [record for record in records if record.get("epochs")]
    known = sorted({name for record in trained for name in record["epochs"]})
    validated = trained and all("val/acc" in record["epochs"] for record in trained)
    tag = tag or ("val/acc" if validated else "train/acc")
    groups = run_records.curves(records, tag)
    if not groups:
        raise ZooError(f"--plot: no record has {tag} by epoch.{did_you_mean(tag, known)}")
    if lacking := run_records.groups(trained).keys() - groups.keys():
        left_out = ", ".join(sorted(" ".join((recipe, *flags)) for recipe, flags in lacking))
        print(f"warning: not drawn, without {tag} by epoch: {left_out}", file=sys.stderr)
    recipes = {recipe for recipe, _ in groups}
    of = f"{recipes.pop()}: " if len(recipes) == 1 else ""
    networks = {recipe.partition("-")[0] for recipe, _ in groups}
    note = f"; {note}" if (note := curves.note_on(tag, len(networks))) else ""
    names = run_names({group: _settings(*group) for group in groups})
    if len({*names.values()}) < len(names):
        names = {group: " ".join((group[0], *group[1])) for group in groups}
    figure = curves.plot_curves(
        {names[group]: runs for group, runs in groups.items()},
        ylabel=tag,
        title=f"{of}mean over seeds, lowest to highest{note}",
    )
    pictures.save(figure, file)
    print(f"Written: {file}")


def _settings(recipe: str, flags: Sequence[str]) -> dict[str, str]:
    """Return recipe and flags by name; repeatable flags, such as callbacks, with all values."""
    settings = {"recipe": recipe}
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        settings[name] = f"{settings[name]}, {value}" if name in settings else value
    return settings
