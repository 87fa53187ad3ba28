"""The rule itself: (n, d) vectors, all of them finite, to (d,). Called for CPU and CUDA tensors alike."""

from torch import Tensor


def midrange_of_the_trimmed(vectors: Tensor, f: int) -> Tensor:
    ordered = vectors.sort(dim=0).values
    return (ordered[f] + ordered[len(vectors) - 1 - f]) / 2
