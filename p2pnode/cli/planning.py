"""Before there is a network: what it will cost, and what there is to choose from: `plan`, `list`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli.charter import Exchange, Learning, data_folder, genesis_values
from p2pnode.cli.console import answer
from p2pnode.cli.options import (
    AsJson,
    Broadcast,
    DataDir,
    Listed,
    LocalBatch,
    LocalSteps,
    Recipe,
    Rule,
    Staleness,
    Steps,
    SubRounds,
    Vectors,
    Wire,
)
from p2pnode.errors import ConfigError
from p2pnode.observe import table

LISTS = ("rules", "attacks", "recipes", "tasks")

commands = typer.Typer()


@commands.command()
def plan(
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes.")] = 7,
    byzantine: Annotated[int, typer.Option(min=0, help="Liars to tolerate.")] = 1,
    recipe: Recipe = "trimmed",
    rule: Rule = None,
    broadcast: Broadcast = None,
    sub_rounds: SubRounds = None,
    local_steps: LocalSteps = None,
    wire: Wire = None,
    staleness: Staleness = None,
    task: Listed = "digits",
    data_dir: DataDir = None,
    steps: Steps = None,
    local_batch: LocalBatch = None,
    vectors: Vectors = "tls",
    link: Annotated[
        str | None,
        typer.Option(
            help="Each node on a machine like this one, with a link of so much: 100Mbit, 1Gbit. "
            "Default: all on this machine, as `testnet` runs them.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what a network tolerates and will cost, before it runs: theorem, bytes, memory, seconds of a step.

    It measures this machine for some seconds, under the load that there is; of the network it starts nothing.

    Examples:

      p2pnode plan --nodes 7 --byzantine 1 --recipe monna

      p2pnode plan --nodes 5 --task mnist --data-dir data/mnist --link 1Gbit
    """
    from p2pnode.forecast import bits_per_second
    from p2pnode.prospect import foretell

    rate = None if link is None else bits_per_second(link)
    exchange = Exchange(rule, broadcast, sub_rounds, local_steps=local_steps, wire=wire, staleness=staleness)
    learning = Learning(task, data_dir, steps=steps, local_batch=local_batch, vectors=vectors)
    folder = data_folder(task, data_dir)
    values = genesis_values(byzantine, recipe, exchange, learning)
    told = foretell(values, nodes, None if folder is None else Path(folder), rate)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        answer.print(table.forecast(told))


@commands.command("list")
def list_choices(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(LISTS)}.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """List what there is to choose from, plug-ins among it: rules, attacks, recipes or tasks."""
    if what not in LISTS:
        raise ConfigError(f"list {what!r}: no such list. Remedy: choose one of {', '.join(LISTS)}")
    from p2pnode import listing

    rows = listing.rows(what)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        answer.print(listing.table(what, rows))
