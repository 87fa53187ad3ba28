"""A whole network on this machine: `testnet`."""

import json
import signal
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from p2pnode.byzantine import ATTACKS, check_attacks
from p2pnode.cli.charter import Exchange, Learning, data_folder, genesis_values, proposal_of, spread
from p2pnode.cli.console import EXIT_FAILED, answer, people, say
from p2pnode.cli.options import AsJson, Recipe, Written, names, one_of
from p2pnode.errors import ConfigError
from p2pnode.home import NetworkFolder
from p2pnode.learning.source import names_code
from p2pnode.observe import table

if TYPE_CHECKING:
    from p2pnode.containers import Containers
    from p2pnode.hosts import Hosts
    from p2pnode.perturbation import Perturbations
    from p2pnode.testnet import Plan

ENGINES = ("processes", "netns", "containers")

commands = typer.Typer()


@commands.command("testnet")
@spread
def run_testnet(
    *,
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder for genesis, homes and summary.json.")] = Path("runs/testnet"),
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes.")] = 7,
    byzantine: Annotated[int, typer.Option(min=0, help="How many of them lie: the last ones.")] = 1,
    f: Annotated[int | None, typer.Option("--f", help="Liars to tolerate; default: --byzantine, 0 for dsgd.")] = None,
    attack: Annotated[
        str, typer.Option(help=f"What liars do, a list: {', '.join(ATTACKS)}; or your own code, as FILE.py:NAME.")
    ] = "alie,equivocate",
    recipe: Recipe = "trimmed",
    exchange: Exchange,
    learning: Learning,
    engine: Annotated[
        str,
        typer.Option(help="Where nodes run: processes on loopback; netns, each on a host of its own; or containers."),
    ] = "processes",
    link_mbit: Annotated[
        float | None, typer.Option(min=0.1, help="Megabits a second of each host's link; needs --engine netns.")
    ] = None,
    link_delay: Annotated[
        float | None,
        typer.Option(min=0, help="Milliseconds on each host's link, either way; two hosts are two links apart."),
    ] = None,
    image: Annotated[
        str | None, typer.Option(help="What containers are of; default: p2pnode.", show_default=False)
    ] = None,
    stall: Annotated[float, typer.Option(help="Give up after so many seconds without a step.")] = 60.0,
    tensorboard: Written = None,
    page: Annotated[bool, typer.Option("--page", help="Show the net on a page, on loopback, while it runs.")] = False,
    perturb: Annotated[
        str | None,
        typer.Option(help="Hurt the nodes on the way as this file says, or at random.", show_default=False),
    ] = None,
    perturb_seed: Annotated[
        int | None, typer.Option(help="What --perturb random draws by; default: --seed.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole network on this machine: real processes, sockets and signatures, some of the nodes lying.

    Examples:

      p2pnode testnet

      p2pnode testnet --recipe dsgd --attack sign-flip

      p2pnode testnet --page

      p2pnode testnet --task mnist --data-dir data/mnist --recipe monna --alpha 1

      p2pnode testnet --task examples/own_cnn.py:task --nodes 5

      sudo p2pnode testnet --engine netns --link-mbit 100 --link-delay 20

      p2pnode testnet --perturb random
    """
    tolerated = f if f is not None else (0 if recipe == "dsgd" else byzantine)
    plan = _plan(out, nodes, byzantine, tolerated, names(attack), recipe, exchange, learning, stall, tensorboard)
    if engine == "containers":
        _check_containers(plan, learning.task, perturb)
    perturbations = _perturbations(plan, perturb, perturb_seed, links=engine == "netns")
    began = context.find_object(float)
    with _hosts(engine, nodes, link_mbit, link_delay) as hosts, _containers(engine, image) as containers:
        placed = replace(plan, hosts=hosts, containers=containers)
        summary = _watched(placed, perturbations, time.time() if began is None else began, quiet=as_json, page=page)
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        answer.print(table.summary(summary, answer.width))
        if perturbations is not None:
            answer.print(table.perturbations(summary))
        answer.print(table.closing(summary, NetworkFolder(plan.out).summary), soft_wrap=True)
    for sentence in summary.get("failures", ()):
        say("[bold red]broken[/]", sentence)
    if summary.get("failures"):
        raise typer.Exit(EXIT_FAILED)


def _plan(
    out: Path,
    nodes: int,
    byzantine: int,
    f: int,
    attacks: tuple[str, ...],
    recipe: str,
    exchange: Exchange,
    learning: Learning,
    stall: float,
    tensorboard: Path | None,
) -> "Plan":
    """What is to run; tells where it may fail."""
    from p2pnode.testnet import Plan

    check_attacks(attacks)
    if byzantine >= nodes:
        raise ConfigError(f"byzantine = {byzantine}: of {nodes} nodes one at least is honest. Remedy: choose fewer")
    proposal = proposal_of(learning)
    source, start = (None, None) if proposal is None else (proposal.source, proposal.start)
    if proposal is not None and source is None and names_code(learning.task):
        raise ConfigError(
            f"task = {learning.task!r}: it is a model alone. Remedy: name a p2pnode.task(model, data, loss)"
        )
    values = genesis_values(f, recipe, exchange, learning, proposal)
    if byzantine > f:
        say("[yellow]note[/]", f"byzantine = {byzantine}, and the recipe tolerates f = {f}: it may well fail")
    folder = data_folder(learning.task, learning.data_dir)
    return Plan(
        out, values, nodes, byzantine, attacks, folder, stall, source=source, start=start, tensorboard=tensorboard
    )


def _check_containers(plan: "Plan", task: str, perturb: str | None) -> None:
    """Refuse what reaches into a process or its files: containers are shut."""
    for given, why in (
        (plan.source and f"task = {task!r}", "your code is not in the image"),
        (any(map(names_code, plan.attacks)) and "attack", "your code is not in the image"),
        (plan.tensorboard and "tensorboard", "containers write to their homes only"),
        (perturb and f"perturb = {perturb!r}", "containers cannot be hurt from here"),
    ):
        if given:
            raise ConfigError(f"{given}: {why}. Remedy: choose another engine")


def _perturbations(plan: "Plan", perturb: str | None, seed: int | None, *, links: bool) -> "Perturbations | None":
    """What is done to the nodes of a plan; all of it can be."""
    from p2pnode.perturbation import RANDOM, Perturbations, draw
    from p2pnode.perturbed import subject

    if seed is not None and perturb != RANDOM:
        raise ConfigError(f"perturb-seed = {seed}: nothing is drawn. Remedy: add --perturb random, or leave it out")
    if perturb is None:
        return None
    if perturb != RANDOM:
        return Perturbations.load(Path(perturb)).checked(subject(plan, links=links), perturb)
    drawn = draw(seed if seed is not None else plan.values["seed"], subject(plan, links=links))
    say("[yellow]drawn[/]", f"as in {NetworkFolder(plan.out).perturbations}:\n{drawn.toml()}")
    return drawn


def _hosts(
    engine: str, nodes: int, link_mbit: float | None, link_delay: float | None
) -> "AbstractContextManager[Hosts | None]":
    """Where the nodes of a testnet run."""
    if one_of("engine", engine, ENGINES) == "netns":
        from p2pnode.hosts import Hosts

        return Hosts(nodes, link_mbit, (link_delay or 0.0) / 1000)
    for option, value in (("link-mbit", link_mbit), ("link-delay", link_delay)):
        if value is not None:
            raise ConfigError(f"{option} = {value:g}: --engine {engine} has no such links. Remedy: --engine netns")
    return nullcontext()


def _containers(engine: str, image: str | None) -> "AbstractContextManager[Containers | None]":
    """In which containers they run."""
    if engine == "containers":
        from p2pnode.containers import IMAGE, Containers

        return Containers(image or IMAGE)
    if image is not None:
        raise ConfigError(f"image = {image!r}: only containers are of an image. Remedy: add --engine containers")
    return nullcontext()


def _watched(
    plan: "Plan", perturbations: "Perturbations | None", began: float, *, quiet: bool, page: bool
) -> dict[str, Any]:
    """The summary of a testnet that was shown while it ran."""
    import asyncio

    import uvloop

    from p2pnode.netpage import NetPage
    from p2pnode.perturbed import Perturbed
    from p2pnode.testnet import Testnet

    def perturbed(line: str) -> None:
        say("[yellow]perturbed[/]", line)

    async def watched() -> dict[str, Any]:
        with table.Progress(people, plan, quiet=quiet) as progress:
            task = asyncio.current_task()
            assert task is not None
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            net = (
                Testnet(plan, began, progress.show)
                if perturbations is None
                else Perturbed(plan, began, progress.show, perturbations, perturbed)
            )
            if not page:
                return await net.run()
            async with NetPage(net.nodes) as served:
                say("[bold]page[/]", served.address)
                return await net.run()

    try:
        return uvloop.run(watched())
    except asyncio.CancelledError:
        say("[yellow]interrupted[/]", f"every node was stopped; {plan.out} holds what they saved")
        raise typer.Exit(EXIT_FAILED) from None
