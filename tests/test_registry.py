"""Names to classes and recipes."""

import subprocess
import sys

import pytest

import mnist_zoo
from mnist_zoo import registry
from mnist_zoo.errors import UnknownNameError

NETWORKS = [
    "ConvNetDropout", "ConvNetReLU", "ConvNetSimple", "ConvNetThreeDense", "ConvNetTwoConv",
    "Dense", "MLPDropout", "MLPLogSoftmax",
]  # fmt: skip


@pytest.fixture
def no_plugins(monkeypatch):
    monkeypatch.setattr(registry, "plugins", list)


class TestNetworks:
    def test_the_published_ones_are_found(self):
        assert set(NETWORKS) <= registry.builtin_networks().keys()

    def test_they_are_where_the_files_say(self):
        for name, path in registry.builtin_networks().items():
            cls = registry.import_class(path)
            assert cls.__name__ == name
            assert f"{cls.__module__}.{name}" == path

    def test_none_of_the_classes_of_the_package_is_left_out(self):
        from mnist_zoo.models import Classifier

        def derived(cls):
            return {cls.__name__ for cls in cls.__subclasses__()}.union(
                *map(derived, cls.__subclasses__())
            )

        for path in registry.builtin_networks().values():
            registry.import_class(path)
        ours = {
            name
            for name in derived(Classifier)
            if any(
                hasattr(sys.modules[module], name)
                for module in [m for m in sys.modules if m.startswith("mnist_zoo.models.")]
            )
        }
        assert {n for n in ours if not n.startswith("_")} == registry.builtin_networks().keys()

    def test_a_file_is_read_and_not_run(self, tmp_path, monkeypatch):
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "new.py").write_text(
            "raise SystemExit\n"
            "class Base(zoo.models.classifier.Classifier): ...\n"
            "class Derived(Base): ...\n"
            "class _Hidden(Base): ...\n"
            "class FromHidden(_Hidden): ...\n"
            "class Other(nn.Module): ...\n"
        )
        monkeypatch.setattr(registry, "_PACKAGE", tmp_path)
        assert registry.builtin_networks.__wrapped__() == {
            name: f"mnist_zoo.models.new.{name}" for name in ("Base", "Derived", "FromHidden")
        }

    def test_they_are_attributes_of_the_package(self):
        import mnist_zoo.models

        assert mnist_zoo.models.Dense.__name__ == "Dense"
        assert {"Classifier", *NETWORKS} <= set(dir(mnist_zoo.models))
        with pytest.raises(AttributeError, match="Dens"):
            _ = mnist_zoo.models.Dens


@pytest.mark.usefixtures("no_plugins")
class TestListModels:
    def test_lists_all_in_order(self):
        assert mnist_zoo.list_models() == sorted(registry.builtin_networks())

    @pytest.mark.parametrize(
        ("pattern", "names"),
        [
            ("MLP*", ["MLPDropout", "MLPLogSoftmax"]),
            ("*dropout", ["ConvNetDropout", "MLPDropout"]),
            ("dense", ["Dense"]),
            ("[!c]*e", ["Dense"]),
            ("Transformer*", []),
        ],
    )
    def test_takes_a_pattern_ignoring_case(self, pattern, names):
        assert [name for name in registry.list_models(pattern) if name in NETWORKS] == names

    def test_lists_plugins_too(self, plugins):
        plugins(TheirNet="theirs.net:TheirNet")
        assert registry.list_models("Their*") == ["TheirNet"]


class TestClassPath:
    def test_of_a_name(self):
        assert registry.class_path("Dense") == "mnist_zoo.models.dense.Dense"

    def test_of_a_path_is_the_path(self):
        assert registry.class_path("anything.at.All") == "anything.at.All"

    def test_of_a_path_through_the_package_is_that_of_the_definition(self):
        assert registry.class_path("mnist_zoo.models.Dense") == "mnist_zoo.models.dense.Dense"
        assert registry.full_path("mnist_zoo.data.MNIST") == "mnist_zoo.data.datasets.MNIST"
        assert registry.full_path("mnist_zoo.data.write_text") == "mnist_zoo.data.write_text"

    def test_of_a_plugin(self, plugins):
        plugins(TheirNet="theirs.net:TheirNet")
        assert registry.class_path("TheirNet") == "theirs.net.TheirNet"
        assert registry.is_known("theirs.net.TheirNet")
        assert not registry.is_known("theirs.net.Other")

    def test_of_a_plugin_defined_elsewhere_is_what_it_declares(self, here, plugins):
        plugins(NetOfTheirs="their_package:NetOfTheirs")
        (here / "their_network.py").write_text("class NetOfTheirs: ...\n")
        (here / "their_package.py").write_text("from their_network import NetOfTheirs\n")
        network = registry.import_class("their_package.NetOfTheirs")
        assert registry.path_of(network) == "their_package.NetOfTheirs"

    @pytest.mark.parametrize(
        ("name", "meant"),
        [("ConvNetDroput", "ConvNetDropout"), ("dense", "Dense"), ("MLPDropOut", "MLPDropout")],
    )
    def test_of_a_mistyped_name_suggests_the_right_one(self, name, meant):
        with pytest.raises(UnknownNameError, match=rf"network {name}\. Did you mean {meant}\?"):
            registry.class_path(name)

    @pytest.mark.parametrize(
        "name", ["nets/my_net.MyNet", "./nets/my_net.MyNet", "nets\\my_net.MyNet"]
    )
    def test_of_a_file_in_a_folder_is_told_how_to_import_it(self, name):
        with pytest.raises(UnknownNameError, match=r"--model nets\.my_net\.MyNet$"):
            registry.class_path(name)

    def test_of_something_else_suggests_nothing(self):
        with pytest.raises(UnknownNameError) as caught:
            registry.class_path("XYZ")
        assert "Did you mean" not in str(caught.value)
        assert "mnist-zoo models" in str(caught.value)

    def test_of_two_of_the_same_name_asks_which(self, plugins):
        plugins(Dense="theirs:Dense")
        with pytest.raises(UnknownNameError) as caught:
            registry.class_path("Dense")
        assert "2 networks are called Dense" in str(caught.value)
        assert "--model mnist_zoo.models.dense.Dense" in str(caught.value)
        assert "--model theirs.Dense" in str(caught.value)


