"""Draw the hand-made four of a tutorial, pixel by pixel, and save it as a picture.

Run it: python examples/four.py four.png
Then:   mnist-zoo predict four.png
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import numpy.typing as npt
from PIL import Image


def four() -> npt.NDArray[np.uint8]:
    """Return 28 × 28 pixels from 0 to 255, three strokes on black."""
    image = np.zeros((28, 28), dtype=np.uint8)
    image[5:23, 9] = 180
    diagonal = np.arange(9, 19)
    image[diagonal, diagonal] = 250
    image[14, 5:15] = 200
    return image


def main(picture: str) -> None:
    try:
        Image.fromarray(four()).save(picture)
    except (OSError, ValueError) as error:  # the latter for an unknown ending
        print(f"{picture} cannot be written: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Drawn: {picture}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", metavar="PICTURE", nargs="?", default="four.png")
    main(parser.parse_args().picture)
