"""A trial on a real network: the same choices, the same kind of outcome, other machinery."""

import pytest

from p2pnode.errors import ConfigError
from p2pnode.experiment.engine import Began, Ended, Stepped
from p2pnode.experiment.real import on_testnet, on_testnets
from p2pnode.simulation.trial import Trial, perform

TRIAL = Trial("digits", "dsgd", nodes=3, byzantine=0, f=0, steps=6, seed=4, local_batch=16, lr=0.3, momentum=0.5)


def test_real_nodes_end_where_simulated_ones_do_if_no_schedule_matters():
    """Each waits for all, so that all mix the same; gradients of small models are batched in simulation."""
    began, *events = on_testnets([TRIAL], pytest.fail, workers=9)  # whatever else simulates them
    assert isinstance(began, Began)
    assert all(isinstance(event, Stepped | Ended) for event in events)
    assert events[-1].error is None
    real, simulated = events[-1].outcome, perform(TRIAL)
    assert real.accuracies.keys() == simulated.accuracies.keys() == {"node0", "node1", "node2"}
    assert real.mean == pytest.approx(simulated.mean, abs=0.006), "two of 360 test images"
    assert real.worst == min(real.accuracies.values())
    assert real.honest_diameter < 1e-6


def test_what_no_theorem_covers_is_refused_before_a_process_starts():
    with pytest.raises(ConfigError, match="real nodes run only what a theorem covers"):
        on_testnet(Trial("digits", "monna", nodes=3, byzantine=1, f=1, attack=("alie",), beyond_the_bound=True))
    with pytest.raises(ConfigError, match=r"needs n ≥ 5f\+1"):
        on_testnet(Trial("digits", "monna", nodes=3, byzantine=1, f=1, attack=("alie",)))
