"""A small web application: one page, and the predictions of networks for pictures.

For local use: it stores nothing and refuses requests from other web sites.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from mnist_zoo.errors import ZooError

MAX_BYTES = 10_000_000
"""Largest accepted picture file, in bytes."""

_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Network:
    """A network that reads digits.

    Attributes:
        predict: Maps images, uint8 (N, 28, 28), to probabilities, (N, 10); raises ``ZooError`` if
            it cannot.
        classes: Names of the ten classes.
    """

    predict: Callable[[Tensor], Tensor]
    classes: Sequence[str] = tuple("0123456789")


def make_app(
    networks: Mapping[str, Network],
    digits: Callable[[BinaryIO], Tensor],
    hosts: Sequence[str] = ("*",),
) -> Starlette:
    """Make the application that serves the page.

    ``POST /predict`` takes the bytes of a picture file and answers ``{"digits": [{"image":
    [28][28], "networks": [{"name": str, "probabilities": [10]}]}]}``; errors are answered by
    ``{"error": str}`` and a status of 400, 403 or 413.

    Args:
        networks: The networks by name; all of them read each digit.
        digits: Finds the digits in a picture file, in reading order: uint8 in 0..255, (N, 28, 28);
            raises ``ZooError`` if it finds none.
        hosts: Accepted host names; any by default.
    """
    # Reading even a small picture file may take gigabytes.
    one_at_a_time = asyncio.Lock()

    async def predict(request: Request) -> Response:
        if _is_foreign(request):
            return JSONResponse({"error": "This page answers only itself."}, 403)
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > MAX_BYTES:
                    megabytes = MAX_BYTES // 1_000_000
                    error = f"The picture is larger than {megabytes} megabytes."
                    return JSONResponse({"error": error}, 413, {"Connection": "close"})
        except (ClientDisconnect, asyncio.CancelledError):  # the latter as the server stops
            return Response()  # to nobody
        try:
            async with one_at_a_time:
                answer = await run_in_threadpool(_answer, networks, digits, bytes(body))
            return JSONResponse(answer)
        except ZooError as error:
            return JSONResponse({"error": str(error)}, 400)

    async def settings(request: Request) -> Response:
        known = [{"name": name, "classes": list(it.classes)} for name, it in networks.items()]
        return JSONResponse({"networks": known, "max_bytes": MAX_BYTES})

    return Starlette(
        routes=[
            *(Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()),
            Route("/settings", settings),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[
            Middleware(_Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
    )


def _answer(
    networks: Mapping[str, Network],
    digits: Callable[[BinaryIO], Tensor],
    picture: bytes,
) -> dict[str, Any]:
    images = digits(io.BytesIO(picture))
    probabilities = {name: network.predict(images) for name, network in networks.items()}
    return {
        "digits": [
            {
                "image": image.tolist(),
                "networks": [
                    {"name": name, "probabilities": rows[index].tolist()}
                    for name, rows in probabilities.items()
                ],
            }
            for index, image in enumerate(images)
        ]
    }


def _is_foreign(request: Request) -> bool:
    """Whether the browser says that another page made the request."""
    headers = request.headers
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    content = Path(__file__).with_name(name).read_bytes()
    return lambda request: Response(content, media_type=kind)


class _Headers:
    """Adds security headers to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self.app(scope, receive, send_with_headers)