class TestImportClass:
    def test_finds_a_file_of_the_current_folder(self, here):
        (here / "a_net_of_mine.py").write_text("class Net: ...\n")
        assert registry.import_class("a_net_of_mine.Net").__name__ == "Net"

    def test_a_module_that_is_not_there(self):
        with pytest.raises(UnknownNameError) as caught:
            registry.import_class("no_such_module.Net")
        assert "no module no_such_module for no_such_module.Net" in str(caught.value)
        assert "in the current folder" in str(caught.value)

    def test_a_class_that_is_not_there(self):
        text = r"module mnist_zoo\.models\.dense has no class Dens\. Did you mean Dense\?"
        with pytest.raises(UnknownNameError, match=text):
            registry.import_class("mnist_zoo.models.dense.Dens")

    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("class Net", "SyntaxError: "),
            ("import no_such_library", "No module named 'no_such_library'"),
            ("import sys\nsys.no_such_name", "AttributeError: "),
            ("from sys import no_such_name", "ImportError: cannot import name"),
            ("x =", "SyntaxError: invalid syntax (broken_net_of_mine.py, line 1)"),
        ],
    )
    def test_a_module_that_fails_to_import(self, here, code, reason):
        (here / "broken_net_of_mine.py").write_text(f"{code}\n")
        with pytest.raises(UnknownNameError) as caught:
            registry.import_class("broken_net_of_mine.Net")
        assert "broken_net_of_mine fails to import: " in str(caught.value)
        assert reason in str(caught.value)
        assert str(caught.value).count("line ") <= 1

    def test_all_but_a_broken_plugin_are_imported(self, plugins, here):
        (here / "broken_plugin.py").write_text("1 / 0\n")
        plugins(BrokenNet="broken_plugin:BrokenNet", Gone="no_such_module:Net")
        broken, gone = registry.import_all()
        assert broken.startswith("plugin BrokenNet left out: ")
        assert gone.startswith("plugin Gone left out: ")


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("mnist_zoo.data.MNIST", True),
        ("mnist_zoo.data.datasets.Digits", True),
        ("mnist_zoo.data.write_text", False),
        ("mnist_zoo.data.text.write_text", False),
        ("mnist_zoo.data.datasets.torch.load", False),
        ("mnist_zoo.data.text.MNIST", False),
        ("MNIST", False),
    ],
)
def test_only_the_data_sets_of_the_package_are_ours(path, ours):
    assert registry.is_our_data(path) is ours


def test_all_data_sets_of_the_package_are_found():
    import mnist_zoo.data as data

    public = {n for n in data.__all__ if isinstance(getattr(data, n), type)}
    ours = {n for n in public if issubclass(getattr(data, n), data.ImageData)} - {"ImageData"}
    assert registry.builtin_datasets().keys() == ours


def test_the_package_has_a_version_and_no_other_names():
    assert mnist_zoo.__version__[0].isdigit()
    assert set(dir(mnist_zoo)) == {"__version__", "list_models", "load"}
    with pytest.raises(AttributeError, match="lod"):
        _ = mnist_zoo.lod


@pytest.mark.parametrize(
    "code",
    [
        "import mnist_zoo; mnist_zoo.__version__; mnist_zoo.list_models()",
        "from mnist_zoo import registry; registry.class_path('Dense')",
        "from mnist_zoo import recipes; recipes.all_recipes()",
        "import mnist_zoo.models, mnist_zoo.errors, mnist_zoo.commands.training.command",
    ],
)
def test_looking_around_loads_no_torch(code):
    code += "; import sys; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_modules_of_the_current_folder_come_after_all_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/first", "/second"])
    for _ in range(2):
        registry.look_into_current_folder()
        assert sys.path == ["/first", "/second", str(tmp_path)]
