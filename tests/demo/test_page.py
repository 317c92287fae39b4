"""The page in a real Chromium, with the real server and a network that has read real digits."""

import math
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from mnist_zoo.__main__ import main
from mnist_zoo.handwriting import digits

for package in ("playwright", "starlette", "uvicorn"):
    pytest.importorskip(package, reason=f"needs {package}: pip install 'mnist-zoo[dev]'")

from playwright.sync_api import expect, sync_playwright  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.mnist]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESKTOP, PHONE = {"width": 1100, "height": 720}, {"width": 360, "height": 740}
ON_ITS_SIDE = {"width": 740, "height": 360}

ONE = [(0.5, 0.2), (0.5, 0.5), (0.5, 0.8)]
ZERO = [
    (0.5 + 0.2 * math.sin(turn), 0.5 - 0.3 * math.cos(turn))
    for turn in (n * math.tau / 40 for n in range(41))
]


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if not program:
        pytest.skip(f"needs a browser: {' or '.join(NAMES)}")
    expect.set_options(timeout=30_000)  # milliseconds; the machine may be busy
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, timeout=180_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def checkpoints(mnist_root, tmp_path_factory):
    """Two networks, of which the first can read."""
    folder = tmp_path_factory.mktemp("networks")
    found = []
    for name, epochs in (("ConvNetReLU", 3), ("Dense", 1)):
        arguments = (
            f"--model={name}", f"--data.root={mnist_root}", "--data.num_train=4000",
            "--data.val_size=0", "--data.batch_size=32", "--model.lr=0.1",
            f"--trainer.max_epochs={epochs}", "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}",
        )  # fmt: skip
        assert main(["fit", *arguments]) == 0
        found.append(folder / name / "version_0" / "checkpoints" / "last.ckpt")
    return found


