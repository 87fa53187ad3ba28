"""Small simulations, by what matters of them; links that do one thing; and who reached whom."""

from p2pnode.simulation import network as simulated
from p2pnode.simulation.network import Network
from p2pnode.simulation.schedule import SCHEDULES
from p2pnode.simulation.sweep import Sweep


def sweep(recipe="reliable", attacks=(), schedule="random", **chosen):
    """Four nodes; one of them lies if there is an attack."""
    byzantine = chosen.pop("byzantine", int(bool(attacks)))
    nodes, f, steps = chosen.pop("nodes", 4), chosen.pop("f", 1), chosen.pop("steps", 2)
    return Sweep(nodes, byzantine, f, recipe, (attacks,), (schedule,), steps, **chosen)


def scenario(*choices, **chosen):
    return sweep(*choices, **chosen).scenario(0)


def network(*choices, seed=0, watch=None, **chosen):
    return Network(scenario(*choices, **chosen), seed, watch)


def ran(*choices, seed=0, **chosen):
    """A network that ran to its end, and all that was delivered in it."""
    seen = []
    one = network(*choices, seed=seed, watch=seen.append, **chosen)
    one.run()
    return one, seen


def use_links(monkeypatch, delays=lambda random: [1.0], *, ordered=False):
    """Every link does this to each message; one delay for each copy."""

    class Links:
        def __init__(self, random):
            self.ordered = ordered
            self.delays = lambda: delays(random)

    monkeypatch.setattr(simulated, "Links", Links)


def use_schedule(monkeypatch, prepare):
    """The schedule "random" is this one."""
    monkeypatch.setitem(SCHEDULES, "random", prepare)
