"""Use an exported network with only onnxruntime, NumPy and Pillow.

Make it: mnist-zoo export --ckpt_path best.ckpt --format onnx --out network.onnx
Run it:  python examples/onnx_only.py network.onnx four.png
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(file: str, pictures: list[str]) -> None:
    """Read pictures, light on dark, and print the network's predictions."""
    try:
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common class
        reason = str(error).splitlines()[0]
        print(f"{file}: missing, or not an ONNX file: {reason}", file=sys.stderr)
        sys.exit(2)
    try:
        opened = [Image.open(picture) for picture in pictures]
    except OSError as error:
        print(f"A picture cannot be read: {error}", file=sys.stderr)
        sys.exit(2)
    images = np.stack([np.asarray(picture.convert("L").resize((28, 28))) for picture in opened])
    # Any number of images, (N, 1, 28, 28) in [0, 1]; the file itself normalises them.
    pixels = images[:, None].astype(np.float32) / 255
    (probabilities,) = session.run(["probabilities"], {"images": pixels})
    for picture, row in zip(pictures, probabilities, strict=True):
        print(f"{picture}: {row.argmax()} ({100 * row.max():.1f} %)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("network", metavar="NETWORK.onnx")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+")
    arguments = parser.parse_args()
    main(arguments.network, arguments.pictures)
