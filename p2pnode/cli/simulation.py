"""Networks in one process, at virtual time: `simulate`."""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from p2pnode.cli.charter import Exchange, data_folder, spread
from p2pnode.cli.console import EXIT_FAILED, answer, people
from p2pnode.cli.options import Alpha, AsJson, Clip, DataDir, Listed, LocalBatch, Lr, LrDecayEvery, Momentum, names
from p2pnode.errors import ConfigError
from p2pnode.observe import table
from p2pnode.recipe import BROADCASTS, RECIPES
from p2pnode.simulation.schedule import SCHEDULES

if TYPE_CHECKING:
    from p2pnode.simulation.sweep import Sweep

commands = typer.Typer()


@commands.command()
@spread
def simulate(
    *,
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes.")] = 4,
    byzantine: Annotated[int, typer.Option(min=0, help="How many of them lie: the last ones.")] = 1,
    f: Annotated[int | None, typer.Option("--f", min=0, help="Liars to tolerate; default: --byzantine.")] = None,
    recipe: Annotated[
        str, typer.Option(help=f"A recipe ({', '.join(RECIPES)}), or one broadcast alone: {', '.join(BROADCASTS)}.")
    ] = "jungle-rb",
    exchange: Exchange,
    attack: Annotated[str, typer.Option(help="What liars do, as in `testnet`; twins; or all, in turn.")] = "all",
    schedule: Annotated[str, typer.Option(help=f"What the network does: {', '.join(SCHEDULES)}; or all.")] = "all",
    seeds: Annotated[int, typer.Option(min=1, help="How many runs.")] = 100,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first run.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="Learning steps of a run.")] = 2,
    train: Annotated[bool, typer.Option("--train", help="Train real models instead of small vectors.")] = False,
    task: Listed = "digits",
    data_dir: DataDir = None,
    alpha: Alpha = None,
    local_batch: LocalBatch = None,
    momentum: Momentum = None,
    lr: Lr = None,
    lr_decay_every: LrDecayEvery = None,
    clip: Clip = None,
    device: Annotated[str, typer.Option(help="Train on cpu, cuda, cuda:INDEX or auto.")] = "cpu",
    real_signatures: Annotated[bool, typer.Option("--real-signatures", help="Ed25519, not ideal ones.")] = False,
    beyond_the_bound: Annotated[bool, typer.Option("--beyond-the-bound", help="Run what no theorem covers.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Draw the end of the first run as a diagram.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run whole networks in one process at virtual time, under attack, and check every guarantee at every delivery.

    One seed is one trace, on any machine. Exit code 1 if a guarantee did not
    hold; each such run comes with the command that runs it again.

    Examples:

      p2pnode simulate

      p2pnode simulate --nodes 13 --byzantine 3 --attack equivocate --seeds 20

      p2pnode simulate --recipe reliable --byzantine 2 --f 1 --beyond-the-bound

      p2pnode simulate --recipe signed-echo --attack twins --seeds 1 --show

      p2pnode simulate --train --recipe monna --nodes 6 --attack alie --schedule random --seeds 1 --steps 200
    """
    from p2pnode.simulation.scenario import schooling
    from p2pnode.simulation.sweep import ALL, ATTACKS_IN_TURN, Sweep

    attacks = ATTACKS_IN_TURN if attack == ALL else (names(attack),)
    chosen = {"alpha": alpha, "local_batch": local_batch, "momentum": momentum, "lr": lr}
    chosen |= {"lr_decay_every": lr_decay_every, "clip": clip}
    needless = [name.replace("_", "-") for name, value in chosen.items() if value is not None]
    if needless and not train:
        raise ConfigError(
            f"{needless[0]}: nothing is trained that it could change. Remedy: add --train, or leave it out"
        )
    if train:
        data_folder(task, data_dir)
    options = asdict(exchange)
    rule, broadcast, sub_rounds = (options.pop(name) for name in ("rule", "broadcast", "sub_rounds"))
    sweep = Sweep(
        nodes,
        byzantine,
        f if f is not None else byzantine,
        recipe,
        attacks,
        tuple(SCHEDULES) if schedule == ALL else (schedule,),
        steps,
        broadcast,
        rule,
        sub_rounds,
        schooling(task, recipe, steps, **chosen) if train else None,
        data_dir,
        device,
        real_signatures,
        beyond_the_bound,
        tuple((name, value) for name, value in options.items() if value is not None),
    )
    _simulate(sweep.checked(), range(first_seed, first_seed + seeds), show=show, as_json=as_json)


def _simulate(sweep: "Sweep", seeds: range, *, show: bool, as_json: bool) -> None:
    from p2pnode.simulation.sweep import draw, run_all, summary

    began = time.monotonic()
    unit, each = ("runs", 1) if sweep.train is None else ("steps", sweep.steps)
    with table.Bar(people, len(seeds) * each, quiet=as_json, unit=unit) as bar:
        stepped = None if sweep.train is None else bar.advance
        tally = run_all(sweep, seeds, lambda so_far: bar.show(so_far.runs * each, len(so_far.broken)), stepped)
    told = summary(sweep, tally, began)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        answer.print(table.simulation(told))
        for text in table.violations(told):
            answer.print(text, markup=False, highlight=False, soft_wrap=True)
    if not as_json and (show or tally.broken):
        seed = tally.broken[0].seed if tally.broken else seeds[0]
        drawn = f"\nseed {seed}, the end of it:\n{draw(sweep, seed)}"
        answer.print(drawn, markup=False, highlight=False, soft_wrap=True)
    if tally.broken:
        raise typer.Exit(EXIT_FAILED)
