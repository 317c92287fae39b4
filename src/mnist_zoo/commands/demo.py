"""``mnist-zoo demo``: a page to draw digits on, which networks read live."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from mnist_zoo import registry
from mnist_zoo.commands.shared.arguments import Parser
from mnist_zoo.errors import ZooError
from mnist_zoo.models import checkpoint_files

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_zoo.demo.app import Network


def main(argv: list[str]) -> int:
    """Serve the page until the user stops it.

    Args:
        argv: The arguments after ``demo``.

    Raises:
        ZooError: Wrong arguments, an unreadable checkpoint, an address that cannot be used, or
            missing packages.
    """
    args = _parser().parse_args(argv)
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ModuleNotFoundError as error:
        raise ZooError(
            f"the page needs the package {error.name}.\nInstall it: pip install 'mnist-zoo[demo]'"
        ) from error
    files = _files(args.ckpt_path)
    # Before the networks are loaded, which takes seconds: an address in use is reported at once.
    with contextlib.suppress(KeyboardInterrupt), _listen(args.host, args.port) as listener:
        from mnist_zoo.demo.app import make_app

        app = make_app(_networks(files, args.model), _digits_in, _names_of(args.host, listener))
        url = _url(listener)
        print(f"Draw a digit: {url}\nCtrl-C stops it.", flush=True)
        if not args.no_browser:
            _open(url)
        config = uvicorn.Config(
            app, log_level="warning", lifespan="off", timeout_graceful_shutdown=2
        )
        uvicorn.Server(config).run(sockets=[listener])
    print("Stopped.")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="mnist-zoo demo",
        description="Open a page in the browser to draw digits on, and see what networks make of"
        " them.",
        epilog="examples:\n  mnist-zoo demo\n"
        "  mnist-zoo demo --ckpt_path runs/ConvNetReLU/version_0/checkpoints/best.ckpt",
    )
    parser.add_argument(
        "--ckpt_path",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="checkpoints of the networks to ask, shown side by side (default: installed"
        f" weights of {registry.DEFAULT_WEIGHTS})",
    )
    parser.add_argument("--model", metavar="CLASS", help="class of your own that a FILE is of")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets every machine on the network in"
        " (default: %(default)s, this machine alone)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=7860,
        help="port to listen on; 0 takes a free one (default: %(default)s)",
    )
    parser.add_argument("--no_browser", action="store_true", help="do not open the browser")
    return parser


def _files(checkpoints: Sequence[str]) -> dict[str, Path]:
    """Return the file of each checkpoint; if none is named, that of the default weights."""
    files = {name: checkpoint_files.find(name) for name in checkpoints}
    return files or {registry.DEFAULT_WEIGHTS: checkpoint_files.find(None)}


def _networks(files: Mapping[str, Path], model: str | None) -> dict[str, Network]:
    """Load networks, given their files by name; the names of those of one class include these."""
    from mnist_zoo.demo.app import Network
    from mnist_zoo.models.checkpoint import build, class_names, read

    named = registry.class_named(model)
    contents = {name: read(file) for name, file in files.items()}
    # Networks of the zoo may be given together with a custom one.
    known = [registry.is_known(content.model["class_path"]) for content in contents.values()]
    loaded = [
        (name, build(content, None if is_known and not all(known) else named), class_names(content))
        for (name, content), is_known in zip(contents.items(), known, strict=True)
    ]
    kinds = [type(network).__name__ for _, network, _ in loaded]
    return {
        kind if kinds.count(kind) == 1 else f"{kind} ({name})": Network(network.predict, classes)
        for kind, (name, network, classes) in zip(kinds, loaded, strict=True)
    }


def _digits_in(stream: BinaryIO) -> Tensor:
    """Return the digits in a picture file, uint8 (N, 28, 28)."""
    import torch

    from mnist_zoo import handwriting

    found = handwriting.digits(handwriting.open_picture(stream))
    return torch.stack([digit.image for digit in found])


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that is listening on an address."""
    if not 0 <= port <= 65535:
        raise ZooError(f"--port {port}: a port is a number from 0 to 65535.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ZooError(f"--host {host}: there is no such address.") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this would share the port with another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        hint = ""
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            hint = "\nName another port, or let a free one be chosen: --port 0"
        raise ZooError(f"cannot listen on {host}, port {port}: {error.strerror}.{hint}") from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:  # which stands for all addresses of the machine
        host = "localhost"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _names_of(host: str, listener: socket.socket) -> list[str]:
    """Return the host names under which the page may be requested.

    On loopback, only its own: requests through another site's name that points here (DNS
    rebinding) are refused.
    """
    # The resolved address: 127.1 and names in a hosts file are loopback, too.
    address = ipaddress.ip_address(listener.getsockname()[0].partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if not address.is_loopback:
        return ["*"]
    # What Starlette before 1.10 parses as the host of http://[::1]:7860; it is no real name.
    cut = "["
    return ["localhost", "127.0.0.1", "[::1]", cut, str(address), host.lower()]


def _open(url: str) -> None:
    """Open the browser, unless the only one runs in this terminal."""
    with contextlib.suppress(webbrowser.Error):
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser:
            browser.open(url)
