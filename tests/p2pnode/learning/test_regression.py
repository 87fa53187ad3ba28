"""The regression whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
import torch

from p2pnode.errors import ConfigError
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.regression import EPSILON
from p2pnode.learning.task import build
from p2pnode.learning.trainer import Trainer

HONEST = 5


@pytest.fixture(scope="module")
def task():
    return build("regression", None)


def minimiser(task, agents):
    rows = list(agents)
    return np.linalg.lstsq(task.data.train_x[rows].numpy(), task.data.train_y[rows].numpy(), rcond=None)[0].ravel()


def test_the_minimiser_and_epsilon_are_those_of_the_benchmark_by_enumeration(task):
    answer = minimiser(task, range(HONEST))
    assert np.allclose(answer, [1.0780, 0.9825], atol=5e-5)
    assert np.allclose(task.data.test_y.ravel(), answer, atol=1e-6)
    farthest = max(
        np.linalg.norm(minimiser(task, four) - minimiser(task, five))
        for five in combinations(range(6), 5)
        for four in combinations(five, 4)
    )
    assert farthest == pytest.approx(EPSILON, abs=5e-5)


def test_each_node_holds_the_observation_of_its_own_agent_whatever_the_seed(task):
    for seed in (0, 1):
        assert [task.part(node, 6, seed, None).tolist() for node in range(6)] == [[node] for node in range(6)]
    with pytest.raises(ConfigError, match="of no labels; leave it out"):
        task.part(0, 6, 0, 1.0)
    with pytest.raises(ConfigError, match="cannot share 6 training samples"):
        task.part(0, 7, 0, None)


def test_the_mean_of_honest_gradients_leads_to_the_minimiser_and_with_the_faulty_one_beyond_epsilon(task):
    """The loss is half the squared distance, and the accuracy tells whether it is within epsilon."""
    settings = TASKS["regression"]
    distances = {}
    for agents in (HONEST, HONEST + 1):
        nodes = [
            Trainer(task, task.part(node, 6, 0, None), 0, node, 1, 0.0, settings.lr, settings.lr_decay_every, "cpu")
            for node in range(agents)
        ]
        for t in range(settings.steps):
            gradients = torch.stack([node.direction(t) for node in nodes])
            if agents > HONEST:
                gradients[-1].neg_()
            model = nodes[0].descend(t, gradients.mean(dim=0))
            for node in nodes:
                node.adopt(model)
        measured = nodes[0].evaluate()
        distance = float(torch.linalg.vector_norm(nodes[0].vector - task.data.test_y.ravel()))
        assert measured.loss == pytest.approx(distance**2 / 2, abs=1e-9)
        assert measured.accuracy == (distance < EPSILON)
        distances[agents] = distance
    assert distances[HONEST] < 1e-4
    assert distances[HONEST + 1] > EPSILON
