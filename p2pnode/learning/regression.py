"""A linear regression of six agents, of which the last is to be the liar: small enough to know the answer.

Agent i holds one observation (a_i, b_i) and the cost (b_i − a_i·x)². The costs are nearly 2f-redundant: the minimiser
of any four of any five of them lies within `EPSILON` of that of the five.

Source: the regression benchmark of arXiv 2101.09337 (n = 6, f = 1); minimiser, ε, L = 2 and μ = 0.712 checked by
enumeration of subsets.
"""

import torch
from torch import Tensor, nn

from p2pnode.learning.data import Dataset

EPSILON = 0.0890
"""What leaving out one honest agent may move the minimiser by."""

_START = (-0.0085, -0.5643)
_HONEST = (
    ((0.8, 0.5), 1.3349),
    ((0.5, 0.8), 1.3376),
    ((0.0, 1.0), 1.0033),
    ((-0.5, 0.8), 0.2142),
    ((-0.8, 0.5), -0.3615),
)
_FAULTY = ((1.0, 0.0), 0.9108)


def regression_data() -> Dataset:
    """The observations as the training set, the faulty agent's last; tested is x itself, against the honest minimiser.

    So the test loss is ‖x − x_H‖²/2.
    """
    rows = (*_HONEST, _FAULTY)
    features = torch.tensor([a for a, _ in rows])
    observed = torch.tensor([[b] for _, b in rows])
    honest = len(_HONEST)
    minimiser = torch.linalg.lstsq(features[:honest].double(), observed[:honest].double()).solution.float()
    return Dataset(features, observed, torch.eye(2), minimiser)


def linear() -> nn.Module:
    """x ↦ a·x from the benchmark's starting point: 2 parameters."""
    module = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([_START]))
    return module


def within_epsilon(outputs: Tensor, minimiser: Tensor) -> Tensor:
    """1 if the model is within `EPSILON` of the honest minimiser, else 0."""
    distance: Tensor = torch.linalg.vector_norm(outputs - minimiser)
    return (distance < EPSILON).double()
