"""``mnist-zoo plot``: curves of several runs in one figure."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_zoo.commands.shared.arguments import Parser, png_file
from mnist_zoo.commands.shared.flags import WITHOUT_EFFECT
from mnist_zoo.errors import ZooError, did_you_mean, printable
from mnist_zoo.files import require_writable_file, shell_quoted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mnist_zoo.report.curves import Curve
    from mnist_zoo.report.events import Scalars

# Besides the seed, what may differ between two runs without affecting their curves.
_NO_DIFFERENCE = (
    *(flag.removeprefix("--") for flag in WITHOUT_EFFECT),
    "seed_everything", "ckpt_path", "weights_only", "pictures", "best", "last", "data.num_test",
    "trainer.default_root_dir", "trainer.logger", "trainer.log_every_n_steps",
    "trainer.strategy",
    "trainer.benchmark", "trainer.deterministic", "trainer.detect_anomaly", "trainer.profiler",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.enable_checkpointing",
    "trainer.enable_autolog_hparams", "trainer.model_registry", "trainer.num_sanity_val_steps",
    "trainer.inference_mode", "trainer.limit_test_batches", "trainer.limit_predict_batches",
)  # fmt: skip
_DEFAULT_TAGS = (("train/loss",), ("val/acc", "train/acc"))


def main(argv: list[str]) -> int:
    """Run ``mnist-zoo plot`` and return its exit status.

    Raises:
        ZooError: A folder holds no runs, no run has a tag, or the file cannot be written.
    """
    arguments = _parser().parse_intermixed_args(argv)
    out: Path = arguments.out
    require_writable_file(out, "Give another file: --out FILE.png", makes_folder=True)
    # The same run may be given under several names.
    found = {run.resolve(): run for word in arguments.runs for run in _runs_in(word)}
    folders = list(found.values())

    from mnist_zoo.report import pictures
    from mnist_zoo.report.events import read_scalars
    from mnist_zoo.report.run_names import run_names

    settings = {folder: _settings(folder / "config.yaml") for folder in folders}
    names = {folder: str(folder) for folder in folders} | run_names(
        {folder: known for folder, known in settings.items() if known is not None}
    )
    scalars = {folder: read_scalars(folder) for folder in folders}
    tags = _chosen_tags(arguments.tag, scalars)
    drawn = [folder for folder in folders if any(tag in scalars[folder] for tag in tags)]
    figure = _figure(scalars, names, tags)
    networks = {known and known.get("model") for known in settings.values()}
    if len(networks) == 1 and (network := networks.pop()):
        figure.suptitle(str(network), fontsize="medium")
    pictures.save(figure, out)
    for folder in folders:
        lacking = [tag for tag in tags if tag not in scalars[folder]]
        if lacking and (arguments.tag or folder not in drawn):
            _warn(f"{folder} has no {' or '.join(lacking)} to draw")
    num_lines = len({names[folder] for folder in drawn})
    lines = "1 line" if num_lines == 1 else f"{num_lines} lines"
    runs = "1 run" if len(drawn) == 1 else f"{len(drawn)} runs"
    print(f"{runs} in {lines}: {shell_quoted(out)}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo plot",
        description="Draw curves of several runs in one figure. Runs that differ only in their\n"
        "seed share a line, their mean, and a band from the lowest to the highest.",
        epilog="examples:\n  mnist-zoo plot runs/ConvNetReLU/version_0 runs/Dense/version_0\n"
        "  mnist-zoo plot runs/sweep --tag val/acc --tag val/loss --out losses.png",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=Path, help="folder of a run, or of many"
    )
    parser.add_argument(
        "--tag",
        metavar="TAG",
        action="append",
        help="tags to draw; may be given several times; default: train/loss, and val/acc or else"
        " train/acc",
    )
    parser.add_argument(
        "--out", metavar="FILE.png", type=png_file, default="plot.png", help="default: plot.png"
    )
    return parser


def _warn(text: str) -> None:
    print(printable(f"warning: {text}"), file=sys.stderr)


def _runs_in(folder: Path) -> list[Path]:
    """Return the folder itself if it is a run, else all runs below it.

    Raises:
        ZooError: There are none.
    """
    if not folder.is_dir():
        known = [str(path.parent) for path in sorted(Path("runs").glob("*/version_*/config.yaml"))]
        kind = "a file, not the folder of a run" if folder.exists() else "there is no such folder"
        raise ZooError(f"{folder}: {kind}.{did_you_mean(str(folder), known)}")
    if any(folder.glob("events.out.tfevents.*")):
        return [folder]
    found = sorted({file.parent for file in folder.rglob("events.out.tfevents.*")})
    if not found:
        hint = "mnist-zoo fit writes runs into runs/."
        if (folder / "config.yaml").is_file():
            hint = "It was trained without TensorBoard (--trainer.logger)."
        raise ZooError(f"{folder}: holds no curves (events.out.tfevents…). {hint}")
    for other in sorted({file.parent for file in folder.rglob("config.yaml")} - {*found}):
        _warn(f"{other} was trained without TensorBoard, and has nothing to draw")
    return found


def _settings(config: Path) -> dict[str, Any] | None:
    """Return a run's settings, by names such as ``trainer.max_epochs``; None if unknown."""
    import yaml

    try:
        settings = yaml.safe_load(config.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            return None
        # Named like the flags: --model.lr, not model.init_args.lr.
        flat = {name.replace(".init_args.", "."): value for name, value in _flat(settings, "")}
    except (OSError, ValueError, LookupError, AttributeError, RecursionError, yaml.YAMLError):
        return None
    for name in ("model", "data"):
        if path := flat.pop(f"{name}.class_path", None):
            ours = str(path).startswith("mnist_zoo.")
            flat[name] = str(path).rpartition(".")[2] if ours else str(path)
    return {
        name: value
        for name, value in flat.items()
        if not any(name == other or name.startswith(f"{other}.") for other in _NO_DIFFERENCE)
    }


def _flat(value: Any, name: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from _flat(part, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _chosen_tags(asked: Sequence[str] | None, scalars: Mapping[Path, Scalars]) -> list[str]:
    """Return the tags to draw: those requested, or else the default ones that exist.

    Raises:
        ZooError: No run has such a tag.
    """
    known = sorted({tag for each in scalars.values() for tag in each})
    if not known:
        raise ZooError("nothing was logged in these runs yet: their event files hold no values.")
    if not asked:
        usual = [next((tag for tag in tags if tag in known), None) for tags in _DEFAULT_TAGS]
        return [tag for tag in usual if tag] or known[:2]
    for tag in asked:
        if tag not in known:
            hint = did_you_mean(tag, known)
            raise ZooError(f"--tag {tag}: no run has it.{hint}\nThere are {', '.join(known)}.")
    return list(dict.fromkeys(asked))


def _figure(
    scalars: Mapping[Path, Scalars], names: Mapping[Path, str], tags: Sequence[str]
) -> Figure:
    from matplotlib.figure import Figure

    from mnist_zoo.report.curves import draw_curves, legend_below, note_on, over_epochs

    figure = Figure(figsize=(4.5 * len(tags) + 0.5, 3.6), dpi=130, layout="constrained")
    for axes, tag in zip(figure.subplots(1, len(tags), squeeze=False)[0], tags, strict=True):
        having = [folder for folder in scalars if tag in scalars[folder]]
        # Epochs are comparable across batch sizes; without their number there are only steps.
        in_epochs = all("epoch" in scalars[folder] for folder in having)
        groups: dict[str, list[Curve]] = {name: [] for name in names.values()}
        for folder in having:
            points = scalars[folder][tag]
            steps = [step for step, _ in points], [value for _, value in points]
            curve = over_epochs(scalars[folder], tag) if in_epochs else steps
            groups[names[folder]].append(curve)
        several = any(len(curves) > 1 for curves in groups.values())
        notes = ["mean, lowest to highest"] if several else []
        if note := note_on(tag, len({folder.parent.name for folder in having})):
            notes.append(note)
        xlabel = "epoch" if in_epochs else "step"
        try:
            draw_curves(
                axes,
                groups,
                ylabel=tag,
                xlabel=xlabel,
                title="\n".join(notes),
                legend=False,
            )
        except ValueError as error:
            raise ZooError(f"--tag {tag}: none of its values is a finite number.") from error
    # One legend for all panels: a run that lacks a tag appears in another panel.
    legend_below(figure)
    return figure
