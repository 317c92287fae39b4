"""What the server answers, with stand-ins for the networks and for the search for digits."""

import asyncio
import contextlib
import http.client
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mnist_zoo.errors import ZooError

uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn, of the extra demo")
pytest.importorskip("starlette", reason="needs starlette, of the extra demo")

from mnist_zoo import demo  # noqa: E402
from mnist_zoo.demo import app as demo_app  # noqa: E402

Network = demo_app.Network
FOLDER = Path(demo.__file__).parent


def digits(stream):
    """Take the bytes "37" for a picture of two digits, and "damaged" for a damaged one."""
    content = stream.read()
    if content == b"damaged":
        raise ZooError("the picture: damaged.")
    values = torch.tensor([byte - 48 for byte in content[:2]], dtype=torch.uint8)
    return values[:, None, None].expand(-1, 28, 28)


def sure(images):
    """Name the value of the pixels; of those above 9, nothing can be said."""
    assert images.dtype == torch.uint8
    if images.max() > 9:
        raise ZooError("sure returns NaN or infinity: its training has diverged.")
    return torch.eye(10)[images[:, 0, 0].long()]


def unsure(images):
    return torch.full((len(images), 10), 0.1)


@pytest.fixture(scope="module")
def port():
    app = demo_app.make_app(
        {"sure": Network(sure), "unsure": Network(unsure, tuple("ABCDEFGHIJ"))},
        digits,
        ["127.0.0.1", "localhost"],
    )
    with uvicorn_in_a_thread(app) as port:
        yield port


@contextlib.contextmanager
def uvicorn_in_a_thread(app):
    config = uvicorn.Config(app, port=0, log_level="error", lifespan="off")
    server, listener = uvicorn.Server(config), config.bind_socket()
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(timeout=30)


@pytest.fixture
def ask(port):
    def request(method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            response = connection.getresponse()
            return response, response.read()

    return request


def test_every_network_answers_for_every_digit(ask):
    response, body = ask("POST", "/predict", b"37")
    assert response.status == 200
    first, second = json.loads(body)["digits"]
    assert second["image"] == [[7] * 28] * 28
    assert [network["name"] for network in first["networks"]] == ["sure", "unsure"]
    assert [digit["networks"][0]["probabilities"].index(1) for digit in (first, second)] == [3, 7]
    assert first["networks"][1]["probabilities"] == pytest.approx([0.1] * 10)


def test_what_is_wrong_with_a_picture_is_said_and_the_next_one_answered(ask):
    response, body = ask("POST", "/predict", b"damaged")
    assert (response.status, json.loads(body)) == (400, {"error": "the picture: damaged."})
    assert ask("POST", "/predict", b"1")[0].status == 200


def test_a_network_that_diverged_is_named(ask):
    response, body = ask("POST", "/predict", b"x")
    assert response.status == 400
    assert json.loads(body) == {"error": "sure returns NaN or infinity: its training has diverged."}


@pytest.mark.parametrize("chunked", [False, True])
def test_the_size_of_a_picture_is_limited(port, chunked):
    # Asked without reading in between, as the server hangs up once it has had enough.
    picture = b"3" * demo_app.MAX_BYTES
    for body, status in ((picture, 200), (picture + b"3", 413)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                parts = iter([body[:1000], body[1000:]]) if chunked else body
                connection.request("POST", "/predict", parts, encode_chunked=chunked)
            assert connection.getresponse().status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://localhost:7", "Host": "localhost:7"}, 200),
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1.evil.example"}, 400),
    ],
)
def test_other_pages_are_refused(ask, headers, status):
    assert ask("POST", "/predict", b"1", **headers)[0].status == status


def test_the_page_of_this_origin_is_answered(ask, port):
    assert ask("POST", "/predict", b"1", Origin=f"http://127.0.0.1:{port}")[0].status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200), ("GET", "/page.css", 200), ("GET", "/page.js", 200),
        ("GET", "/icon.svg", 200), ("GET", "/settings", 200), ("GET", "/predict", 405),
        ("POST", "/predict", 200), ("GET", "/app.py", 404), ("GET", "/../app.py", 404),
        ("GET", "/%2e%2e/errors.py", 404), ("GET", "//etc/passwd", 404),
    ],
)  # fmt: skip
def test_only_the_page_is_served_and_every_answer_is_guarded(ask, method, path, status):
    response, _ = ask(method, path, b"1" if method == "POST" else None)
    assert response.status == status
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in response.headers


def test_a_refused_host_is_guarded_too(ask):
    response, _ = ask("GET", "/", Host="evil.example")
    assert response.status == 400
    assert "Content-Security-Policy" in response.headers


def test_a_client_that_leaves_while_it_sends_is_no_error():
    app = demo_app.make_app({"sure": Network(sure)}, digits)
    scope = {
        "type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [],
    }  # fmt: skip
    messages = [
        {"type": "http.request", "body": b"3", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        pass

    asyncio.run(app(scope, receive, send))
    assert not messages


def test_pictures_are_read_one_at_a_time():
    at_once, most = 0, 0

    def slowly(stream):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.05)
        at_once -= 1
        return digits(stream)

    def post(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", "/predict", b"1")
            return connection.getresponse().status

    app = demo_app.make_app({"sure": Network(sure)}, slowly)
    with uvicorn_in_a_thread(app) as port, ThreadPoolExecutor() as pool:
        assert list(pool.map(post, [port] * 4)) == [200] * 4
    assert most == 1


def test_the_page_is_told_what_there_is(ask):
    assert json.loads(ask("GET", "/settings")[1]) == {
        "networks": [
            {"name": "sure", "classes": list("0123456789")},
            {"name": "unsure", "classes": list("ABCDEFGHIJ")},
        ],
        "max_bytes": demo_app.MAX_BYTES,
    }


@pytest.mark.parametrize("name", ["page.html", "page.css", "page.js", "icon.svg"])
def test_nothing_of_the_page_lies_elsewhere(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert set(re.findall(r"[\"'(]((?:\w+:)?//[^\"')]*)", text)) <= {"http://www.w3.org/2000/svg"}
    assert "style=" not in text  # which the policy of the page forbids
    assert not re.search(r"\son\w+=", text)
