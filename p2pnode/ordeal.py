"""Many short networks, each hurt by another draw: how long healing takes, and what was promised and is not so.

Five nodes learn digits. Of every other network one node lies from the beginning; in the others an honest one may be
swapped for a liar on the way. Each draw is its seed's, and can be done again from the `perturb.toml` of its folder.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from p2pnode.errors import ConfigError
from p2pnode.hosts import Hosts, HostsFailed
from p2pnode.learning import catalogue
from p2pnode.perturbation import draw
from p2pnode.perturbed import Perturbed, Say, subject
from p2pnode.testnet import Plan, Testnet, TestnetFailed

NODES, F = 5, 1
ATTACK = "equivocate"

STEPS = 400
"""As many as are taken while all that may be drawn is done, one after another: else the last ones come too late."""

ACCURACY_LOSS_MAX = 0.05
"""How much worse than the worst undisturbed node a perturbed one may learn; 360 samples measure to about 0.01."""


@dataclass(slots=True)
class Ordeals:
    """What came of them all.

    Args:
        engine: where the nodes ran: netns or processes.
        undisturbed: the worst accuracy of a network that was left alone.
        accuracy: the worst of each perturbed one that came to its end, by seed.
        seconds: from each healing until everyone had stepped again, by kind.
        failures: what was promised and is not so, a sentence each that names the seed.
    """

    engine: str
    undisturbed: float
    accuracy: dict[int, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, seed: int, summary: dict[str, Any]) -> None:
        """A perturbed network came to its end with this summary."""
        self.accuracy[seed] = summary["accuracy_min"]
        for one in summary["perturbations"]:
            if one["outcome"] is not None and one["outcome"]["seconds"] is not None:
                self.seconds.setdefault(one["kind"], []).append(one["outcome"]["seconds"])
        wrong = list(summary["failures"])
        if summary["accuracy_min"] < self.undisturbed - ACCURACY_LOSS_MAX:
            wrong.append(f"learned to {summary['accuracy_min']:.4f} only; undisturbed to {self.undisturbed:.4f}")
        self.failures += [f"seed {seed}: {sentence}" for sentence in wrong]

    def by_kind(self) -> dict[str, dict[str, float]]:
        """How many there were of each kind, and the seconds until everyone stepped again; last, of all."""
        every = {**self.seconds, "all": [took for each in self.seconds.values() for took in each]}
        return {
            kind: {"count": len(took), "median_s": round(statistics.median(took), 2), "most_s": max(took)}
            for kind, took in every.items()
            if took
        }

    def table(self) -> Table:
        """The same for people."""
        accuracy = sorted(self.accuracy.values()) or [0.0]
        title = f"{len(self.accuracy)} networks on {self.engine} learned to {accuracy[0]:.4f} at least"
        title += f" and {statistics.median(accuracy):.4f} by the median; undisturbed to {self.undisturbed:.4f}"
        table = Table("perturbation", "times", "s, median", "s, most", title=title)
        for kind, row in self.by_kind().items():
            table.add_row(kind, *(f"{row[key]:g}" for key in ("count", "median_s", "most_s")))
        return table


async def ordeals(out: Path, seeds: Sequence[int], stall_s: float, say: Say) -> Ordeals:
    """Run a network undisturbed, and one for each seed perturbed.

    Raises:
        TestnetFailed: if even the undisturbed one fails.
    """
    undisturbed = await Testnet(_plan(out / "undisturbed", seeds[0], stall_s), time.time(), _unwatched).run()
    engine = "netns" if _hosts_can_be_made() else "processes"
    told = Ordeals(engine, undisturbed["accuracy_min"])
    say(f"{STEPS} steps on {engine}; undisturbed {told.undisturbed:.4f} is learned at least")
    for seed in seeds:
        try:
            told.add(seed, await _perturbed(_plan(out / f"seed{seed}", seed, stall_s), engine, say))
        except TestnetFailed as error:
            told.failures.append(f"seed {seed}: {error}")
        say(f"seed {seed}: {len(told.failures)} promises broken so far")
    return told


async def _perturbed(plan: Plan, engine: str, say: Say) -> dict[str, Any]:
    drawn = draw(plan.values["seed"], subject(plan, links=engine == "netns"))
    if engine == "processes":
        return await Perturbed(plan, time.time(), _unwatched, drawn, say).run()
    with Hosts(plan.nodes) as hosts:
        return await Perturbed(replace(plan, hosts=hosts), time.time(), _unwatched, drawn, say).run()


def _hosts_can_be_made() -> bool:
    try:
        with Hosts(1):
            return True
    except (ConfigError, HostsFailed):  # not root, or root in a container that may not
        return False


def _plan(out: Path, seed: int, stall_s: float) -> Plan:
    defaults = catalogue.find("digits")
    training = {"task": "digits", "local_batch": defaults.local_batch, "momentum": defaults.momentum, "lr": defaults.lr}
    values = {"seed": seed, "f": F, "recipe": {"name": "trimmed"}, "training": {**training, "steps": STEPS}}
    return Plan(out, values, NODES, seed % 2, (ATTACK,), None, stall_s)


def _unwatched(nodes: object) -> None:
    """Nobody looks on."""
