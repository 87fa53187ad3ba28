"""A convolutional network of one's own, with BatchNorm, on handwritten digits that come with scikit-learn.

A network of five nodes on this machine, one of them lying (accuracy from 0.1 to above 0.96 in 100 steps):

    p2pnode testnet --task examples/own_cnn.py:task --nodes 5 --out runs/own-cnn

Or each node by its owner, from their own code, which is the end of this file:

    p2pnode init runs/cnn --f 1 --task examples/own_cnn.py:CNN --steps 100 --address a=127.0.0.1:7001 \
      --address b=127.0.0.1:7002 --address c=127.0.0.1:7003 --address d=127.0.0.1:7004 --address e=127.0.0.1:7005
    python examples/own_cnn.py runs/cnn/a     # and b, c, d and e, each in a terminal, or on a machine, of its own
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import p2pnode


class CNN(nn.Module):
    """13,802 parameters; nothing in it knows of a network of nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(images)
        return logits


def digits(*, test: bool) -> TensorDataset:
    """Every fifth image is for the test."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    chosen = (torch.arange(len(images)) % 5 == 0) == test
    return TensorDataset(images[chosen], torch.tensor(labels)[chosen])


task = p2pnode.task(CNN, lambda: digits(test=False), cross_entropy, test=lambda: digits(test=True), steps=100, lr=0.2)


if __name__ == "__main__":
    loader = DataLoader(digits(test=False), batch_size=32, shuffle=True)  # here all have the same; yours are your own
    fitted = p2pnode.fit(
        CNN(), loader, cross_entropy, home=sys.argv[1], test=digits(test=True), shared=True,
        on_step=lambda taken: print(f"step {taken.step} of {taken.of}: loss {taken.loss:.3f}"),
    )  # fmt: skip
    print(f"accuracy {fitted.accuracy}, evidence against liars: {len(fitted.evidence)} files")
