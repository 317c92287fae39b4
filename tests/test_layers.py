"""Who imports whom: the parts of the package know as little of one another as they can."""

import ast
import re
from pathlib import Path

import pytest

import mnist_zoo

PACKAGE = Path(mnist_zoo.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = (
    "torch",
    "torchvision",
    "torchmetrics",
    "lightning",
    "jsonargparse",
    "numpy",
    "sklearn",
    "ray",
    "matplotlib",
    "starlette",
    "uvicorn",
)


def imports(file, everywhere=True):
    """Return the full names that a file imports; ``everywhere``: in its functions too."""
    found = set()
    nodes = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        type_checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if everywhere or not (type_checking or function):
            nodes += ast.iter_child_nodes(node)
    return found


def files_of(part):
    return [file for file in FILES if part in file.relative_to(PACKAGE).parts]


def within(name, *modules):
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def layout():
    """Yield parts of the package, and those that they import by the table in CONTRIBUTING.md."""
    table = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for parts, known in re.findall(r"^\| (`src/mnist_zoo/.*?) \|.*\| (.*?)\|$", table, flags=re.M):
        if "everything" not in known:
            yield re.findall(r"(?:/|`)([\w.]+)/?`", parts), set(re.findall(r"`(\w+)", known))


@pytest.mark.parametrize(("parts", "known"), list(layout()))
def test_a_part_knows_those_that_the_table_names(parts, known):
    files = [file for part in parts for file in files_of(part)]
    ours = {name for file in files for name in imports(file) if within(name, "mnist_zoo")}
    found = {name.split(".")[1] for name in ours}
    assert found - {part.removesuffix(".py") for part in parts} == known


def test_the_engine_knows_the_contract_and_no_network():
    contract = ("mnist_zoo.models.classifier", "mnist_zoo.models.Classifier")
    for file in files_of("engine"):
        known = [name for name in imports(file) if within(name, "mnist_zoo.models")]
        assert all(within(name, *contract) for name in known), file


NO_NETWORKS = (
    "__init__", "checkpoint", "checkpoint_files", "classifier", "export", "muon", "optimizers",
    "resuming",
)  # fmt: skip


def test_the_networks_know_the_contract_and_not_one_another():
    for file in files_of("models"):
        if file.stem in NO_NETWORKS:
            continue
        ours = {name for name in imports(file) if within(name, "mnist_zoo")}
        assert ours == {"mnist_zoo.models.classifier.Classifier"}, file


def test_the_registry_imports_names_only():
    ours = {name for name in imports(PACKAGE / "registry.py") if within(name, "mnist_zoo")}
    assert {name.rpartition(".")[0] for name in ours} == {"mnist_zoo.errors"}
    assert not [name for name in imports(PACKAGE / "errors.py") if within(name, "mnist_zoo")]


def test_handwriting_knows_pictures_and_nothing_of_the_zoo():
    ours = {name for name in imports(PACKAGE / "handwriting.py") if within(name, "mnist_zoo")}
    assert ours == {"mnist_zoo.errors.ZooError"}
    for part in ("data", "engine", "report"):
        for file in files_of(part):
            assert not [n for n in imports(file) if within(n, "mnist_zoo.handwriting")], file


@pytest.mark.parametrize(
    "file",
    [
        "__init__.py", "__main__.py", "registry.py", "errors.py", "models/__init__.py",
        "commands/__init__.py", "commands/data.py", "commands/demo.py", "commands/explain.py",
        "commands/export.py", "commands/models.py", "commands/plot.py", "commands/predict.py",
        "commands/results.py", "commands/shared/__init__.py", "commands/shared/arguments.py",
        "commands/shared/by_epoch.py", "commands/shared/checkpoint_data.py",
        "commands/shared/flags.py", "commands/shared/screen.py", "commands/sweep/__init__.py",
        "commands/sweep/command.py", "commands/sweep/ensemble.py", "commands/sweep/own_code.py",
        "commands/sweep/plan.py",
        "commands/sweep/run.py", "commands/sweep/workers.py", "commands/training/__init__.py",
        "commands/training/command.py", "models/checkpoint_files.py", "report/__init__.py",
        "report/run_records.py",
    ],
)  # fmt: skip
def test_what_answers_fast_imports_nothing_slow(file):
    loaded = imports(PACKAGE / file, everywhere=False)
    slow = ("mnist_zoo.data", "mnist_zoo.engine", "mnist_zoo.report", "mnist_zoo.models.classifier")
    loaded = [name for name in loaded if not within(name, "mnist_zoo.report.run_records")]
    assert not [name for name in loaded if within(name, *HEAVY, *slow)]


def test_only_commands_know_commands():
    for file in FILES:
        if "commands" not in file.parts and file.name != "__main__.py":
            assert not [n for n in imports(file) if within(n, "mnist_zoo.commands")], file
