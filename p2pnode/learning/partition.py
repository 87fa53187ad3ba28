"""Which samples a node trains on: its part of the training set, and the mini-batch of each step.

Both are pure functions of the genesis seed, the node's index and the step, so a node that restarts, or moves to
another process, draws the same samples. Each concern has a random stream of its own: a new draw here moves nothing
there. Streams are numpy's, and stay the same as long as numpy's own `Generator` methods do.
"""

import math
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from p2pnode.errors import ConfigError


class Stream(IntEnum):
    """The concerns that draw from the genesis seed. The numbers are part of what makes a run reproducible."""

    INITIALISATION = 0
    PARTITION = 1
    BATCH = 2
    LAYERS = 3
    SAMPLES = 4


def seed_sequence(seed: int, stream: Stream, *key: int) -> np.random.SeedSequence:
    """Return the seed of one stream, independent of those of all other (stream, key).

    Args:
        seed: The genesis seed, ≥ 0, of any size.
        stream: The concern.
        key: Numbers ≥ 0 that tell apart the draws of one concern, as node and step.
    """
    return np.random.SeedSequence(seed, spawn_key=(stream, *key))


def partition(labels: Tensor | range, node: int, nodes: int, seed: int, alpha: float | None) -> Tensor:
    """Return the ⌊N/nodes⌋ training samples of one node, the same in whichever process it is computed.

    Without alpha the split is i.i.d.: one shuffle, cut into disjoint parts of equal size; the N mod nodes last samples
    of the shuffle are unused. With alpha the node draws label proportions from Dirichlet(alpha, ..., alpha) and takes
    that many samples of each label: a small alpha gives a node few labels, a large one all of them. Nodes then draw
    independently and may share samples. Within a node a sample comes twice only when the proportions ask for more
    samples of a label than there are: all of them are taken before any is taken again.

    Args:
        labels: (N,) int64, labels of the whole training set; without alpha only how many there are matters.
        node: Index of the node, 0 ≤ node < nodes.
        nodes: How many nodes share the set, 1 ≤ nodes ≤ N.
        seed: The genesis seed, ≥ 0.
        alpha: None, or the concentration, > 0 and finite.

    Returns:
        (⌊N/nodes⌋,) int64 indices into the training set, ascending.

    Raises:
        ConfigError: A number is out of its range, or there is an alpha and labels are no classes of samples.

    Source:
        MoNNA (arXiv 2209.10931), released experiments: Dirichlet proportions drawn by each node, samples shared.
    """
    size = part_size(len(labels), node, nodes)
    if alpha is None:
        shuffled = np.random.default_rng(seed_sequence(seed, Stream.PARTITION)).permutation(len(labels))
        part = shuffled[node * size : (node + 1) * size]
    else:
        rng = np.random.default_rng(seed_sequence(seed, Stream.PARTITION, node))
        part = _dirichlet_part(np.asarray(labels), size, rng, alpha)
    return torch.from_numpy(np.sort(part))


def batch(samples: int, size: int, seed: int, node: int, t: int) -> Tensor:
    """Return the mini-batch of step t: `size` distinct positions in a part of `samples`.

    A pure function of its arguments, so a restart at step t draws what was drawn before, and no cursor into the data
    has to be kept. Every step draws anew, so that each position comes with probability size / samples whatever the
    sizes of the steps before.

    Args:
        samples: Length of the node's part.
        size: 1 ≤ size ≤ samples.
        seed: The genesis seed, ≥ 0.
        node: Index of the node, ≥ 0.
        t: The step, ≥ 0.

    Returns:
        (size,) int64, each in 0..samples-1.
    """
    rng = np.random.default_rng(seed_sequence(seed, Stream.BATCH, node, t))
    return torch.from_numpy(rng.choice(samples, size, replace=False, shuffle=False))


def grown(samples: int, least: int, t: int) -> int:
    """Return the size of a growing mini-batch at step t: t + 1, but not under `least` nor over `samples`.

    The variance of a gradient over b samples falls as 1/b. An agreement on gradients may be off by a multiple of how
    far honest ones lie apart, so with batches of constant size noise alone leaves an error that no number of steps
    removes.

    Args:
        samples: Length of the node's part.
        least: 1 ≤ least ≤ samples.
        t: The step, ≥ 0.

    Returns:
        A size for `batch`, in least..samples; it never falls as t rises.

    Source:
        Collaborative learning (arXiv 2008.00742): b_t = t for steps counted from 1, here from 0. There each sample is
        drawn from a distribution that never runs out; a part does, and from t = samples - 1 on the batch is all of it.
    """
    return min(samples, max(least, t + 1))


def part_size(samples: int, node: int, nodes: int) -> int:
    """Return how many samples each node holds, if there are enough and the node is one of them.

    Raises:
        ConfigError: They are not.
    """
    if not 1 <= nodes <= samples:
        raise ConfigError(f"nodes: {nodes} nodes cannot share {samples} training samples; use 1 to {samples} nodes")
    if not 0 <= node < nodes:
        raise ConfigError(f"node: {node} is no index among {nodes} nodes; use 0 to {nodes - 1}")
    return samples // nodes


def _dirichlet_part(
    labels: npt.NDArray[np.int64], size: int, rng: np.random.Generator, alpha: float
) -> npt.NDArray[np.int64]:
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ConfigError(f"alpha: {alpha} is no Dirichlet concentration; use a number above 0, or none for i.i.d.")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError("alpha: a sample's label is no class that nodes could have much or little of; leave it out")
    kinds = np.unique(labels)
    counts = rng.multinomial(size, rng.dirichlet(np.full(len(kinds), alpha)))
    # resize repeats the shuffled pool from its start as often as the count asks.
    drawn = [
        np.resize(rng.permutation(np.flatnonzero(labels == kind)), count)
        for kind, count in zip(kinds, counts, strict=True)
    ]
    return np.concatenate(drawn)