@pytest.fixture(scope="module")
def address(checkpoints):
    command = [sys.executable, "-m", "mnist_zoo", "demo", "--port=0", "--no_browser"]
    with subprocess.Popen(
        [*command, "--ckpt_path", *checkpoints], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            yield re.search(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
        finally:
            server.kill()


@pytest.fixture
def visit(browser, address):
    """Open the page, in a window of a size; at the end nothing may have gone elsewhere."""
    asked, mistakes, pages = [], [], []

    def open_page(viewport=DESKTOP, **options):
        page = browser.new_page(viewport=viewport, **options)
        page.set_default_timeout(120_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: mistakes.append(error))
        page.on(
            "console",
            lambda message: "Security Policy" in message.text and mistakes.append(message.text),
        )
        pages.append(page)
        page.goto(address)
        expect(page.locator(".network")).to_have_count(2)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not mistakes
    assert [url for url in asked if not url.startswith(address)] == []


@pytest.fixture
def page(visit):
    return visit()


def draw(page, points):
    box = page.locator("#canvas").bounding_box()
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=5)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def expect_answer(page, digits):
    """Wait for the first network to read these digits."""
    answer = digits if digits.isdecimal() and len(digits) > 1 else rf"{digits} >?\d+\.\d %"
    expect(page.locator(".best").first).to_have_text(re.compile(rf"^{answer}$"))


def expect_nothing(page):
    expect(page.locator(".best").first).to_be_empty()
    expect(page.locator(".top")).to_have_count(0)


def four():
    """A four made of three lines, 28 × 28, light on dark."""
    pixels = {(row, 9): 180 for row in range(5, 23)}
    pixels |= {(i, i): 250 for i in range(9, 19)}
    pixels |= {(14, column): 200 for column in range(5, 15)}
    picture = Image.new("L", (28, 28))
    for (row, column), value in pixels.items():
        picture.putpixel((column, row), value)
    return picture


@pytest.fixture
def file_of_four(tmp_path):
    four().save(tmp_path / "four.png")
    return tmp_path / "four.png"


@pytest.fixture
def damaged_file(tmp_path, file_of_four):
    content = file_of_four.read_bytes()
    (tmp_path / "damaged.png").write_bytes(content[: len(content) // 2])
    return tmp_path / "damaged.png"


@pytest.mark.parametrize(("points", "digit"), [(ONE, "1"), (ZERO, "0")])
def test_a_digit_drawn_with_the_mouse_is_read(page, points, digit):
    draw(page, points)
    expect_answer(page, digit)
    row = page.locator(".network").first.locator(".top")
    expect(row.locator(".label")).to_have_text(digit)
    # The bar grows to its length, which a later answer may change.
    page.wait_for_function(
        """() => {
            const row = document.querySelector(".network .top");
            const width = (part) => row.querySelector(part).offsetWidth;
            const share = parseFloat(row.querySelector(".value").textContent) / 100;
            return Math.abs(width(".bar") / width(".track") - share) < 0.02;
        }"""
    )
    expect(page.locator("#announcement")).to_have_text(re.compile(rf"^ConvNetReLU: {digit}, .*%"))


def test_the_answer_comes_while_one_draws(page):
    box = page.locator("#canvas").bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(middle, box["y"] + 0.8 * box["height"], steps=10)
    expect_answer(page, "1")
    page.mouse.up()


def test_several_digits_are_read_from_left_to_right(page):
    draw(page, [(x / 2, y) for x, y in ONE])
    draw(page, [(0.65 + (x - 0.5) * 0.8, y) for x, y in ZERO])
    expect_answer(page, "10")
    expect(page.locator("#seen canvas")).to_have_count(2)
    charts = page.locator(".network").first.locator(".bars")
    which = [chart.get_attribute("data-which") for chart in charts.all()]
    assert which == ["Number 1: 1", "Number 2: 0"]
    page.click("#clear")
    expect_nothing(page)
    assert charts.all()[0].get_attribute("data-which") is None


def test_classes_are_called_by_their_names(page, file_of_four):
    def answer(route):
        settings = route.fetch().json()
        settings["networks"][0]["classes"] = [f"class {letter}" for letter in "ABCDEFGHIJ"]
        route.fulfill(json=settings)

    page.route("**/settings", answer)
    page.reload()
    page.set_input_files("#file", file_of_four)
    expect_answer(page, "class E")
    rows = page.locator(".network").first.locator(".label")
    expect(rows).to_have_text([f"class {letter}" for letter in "ABCDEFGHIJ"])
    expect(page.locator(".network").last.locator(".best")).to_have_text(re.compile(r"^\d \d"))
    expect(page.locator("#announcement")).to_have_text(re.compile(r"^ConvNetReLU: class E, "))


def test_what_is_read_before_the_networks_are_known_is_shown(page, file_of_four):
    held = []
    page.route("**/settings", lambda route: held.append(route))
    page.reload()
    with page.expect_response("**/predict"):
        page.set_input_files("#file", file_of_four)
    held[0].continue_()
    expect_answer(page, "4")


def test_what_the_network_sees_is_shown(page, file_of_four):
    page.set_input_files("#file", file_of_four)
    expect_answer(page, "4")
    pixels = page.evaluate(
        "() => [...document.querySelector('#seen canvas').getContext('2d')"
        ".getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0)"
    )
    assert pixels == digits(four())[0].image.flatten().tolist()
    # A new stroke starts a new drawing.
    draw(page, ONE)
    expect_answer(page, "1")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(page, file_of_four, event):
    page.evaluate(
        """([event, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "four.png", {type: "image/png"}));
            const options = {bubbles: true, dataTransfer: data, clipboardData: data};
            const kind = event === "drop" ? DragEvent : ClipboardEvent;
            document.body.dispatchEvent(new kind(event, options));
        }""",
        [event, list(file_of_four.read_bytes())],
    )
    expect_answer(page, "4")


def test_a_stroke_made_while_a_picture_is_opened_is_not_covered_by_it(page, file_of_four):
    page.evaluate(
        """() => {
            const decode = window.createImageBitmap;
            window.createImageBitmap = (file) => new Promise((done) => {
                window.goOn = async () => {
                    done(await decode(file));
                    await new Promise((later) => setTimeout(later));
                };
            });
        }"""
    )
    page.set_input_files("#file", file_of_four)
    expect_answer(page, "4")
    page.wait_for_function("() => window.goOn")
    draw(page, ONE)
    page.evaluate("window.goOn()")
    expect(page.locator("#canvas")).not_to_have_class(re.compile("picture"))
    expect_answer(page, "1")


def test_a_damaged_picture_is_a_message_and_the_page_lives_on(page, damaged_file):
    draw(page, ONE)
    expect_answer(page, "1")
    page.set_input_files("#file", damaged_file)
    expect(page.locator("#message")).to_contain_text("damaged")
    expect_nothing(page)
    draw(page, ZERO)
    expect_answer(page, "0")
    expect(page.locator("#message")).to_be_empty()


def test_a_picture_that_is_too_large_is_not_sent(page, tmp_path):
    large = tmp_path / "large.png"
    with large.open("wb") as stream:
        stream.truncate(10_000_001)
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    page.set_input_files("#file", large)
    expect(page.locator("#message")).to_have_text("large.png is larger than 10 megabytes.")
    assert not sent


def test_a_server_that_is_gone_is_a_message(page):
    page.route("**/predict", lambda route: route.abort())
    draw(page, ONE)
    expect(page.locator("#message")).to_contain_text("The server does not answer.")
    page.unroute("**/predict")
    draw(page, ONE)
    expect_answer(page, "1")
    expect(page.locator("#message")).to_be_empty()


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_the_paper_is_cleared(page, way):
    draw(page, ZERO)
    expect_answer(page, "0")
    page.click("#clear") if way == "button" else page.keyboard.press(way)
    expect_nothing(page)
    expect(page.locator("#announcement")).to_have_text("Cleared")
    # Nothing of the zero is left.
    draw(page, ONE)
    expect_answer(page, "1")


def test_a_digit_is_drawn_with_the_keyboard(page):
    page.keyboard.press("Tab")
    expect(page.locator("#canvas")).to_be_focused()
    expect(page.locator("#pen")).to_be_visible()
    for key in ["ArrowUp"] * 8 + ["Space"] + ["ArrowDown"] * 16 + ["Space"] + ["ArrowRight"] * 5:
        page.keyboard.press(key)
    expect_answer(page, "1")


def test_everything_is_reached_by_tab_and_shows_it(page):
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.type"))
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid"
    assert reached == ["canvas", "clear", "open", "checkbox", "checkbox"]


def test_networks_are_chosen(page):
    page.get_by_label("ConvNetReLU", exact=True).uncheck()
    expect(page.locator(".network").first).to_be_hidden()
    expect(page.locator(".network").last).to_be_visible()
    draw(page, ONE)
    expect(page.locator("#announcement")).to_have_text(re.compile(r"^Dense: \d"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_out_of_sight(visit, scheme):
    page = visit(PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        draw(page, [(x / 2, y) for x, y in ONE])
        draw(page, [(x + 0.25, y) for x, y in ONE])
        expect_answer(page, "11")
        page.click("#clear")
        expect_nothing(page)
    for locator in page.locator("button, .bars, #canvas, label").all():
        box = locator.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    assert page.evaluate("getComputedStyle(document.querySelector('#canvas')).touchAction") == (
        "none"
    )


def test_on_a_phone_on_its_side_paper_and_answers_are_in_sight(visit):
    page = visit(ON_ITS_SIDE)
    for locator in (page.locator("#canvas"), page.locator(".best").first):
        box = locator.bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= ON_ITS_SIDE["height"]


def test_on_a_phone_an_empty_message_takes_no_room_from_the_bars(visit):
    page = visit(PHONE)
    expect(page.locator("#message")).to_be_empty()
    above = page.locator(".buttons").bounding_box()
    below = page.locator("#choice").bounding_box()
    assert below["y"] - (above["y"] + above["height"]) < 20
