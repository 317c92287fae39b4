"""Draw the four that a tutorial made by hand, number by number, and save it as a picture.

Run it: python examples/four.py four.png
Then:   mnist-zoo predict four.png
"""

from __future__ import annotations

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


if __name__ == "__main__":
    file = sys.argv[1] if len(sys.argv) > 1 else "four.png"
    Image.fromarray(four()).save(file)
    print(f"Drawn: {file}")
