"""Use trained weights in plain PyTorch, without mnist-zoo.

Make them: mnist-zoo export --ckpt_path best.ckpt --format state_dict --out weights.pt
from a checkpoint of ConvNetThreeDense, and a picture with python examples/four.py four.png
Run it:    python examples/plain_torch.py weights.pt four.png
"""

from __future__ import annotations

import argparse
import pickle
import sys

import numpy as np
import torch
from PIL import Image
from torch import nn


def network() -> nn.Sequential:
    """Build the layers of ConvNetThreeDense, in the same order and nesting."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 32, 5), nn.MaxPool2d(2), nn.ReLU()),
        nn.Dropout(0.25),
        nn.Sequential(nn.Conv2d(32, 64, 5), nn.MaxPool2d(2), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(512, 256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )


def main(weights: str, picture: str) -> None:
    """Read a picture, light on dark, and print the network's prediction."""
    net = network()
    try:
        net.load_state_dict(torch.load(weights, weights_only=True))
    except (RuntimeError, TypeError, pickle.UnpicklingError):
        print(
            f"{weights}: not a state_dict of ConvNetThreeDense, which this script needs.",
            file=sys.stderr,
        )
        sys.exit(2)
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    net.eval()
    try:
        image = Image.open(picture).convert("L").resize((28, 28))
    except OSError as error:
        print(f"{picture} cannot be read: {error}", file=sys.stderr)
        sys.exit(2)
    pixels = np.asarray(image, dtype=np.float32) / 255
    with torch.no_grad():
        probabilities = net(torch.from_numpy(pixels).reshape(1, 1, 28, 28)).softmax(dim=1)[0]
    digit = int(probabilities.argmax())
    print(f"{digit} ({100 * probabilities[digit]:.1f} %)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("weights", metavar="WEIGHTS.pt")
    parser.add_argument("picture", metavar="PICTURE")
    arguments = parser.parse_args()
    main(arguments.weights, arguments.picture)
