"""A small transformer of one's own that learns to continue sentences, on text that is made up in this file.

A network of five nodes on this machine, one of them lying:

    p2pnode testnet --task examples/tiny_transformer.py:task --nodes 5 --out runs/transformer

The accuracy is the share of letters that are guessed from those before them: 0.04 at first, above 0.75 after 100 steps,
while the loss falls from 3.8 below 0.7. Which word comes next is chance, so that nobody guesses more than 0.95.
"""

import random

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

import p2pnode

LETTERS = "abcdefghijklmnopqrstuvwxyz .\n"
LENGTH = 32
WORDS = {
    "who": "the cat|the dog|a small bird|my friend|an old fox|every child",
    "does": "sees|follows|likes|never forgets|waits for|runs from",
    "whom": "the moon|a red ball|its mother|the river|another dog|the rain",
    "when": "at night|in the morning|again and again|in summer|today",
}


class Text(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Pieces of a text, each with the same piece a letter later."""

    def __init__(self, seed: int, sentences: int) -> None:
        draw = random.Random(seed)
        made = (" ".join(draw.choice(words.split("|")) for words in WORDS.values()) for _ in range(sentences))
        self.letters = torch.tensor([LETTERS.index(letter) for letter in ".\n".join(made)])

    def __len__(self) -> int:
        return len(self.letters) - LENGTH

    def __getitem__(self, begin: int) -> tuple[torch.Tensor, torch.Tensor]:
        piece = self.letters[begin : begin + LENGTH + 1]
        return piece[:-1], piece[1:]


class TinyTransformer(nn.Module):
    """Two layers of causal attention, 4 heads of 16 numbers; the letters' embedding is tied to the output's weights."""

    def __init__(self, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(LETTERS), width)
        self.place = nn.Parameter(torch.randn(LENGTH, width) * 0.02)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, len(LETTERS), bias=False)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.head.weight = self.embed.weight
        self.register_buffer("future", torch.triu(torch.full((LENGTH, LENGTH), float("-inf")), 1))

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        hidden = self.blocks(self.embed(letters) + self.place, mask=self.future, is_causal=True)
        logits: torch.Tensor = self.head(hidden)
        return logits


def loss(logits: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits.flatten(0, 1), letters.flatten())


task = p2pnode.task(
    TinyTransformer, Text(seed=0, sentences=400), loss, test=Text(seed=1, sentences=10), steps=100, lr=0.7
)
