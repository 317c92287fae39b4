"""Takes the picture of the page to draw on: ``python docs/demo_screenshot.py [options of demo]``.

It needs what the browser tests need: the extra ``dev``, and Chromium or Chrome.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

OUT = Path(__file__).parent / "images" / "demo.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def arc(x: float, y: float, radius: float, start: float, end: float) -> list[tuple[float, float]]:
    """Return points of an arc about (x, y), angles in quarter turns clockwise from the right."""
    angles = [math.pi / 2 * (start + (end - start) * n / 24) for n in range(25)]
    return [(x + radius * math.cos(a), y + radius * 0.95 * math.sin(a)) for a in angles]


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw a line with the mouse; the paper reaches from 0 to 1."""
    box = page.locator("#canvas").bounding_box()
    assert box
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def main() -> int:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not program:
        print(f"error: needs a browser: {' or '.join(BROWSERS)}", file=sys.stderr)
        return 2
    command = [sys.executable, "-m", "mnist_zoo", "demo", "--port=0", "--no_browser"]
    with (
        subprocess.Popen([*command, *sys.argv[1:]], stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
    ):
        assert server.stdout
        try:
            address = re.search(r"http://\S+", server.stdout.readline())
            if not address:  # the command has said why
                return 2
            browser = playwright.chromium.launch(executable_path=program)
            page = browser.new_page(viewport={"width": 1000, "height": 660})
            page.goto(address[0])
            draw(page, arc(0.47, 0.345, 0.16, -1.7, 1) + arc(0.47, 0.665, 0.185, -1, 1.7))
            expect(page.locator(".best").first).to_have_text(re.compile(r"^3 "))
            page.wait_for_timeout(1000)  # until the bars have grown
            page.screenshot(path=OUT)
            browser.close()
        finally:
            server.terminate()
    print(f"Wrote {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
