"""``mnist-zoo demo``: where it listens, what it loads, how it ends. Its page: tests/demo."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from mnist_zoo.commands import demo
from mnist_zoo.errors import ZooError

for package in ("starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"needs {package}: pip install 'mnist-zoo[demo]'")


OWN = """
from torch import nn
from mnist_zoo.models import Classifier

class Small(Classifier):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture
def taken():
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_in_use_is_told_at_once(cli, taken):
    result = cli("demo", f"--port={taken}", "--no_browser", status=2)
    assert result.err == (
        f"error: cannot listen on 127.0.0.1, port {taken}: Address already in use.\n"
        "Name another port, or let a free one be chosen: --port 0\n"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--port=65536"], "--port 65536: a port is a number from 0 to 65535."),
        (["--port=-1"], "--port -1: a port is a number from 0 to 65535."),
        (["--port=http"], "argument --port: invalid int value: 'http'"),
        (["--host=192.0.2.1"], "cannot listen on 192.0.2.1, port 0: "),
        (["--ckpt_path=none.ckpt"], "checkpoint none.ckpt does not exist."),
        (["--ckpt-path=none.ckpt"], "Did you mean --ckpt_path?"),
    ],
)
def test_a_mistake_is_told_in_plain_words(cli, arguments, text):
    result = cli("demo", "--port=0", "--no_browser", *arguments, status=2)
    assert result.err.startswith("error: ")
    assert text in result.err
    assert result.out == ""


def test_a_missing_package_is_named(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli("demo", status=2).err == (
        "error: the page needs the package uvicorn.\nInstall it: pip install 'mnist-zoo[demo]'\n"
    )


def networks_of(*checkpoints, model=None):
    return demo._networks(demo._files([*map(str, checkpoints)]), model)


def test_networks_of_one_class_are_told_apart(trained, copied):
    names = list(networks_of(trained.best, trained.last, trained.best))
    assert names == [f"ConvNetReLU ({trained.best})", f"ConvNetReLU ({trained.last})"]
    assert list(networks_of(trained.best)) == ["ConvNetReLU"]


def test_a_network_of_ones_own_is_named_and_stands_beside_those_of_the_zoo(cli, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    network = {"class_path": "own.Small", "init_args": {}}
    state = {"layers.1.weight": torch.zeros(10, 784), "layers.1.bias": torch.zeros(10)}
    about = json.dumps({"model": network, "record": {}})
    save_file(state, tmp_path / "own.safetensors", {"mnist_zoo": about})
    files = ["own.safetensors", "ConvNetReLU"]
    with pytest.raises(ZooError, match=r"name it: --model own\.Small"):
        networks_of(*files)
    assert list(networks_of(*files, model="own.Small")) == ["Small", "ConvNetReLU"]
    with pytest.raises(ZooError, match=r"--model own\.Small does not fit"):
        networks_of("ConvNetReLU", model="own.Small")


def test_a_network_names_the_classes_of_its_data(trained, tmp_path):
    assert networks_of(trained.best)["ConvNetReLU"].classes == tuple("0123456789")
    content = torch.load(trained.best, weights_only=True)
    content["mnist_zoo"]["data"] = {
        "class_path": "my.Letters", "init_args": {}, "classes": list("ABCDEFGHIJ"),
    }  # fmt: skip
    torch.save(content, tmp_path / "letters.ckpt")
    networks = networks_of(tmp_path / "letters.ckpt")
    assert networks["ConvNetReLU"].classes == list("ABCDEFGHIJ")


@pytest.mark.parametrize(
    "flags", [["--ckpt_path", "a", "b"], ["--ckpt_path", "a", "--ckpt_path", "b"]]
)
def test_several_networks_may_share_a_flag_or_have_one_each(flags):
    assert demo._parser().parse_args(flags).ckpt_path == ["a", "b"]


def names_of(host, address):
    return demo._names_of(host, SimpleNamespace(getsockname=lambda: (address, 7860)))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("LOCALHOST", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("box.example", "127.0.1.1"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    ],
)
def test_on_loopback_only_its_own_names_are_answered(host, address):
    names = names_of(host, address)
    assert "*" not in names
    assert host.lower() in names


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.7", "fe80::1%eth0"])
def test_beyond_loopback_the_page_has_the_names_that_others_give_it(address):
    assert names_of("box.example", address) == ["*"]


def test_unless_told_otherwise_the_page_is_for_this_machine_alone(cli, monkeypatch):
    import uvicorn

    names, addresses, opened = [], [], []
    monkeypatch.setattr("mnist_zoo.demo.app.make_app", lambda *args: names.append(args[2]))
    monkeypatch.setattr(demo, "_networks", lambda *_: {})
    monkeypatch.setattr(demo, "_open", opened.append)
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda _, sockets: addresses.append(sockets[0].getsockname()[0])
    )
    said = cli("demo", "--port=0").out
    cli("demo", "--port=0", "--host=0.0.0.0", "--no_browser")
    assert addresses == ["127.0.0.1", "0.0.0.0"]
    assert "127.0.0.1" in names[0]
    assert "*" not in names[0]
    assert names[1] == ["*"]
    (url,) = opened
    assert f"Draw a digit: {url}\n" in said


def test_the_address_is_one_that_a_browser_takes():
    for host, url in (("127.0.0.1", "http://127.0.0.1:{}/"), ("0.0.0.0", "http://localhost:{}/")):
        with demo._listen(host, 0) as listener:
            assert demo._url(listener) == url.format(listener.getsockname()[1])


def test_no_browser_is_opened_that_would_take_the_terminal(monkeypatch):
    opened = []

    class Window(webbrowser.BackgroundBrowser):
        def open(self, url, new=0, autoraise=True):
            opened.append(url)
            return True

    for browser in (Window("window"), webbrowser.GenericBrowser("text")):
        monkeypatch.setattr(webbrowser, "get", lambda browser=browser: browser)
        demo._open("http://127.0.0.1:1/")
    assert opened == ["http://127.0.0.1:1/"]

    def none():
        raise webbrowser.Error

    monkeypatch.setattr(webbrowser, "get", none)
    demo._open("http://127.0.0.1:1/")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to a process there")
@pytest.mark.usefixtures("ctrl_c")
def test_it_serves_until_ctrl_c(trained):
    command = [sys.executable, "-m", "mnist_zoo", "demo", "--port=0", "--no_browser"]
    with subprocess.Popen(
        [*command, "--ckpt_path", trained.best],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            url = re.fullmatch(
                r"Draw a digit: (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline()
            )[1]
            with urllib.request.urlopen(f"{url}settings", timeout=30) as answer:
                (network,) = json.load(answer)["networks"]
                assert network["name"] == "ConvNetReLU"
            # A picture that never arrives whole.
            port = int(url.rstrip("/").rpartition(":")[2])
            upload = socket.create_connection(("127.0.0.1", port))
            head = ("POST /predict HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Length: 1000000")
            upload.sendall("\r\n".join((*head, "", "abc")).encode())
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
            assert re.fullmatch(r"(ERROR: +Cancel 1 running task.*\n)?", process.stderr.read())
            assert process.stdout.read() == "Ctrl-C stops it.\nStopped.\n"
        finally:
            process.kill()


def test_what_cannot_be_found_is_an_error_of_the_users():
    with pytest.raises(ZooError, match="there is no such address"):
        demo._listen("a" * 300, 0)
