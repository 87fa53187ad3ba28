"""What many perturbed networks come to: seconds by kind, and each broken promise under its seed."""

import asyncio
from types import SimpleNamespace

import pytest

from p2pnode import ordeal, testnet
from p2pnode.errors import ConfigError
from p2pnode.ordeal import Ordeals, ordeals


def summary(accuracy=0.95, failures=(), **seconds):
    rows = [{"kind": kind, "outcome": None if took is None else {"seconds": took}} for kind, took in seconds.items()]
    return {"accuracy_min": accuracy, "perturbations": rows, "failures": list(failures)}


def test_seconds_are_summed_up_by_kind_and_who_never_stepped_again_is_in_no_median():
    told = Ordeals("netns", 0.96)
    told.add(1, summary(kill=1.0, pause=2.0))
    told.add(2, summary(kill=4.0, slow=None))
    told.add(3, {**summary(), "perturbations": [{"kind": "slow", "outcome": {"seconds": None}}]})
    assert told.by_kind() == {
        "kill": {"count": 2, "median_s": 2.5, "most_s": 4.0},
        "pause": {"count": 1, "median_s": 2.0, "most_s": 2.0},
        "all": {"count": 3, "median_s": 2.0, "most_s": 4.0},
    }
    assert told.failures == []
    assert "3 networks on netns learned to 0.9500 at least" in str(told.table().title)
    assert "undisturbed to 0.9600" in str(told.table().title)


def test_a_broken_promise_and_less_that_is_learned_are_told_with_the_seed():
    told = Ordeals("processes", 0.96)
    told.add(7, summary(0.90, ["node0 is accused, and did not lie"]))
    assert told.failures == [
        "seed 7: node0 is accused, and did not lie",
        "seed 7: learned to 0.9000 only; undisturbed to 0.9600",
    ]


@pytest.mark.parametrize("hosts", [True, False])
def test_every_seed_is_a_network_of_its_own_and_one_that_fails_stops_no_other(tmp_path, monkeypatch, hosts):
    ran = []

    class Stands:
        def __init__(self, plan, began, watch, drawn=None, say=None):
            ran.append((plan, drawn))

        async def run(self):
            plan, drawn = ran[-1]
            if drawn is not None and plan.values["seed"] == 5:
                raise testnet.TestnetFailed("it stalled")
            return summary(kill=1.0)

    class Hosts:
        def __init__(self, count):
            if not hosts:
                raise ConfigError("needs root")

        def __enter__(self):
            return SimpleNamespace(mine=True)

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(ordeal, "Testnet", Stands)
    monkeypatch.setattr(ordeal, "Perturbed", Stands)
    monkeypatch.setattr(ordeal, "Hosts", Hosts)
    told = asyncio.run(ordeals(tmp_path, range(4, 7), 60.0, lambda line: None))
    assert told.engine == ("netns" if hosts else "processes")
    assert [(plan.values["seed"], plan.byzantine, drawn is not None) for plan, drawn in ran] == [
        (4, 0, False),
        (4, 0, True),
        (5, 1, True),
        (6, 0, True),
    ]
    assert [plan.hosts is not None for plan, _ in ran[1:]] == [hosts] * 3
    assert len({plan.out for plan, _ in ran}) == 4
    assert told.failures == ["seed 5: it stalled"]
    assert list(told.accuracy) == [4, 6]
