"""The command line; thin. Exit codes: 0 good, 1 the run failed, 2 a mistake in the settings."""

import asyncio
import json
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from p2pnode.aggregation import RULES
from p2pnode.asking import ask as ask_node
from p2pnode.byzantine import ATTACKS, check_attacks
from p2pnode.codec import decode_evidence
from p2pnode.errors import ConfigError, P2PNodeError, WireError
from p2pnode.genesis import Genesis
from p2pnode.home import START, Home
from p2pnode.identity import Identity, KeyRing
from p2pnode.init import Place, equip, found, unite
from p2pnode.learning import catalogue
from p2pnode.learning.catalogue import TASKS
from p2pnode.learning.source import anywhere, names_code
from p2pnode.observe import table
from p2pnode.observe.log import LEVELS
from p2pnode.observe.log import Console as Shown
from p2pnode.passphrase import VARIABLE, asking
from p2pnode.recipe import BROADCASTS, RECIPES, WIRES
from p2pnode.simulation.schedule import SCHEDULES
from p2pnode.top import EVERY_S, homes_of
from p2pnode.top import show as show_nodes

if TYPE_CHECKING:
    from p2pnode.assignment import Proposal
    from p2pnode.containers import Containers
    from p2pnode.experiment.grid import Experiment
    from p2pnode.experiment.store import Store
    from p2pnode.hosts import Hosts
    from p2pnode.perturbation import Perturbations
    from p2pnode.simulation.sweep import Sweep
    from p2pnode.testnet import Plan

EXIT_FAILED, EXIT_SETTINGS = 1, 2

ENGINES = ("local", "ray", "testnet")
PROBES = {"live": "/healthz", "ready": "/readyz"}
TESTNET_ENGINES = ("processes", "netns", "containers")
LOG_FORMATS = ("text", "json")
LISTS = ("rules", "attacks", "recipes", "tasks")

app = typer.Typer(
    help="A peer-to-peer learning node: decentralized SGD that learns although some of its peers lie.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_people = Console(stderr=True)
_out = Console()

# Options that `init` and `testnet` share: they become the genesis.
Recipe = Annotated[str, typer.Option(help=f"What a step exchanges: {', '.join(RECIPES)}.")]
Rule = Annotated[str | None, typer.Option(help=f"Mix by this instead of the recipe's: {', '.join(RULES)}.")]
Broadcast = Annotated[str | None, typer.Option(help=f"Exchange by this instead: {', '.join(BROADCASTS)}.")]
SubRounds = Annotated[int | None, typer.Option(help="Sub-rounds a step; default: enough to halve the spread.")]
Gather = Annotated[
    str | None,
    typer.Option(help="Wait for a quorum of n−f, or for all, as in synchronous settings.", show_default=False),
]
Redundancy = Annotated[int | None, typer.Option(help="Members that are not waited for, from f; default: f.")]
LocalSteps = Annotated[int | None, typer.Option(help="Gradients that are followed between exchanges of models.")]
Placement = Annotated[str | None, typer.Option(help="Momentum of one's own gradients (worker), or of agreed (update).")]
Wire = Annotated[
    str | None,
    typer.Option(
        help=f"What vectors are rounded to on the way: {', '.join(WIRES)}; default: float32.", show_default=False
    ),
]
Staleness = Annotated[
    int | None,
    typer.Option(
        help="1: take a step's gradient while the last one's models are exchanged; default: 0.", show_default=False
    ),
]
Task = Annotated[
    str, typer.Option(help=f"What is learned: {', '.join(TASKS)}; or your own code, as FILE.py:NAME or MODULE:NAME.")
]
Listed = Annotated[str, typer.Option("--task", help=f"What is learned: {', '.join(TASKS)}.")]
Source = Annotated[
    str | None,
    typer.Option("--task", help="Your own code of the genesis' task: FILE.py:NAME or MODULE:NAME.", show_default=False),
]
Start = Annotated[
    Path | None,
    typer.Option(help="A safetensors file of weights to begin with; default: the seed draws.", show_default=False),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the task's data files.")]
Alpha = Annotated[float | None, typer.Option(help="Dirichlet concentration of labels a node; default: i.i.d. data.")]
Steps = Annotated[int | None, typer.Option(help="Learning steps; default: the task's.")]
LocalBatch = Annotated[int | None, typer.Option(help="Samples a step and node; default: the task's.")]
Momentum = Annotated[float | None, typer.Option(help="β in m ← βm + (1−β)g; default: the task's.")]
Lr = Annotated[float | None, typer.Option(help="Step size; default: the task's.")]
LrDecayEvery = Annotated[
    int | None, typer.Option(help="Divide the step size by 2, 3, … every so many steps; 0: never.")
]
Clip = Annotated[float | None, typer.Option(help="Largest norm of a gradient; default: none.")]
Vectors = Annotated[str, typer.Option(help="How vectors travel: tls, or plain where nobody else can listen.")]
Seed = Annotated[int, typer.Option(help="Seed of initial model, data split and batches.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print for machines.")]
Written = Annotated[
    Path | None,
    typer.Option(help="Write what is learned to this folder, for TensorBoard; default: nowhere.", show_default=False),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help=f"Read the passphrase of the key from this file; default: {VARIABLE}, or it is typed.", show_default=False
    ),
]
HomeFolder = Annotated[Path, typer.Argument(help="The node's home folder.", show_default=False)]

_began = time.time()


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"p2pnode {version('p2pnode')}")
        raise typer.Exit


@app.callback()
def before(
    _: Annotated[bool, typer.Option("--version", callback=_tell_version, help="Show the version and exit.")] = False,
) -> None:
    """What stands before a command."""


def run(began: float) -> None:
    """Run the command line.

    Args:
        began: when the command was started, seconds since the epoch.
    """
    global _began
    _began = began
    try:
        app()
    except ConfigError as error:
        _say("[bold red]refused[/]", error)
        sys.exit(EXIT_SETTINGS)
    except P2PNodeError as error:
        _say("[bold red]failed[/]", error)
        sys.exit(EXIT_FAILED)


@app.command("testnet")
def run_testnet(
    out: Annotated[Path, typer.Option(help="Folder for genesis, homes and summary.json.")] = Path("runs/testnet"),
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes.")] = 7,
    byzantine: Annotated[int, typer.Option(min=0, help="How many of them lie: the last ones.")] = 1,
    f: Annotated[int | None, typer.Option("--f", help="Liars to tolerate; default: --byzantine, 0 for dsgd.")] = None,
    attack: Annotated[str, typer.Option(help=f"What liars do, a list: {', '.join(ATTACKS)}.")] = "alie,equivocate",
    recipe: Recipe = "trimmed",
    rule: Rule = None,
    broadcast: Broadcast = None,
    sub_rounds: SubRounds = None,
    gather: Gather = None,
    redundancy: Redundancy = None,
    local_steps: LocalSteps = None,
    placement: Placement = None,
    wire: Wire = None,
    staleness: Staleness = None,
    task: Task = "digits",
    data_dir: DataDir = None,
    alpha: Alpha = None,
    steps: Steps = None,
    local_batch: LocalBatch = None,
    momentum: Momentum = None,
    lr: Lr = None,
    lr_decay_every: LrDecayEvery = None,
    clip: Clip = None,
    vectors: Vectors = "tls",
    seed: Seed = 0,
    start: Start = None,
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
    from p2pnode.testnet import Plan

    attacks = tuple(name.strip() for name in attack.split(","))
    check_attacks(attacks)
    if byzantine >= nodes:
        raise ConfigError(f"byzantine = {byzantine}: of {nodes} nodes one at least is honest. Remedy: choose fewer")
    tolerated = f if f is not None else (0 if recipe == "dsgd" else byzantine)
    choice = _choice(recipe, rule, broadcast, sub_rounds, gather, redundancy, local_steps, placement, wire, staleness)
    proposal = _proposal(task, data_dir, seed, start)
    if proposal is not None and proposal.source is None and names_code(task):
        raise ConfigError(f"task = {task!r}: it is a model alone. Remedy: name a p2pnode.task(model, data, loss)")
    values = _genesis_values(
        tolerated, choice, task, alpha, steps, local_batch, momentum, lr, lr_decay_every, clip, vectors, seed, proposal
    )
    if byzantine > tolerated:
        _say("[yellow]note[/]", f"byzantine = {byzantine}, and the recipe tolerates f = {tolerated}: it may well fail")
    source = None if proposal is None else proposal.source
    if source is not None and engine == "containers":
        raise ConfigError(f"task = {task!r}: your code is not in the image. Remedy: choose another engine")
    if tensorboard is not None and engine == "containers":
        raise ConfigError("tensorboard: containers write to their homes only. Remedy: choose another engine")
    if perturb is not None and engine == "containers":
        raise ConfigError(f"perturb = {perturb!r}: containers cannot be hurt from here. Remedy: choose another engine")
    plan = Plan(
        out,
        values,
        nodes,
        byzantine,
        attacks,
        _data_dir(task, data_dir),
        stall,
        source=source,
        start=None if proposal is None else proposal.start,
        tensorboard=tensorboard,
    )
    perturbations = _perturbations(plan, perturb, perturb_seed, links=engine == "netns")
    with _hosts(engine, nodes, link_mbit, link_delay) as hosts, _containers(engine, image) as containers:
        placed = replace(plan, hosts=hosts, containers=containers)
        summary = _watch_testnet(placed, perturbations, quiet=as_json, page=page)
    if as_json:
        print(json.dumps(summary, indent=2))
    else:
        _out.print(table.summary(summary, _out.width))
        if perturbations is not None:
            _out.print(table.perturbations(summary))
        _out.print(table.closing(summary, plan.out / "summary.json"), soft_wrap=True)
    for sentence in summary.get("failures", ()):
        _say("[bold red]broken[/]", sentence)
    if summary.get("failures"):
        raise typer.Exit(EXIT_FAILED)


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
    _say("[yellow]drawn[/]", f"as in {plan.out}/perturb.toml:\n{drawn.toml()}")
    return drawn


@app.command()
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
    choice = _choice(recipe, rule, broadcast, sub_rounds, None, None, local_steps, None, wire, staleness)
    folder = _data_dir(task, data_dir)
    values = _genesis_values(byzantine, choice, task, None, steps, local_batch, None, None, None, None, vectors, 0)
    told = foretell(values, nodes, None if folder is None else Path(folder), rate)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _out.print(table.forecast(told))


def _hosts(
    engine: str, nodes: int, link_mbit: float | None, link_delay: float | None
) -> "AbstractContextManager[Hosts | None]":
    """Where the nodes of a testnet run."""
    if engine not in TESTNET_ENGINES:
        raise ConfigError(f"engine = {engine!r}: no such engine. Remedy: choose one of {', '.join(TESTNET_ENGINES)}")
    if engine == "netns":
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


def _watch_testnet(plan: "Plan", perturbations: "Perturbations | None", *, quiet: bool, page: bool) -> dict[str, Any]:
    import uvloop

    from p2pnode.netpage import NetPage
    from p2pnode.perturbed import Perturbed
    from p2pnode.testnet import Testnet

    def say(line: str) -> None:
        _say("[yellow]perturbed[/]", line)

    async def watched() -> dict[str, Any]:
        with table.Progress(_people, plan, quiet=quiet) as progress:
            task = asyncio.current_task()
            assert task is not None
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, task.cancel)
            net = (
                Testnet(plan, _began, progress.show)
                if perturbations is None
                else Perturbed(plan, _began, progress.show, perturbations, say)
            )
            if not page:
                return await net.run()
            async with NetPage(net.nodes) as served:
                _say("[bold]page[/]", served.address)
                return await net.run()

    try:
        return uvloop.run(watched())
    except asyncio.CancelledError:
        _say("[yellow]interrupted[/]", f"every node was stopped; {plan.out} holds what they saved")
        raise typer.Exit(EXIT_FAILED) from None


@app.command()
def simulate(
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes.")] = 4,
    byzantine: Annotated[int, typer.Option(min=0, help="How many of them lie: the last ones.")] = 1,
    f: Annotated[int | None, typer.Option("--f", min=0, help="Liars to tolerate; default: --byzantine.")] = None,
    recipe: Annotated[
        str, typer.Option(help=f"A recipe ({', '.join(RECIPES)}), or one broadcast alone: {', '.join(BROADCASTS)}.")
    ] = "jungle-rb",
    rule: Rule = None,
    broadcast: Broadcast = None,
    sub_rounds: SubRounds = None,
    gather: Gather = None,
    redundancy: Redundancy = None,
    local_steps: LocalSteps = None,
    placement: Placement = None,
    wire: Wire = None,
    staleness: Staleness = None,
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

    attacks = ATTACKS_IN_TURN if attack == ALL else (tuple(name.strip() for name in attack.split(",")),)
    chosen = {"alpha": alpha, "local_batch": local_batch, "momentum": momentum, "lr": lr}
    chosen |= {"lr_decay_every": lr_decay_every, "clip": clip}
    needless = [name.replace("_", "-") for name, value in chosen.items() if value is not None]
    if needless and not train:
        raise ConfigError(
            f"{needless[0]}: nothing is trained that it could change. Remedy: add --train, or leave it out"
        )
    if train:
        _data_dir(task, data_dir)
    options = {"gather": gather, "redundancy": redundancy, "local_steps": local_steps, "placement": placement}
    options |= {"wire": wire, "staleness": staleness}
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
    with table.Bar(_people, len(seeds) * each, quiet=as_json, unit=unit) as bar:
        stepped = None if sweep.train is None else bar.advance
        tally = run_all(sweep, seeds, lambda so_far: bar.show(so_far.runs * each, len(so_far.broken)), stepped)
    told = summary(sweep, tally, began)
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _out.print(table.simulation(told))
        for text in table.violations(told):
            _out.print(text, markup=False, highlight=False, soft_wrap=True)
    if not as_json and (show or tally.broken):
        seed = tally.broken[0].seed if tally.broken else seeds[0]
        _out.print(f"\nseed {seed}, the end of it:\n{draw(sweep, seed)}", markup=False, highlight=False, soft_wrap=True)
    if tally.broken:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def experiment(
    file: Annotated[Path, typer.Argument(help="The experiment file.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder for results and plots; default: runs/NAME.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Trials at a time; 0: as many as there are cores.")] = 0,
    engine: Annotated[str, typer.Option(help=f"What runs the trials: {', '.join(ENGINES)}.")] = "local",
    data_dir: DataDir = None,
    device: Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1; default: the file's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run each trial of a grid once, side by side, and sum them up: table, heat map and curves.

    What is finished is kept: the same command goes on where it was stopped, and
    runs only what a changed file has anew. Exit code 1 if a trial failed.
    Trials are simulated; --engine testnet runs each as a network of real
    processes, one after another.

    Examples:

      p2pnode experiment examples/experiments/rules-digits.toml

      p2pnode experiment examples/experiments/monna-mnist.toml --data-dir data/mnist --workers 4
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine = {engine!r}: no such engine. Remedy: choose one of {', '.join(ENGINES)}")
    from p2pnode.experiment import grid, plot, show, summary
    from p2pnode.experiment.store import Store

    overrides = {"data_dir": None if data_dir is None else str(data_dir), "device": device}
    asked = grid.read(file, {key: value for key, value in overrides.items() if value is not None})
    folder = out or Path("runs") / (f"{asked.name}-testnet" if engine == "testnet" else asked.name)
    with Store(folder) as store:
        _conduct(asked, store, engine, workers, quiet=as_json)
        rows = summary.rows(asked, store.records)
    plots = plot.write(asked, rows, folder)
    if as_json:
        print(json.dumps(summary.machine(asked, rows) | {"plots": [str(path) for path in plots]}, indent=2))
    else:
        _out.print(show.table(asked, rows))
        for line in show.mishaps(rows):
            _out.print(line, markup=False, highlight=False, soft_wrap=True)
        _out.print("\n".join(map(str, [store.path, *plots])), soft_wrap=True, highlight=False)
    if any(row.errors for row in rows):
        raise typer.Exit(EXIT_FAILED)


def _conduct(asked: "Experiment", store: "Store", engine: str, workers: int, *, quiet: bool) -> None:
    """Run what has no result yet; Ctrl-C and a request to end leave what is finished, and say how to go on."""
    from p2pnode.experiment.cluster import on_ray
    from p2pnode.experiment.engine import conduct, local
    from p2pnode.experiment.real import on_testnets
    from p2pnode.experiment.show import Watch

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Watch(_people, asked, quiet=quiet) as watch:
            conduct(asked, store, {"local": local, "ray": on_ray, "testnet": on_testnets}[engine], watch.show, workers)
    except KeyboardInterrupt:
        _say("[yellow]interrupted[/]", f"{store.path} holds what is finished; the same command goes on from there")
        raise typer.Exit(EXIT_FAILED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command("report")
def make_report(
    folder: Annotated[Path, typer.Argument(help="What --out of a testnet or an experiment was.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default: report.html in the folder.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one HTML file of what a testnet or an experiment came to, with its plots; a browser needs nothing else.

    Example:

      p2pnode report runs/testnet
    """
    from p2pnode import report

    written = report.write(folder, out)
    if as_json:
        print(json.dumps({"report": str(written)}))
    else:
        _out.print(str(written), soft_wrap=True, highlight=False)


@app.command("list")
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
        _out.print(listing.table(what, rows))


@app.command()
def keygen(
    home: HomeFolder,
    name: Annotated[str, typer.Option(help="The member's name.")] = "node",
    address: Annotated[str, typer.Option(help="HOST:PORT under which the others reach it.")] = "127.0.0.1:7000",
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT to listen on; default: the address's port, on every interface.")
    ] = None,
    task: Source = None,
    data_dir: DataDir = None,
    seal: Annotated[bool, typer.Option("--seal", help="Seal the key by a passphrase; it never lies in clear.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a home for one node, and its join card: name, public key, certificate and address, for `genesis new`.

    Example:

      p2pnode keygen a --name a --address 10.0.0.1:7000
    """
    settings = {"data_dir": None if data_dir is None else str(data_dir.resolve())}
    place = _place(f"{name}={address}", settings | {"task": None if task is None else anywhere(task)})
    passphrase = asking(passphrase_file, new=True)() if seal else None
    card = equip(Home(home), name, address, place.settings, listen or place.listen or address, passphrase)
    if as_json:
        print(json.dumps({**card.model_dump(), "card": str(Home(home).card)}))
    else:
        _out.print(f"public key  {card.public_key}\ncard        {Home(home).card}", soft_wrap=True)
        _out.print(
            f"next        p2pnode genesis new with all cards, and copy it to {Home(home).genesis}", soft_wrap=True
        )


charters = typer.Typer(help="Make and read the charter that all members share.", no_args_is_help=True)
app.add_typer(charters, name="genesis")


@charters.command()
def new(
    cards: Annotated[list[Path], typer.Argument(help="Join cards, as `keygen` makes them.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("genesis.json"),
    f: Annotated[int, typer.Option("--f", min=0, help="Liars to tolerate.")] = 0,
    recipe: Recipe = "trimmed",
    rule: Rule = None,
    broadcast: Broadcast = None,
    sub_rounds: SubRounds = None,
    gather: Gather = None,
    redundancy: Redundancy = None,
    local_steps: LocalSteps = None,
    placement: Placement = None,
    wire: Wire = None,
    staleness: Staleness = None,
    task: Task = "digits",
    alpha: Alpha = None,
    steps: Steps = None,
    local_batch: LocalBatch = None,
    momentum: Momentum = None,
    lr: Lr = None,
    lr_decay_every: LrDecayEvery = None,
    clip: Clip = None,
    vectors: Vectors = "tls",
    seed: Seed = 0,
    start: Start = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a genesis of join cards; the same cards and options make the same network. Every member gets a copy.

    Of a task of your own it names the model and the weights that it begins with, which are written beside it, and which
    every member gets a copy of as well.

    Examples:

      p2pnode genesis new cards/*.json --f 1 --steps 500

      p2pnode genesis new cards/*.json --f 1 --task train.py:Net
    """
    if out.exists():
        raise ConfigError(f"{out}: exists. Remedy: choose another file, a genesis is never overwritten")
    choice = _choice(recipe, rule, broadcast, sub_rounds, gather, redundancy, local_steps, placement, wire, staleness)
    proposal = _proposal(task, data_dir, seed, start)
    values = _genesis_values(
        f, choice, task, alpha, steps, local_batch, momentum, lr, lr_decay_every, clip, vectors, seed, proposal
    )
    genesis = unite(cards, values)
    try:
        if proposal is not None:
            out.with_name(START).write_bytes(proposal.start)
        genesis.save(out)
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}; choose another file") from error
    _tell_charter(genesis, out, as_json=as_json)


@charters.command()
def show(
    file: Annotated[Path, typer.Argument(help="A genesis.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check a genesis, and tell which network it is of: nodes with the same one find each other, others do not."""
    _tell_charter(Genesis.load(file), file, as_json=as_json)


def _tell_charter(genesis: Genesis, file: Path, *, as_json: bool) -> None:
    names = [member.name for member in genesis.members]
    told = {"network": genesis.network.hex(), "genesis": str(file), "members": names, "f": genesis.f}
    model = genesis.training.model
    if model is not None:
        told["model"] = model.model_dump()
    if as_json:
        print(json.dumps(told))
    else:
        _out.print(f"network  {told['network']}\ngenesis  {file}", soft_wrap=True)
        _out.print(f"members  {', '.join(names)}; f = {genesis.f}, {genesis.recipe.name}", soft_wrap=True)
        if model is not None:
            _out.print(f"model    {genesis.training.task}, {model.parameters:,} parameters", soft_wrap=True)
            _out.print(f"start    {model.start}, to be {START} in each home", soft_wrap=True)


@app.command()
def seal(home: HomeFolder, passphrase_file: PassphraseFile = None) -> None:
    """Seal the key of a home by a passphrase, for which `run` then asks. Whoever copies the home cannot use it."""

    def sealed_already() -> bytes:
        raise ConfigError("it is sealed already. Remedy: `p2pnode unseal` it first, to choose another passphrase")

    path = Home(home).key
    identity = Identity.load(path, sealed_already)
    identity.resave(path, asking(passphrase_file, new=True)())
    _out.print(f"sealed  {path}\nnext    p2pnode run {home}, which asks for the passphrase", soft_wrap=True)


@app.command()
def unseal(home: HomeFolder, passphrase_file: PassphraseFile = None) -> None:
    """Put the key of a home in clear again: whoever reads the file has the key."""
    path = Home(home).key
    Identity.load(path, asking(passphrase_file)).resave(path)
    _out.print(f"in clear  {path}", soft_wrap=True)


@app.command()
def init(
    out: Annotated[Path, typer.Argument(help="Folder for the genesis and the homes.", show_default=False)],
    address: Annotated[list[str], typer.Option(help="NAME=HOST:PORT of a member, once for each.", show_default=False)],
    f: Annotated[int, typer.Option("--f", min=0, help="Liars to tolerate.")] = 0,
    recipe: Recipe = "trimmed",
    rule: Rule = None,
    broadcast: Broadcast = None,
    sub_rounds: SubRounds = None,
    gather: Gather = None,
    redundancy: Redundancy = None,
    local_steps: LocalSteps = None,
    placement: Placement = None,
    wire: Wire = None,
    staleness: Staleness = None,
    task: Task = "digits",
    data_dir: DataDir = None,
    alpha: Alpha = None,
    steps: Steps = None,
    local_batch: LocalBatch = None,
    momentum: Momentum = None,
    lr: Lr = None,
    lr_decay_every: LrDecayEvery = None,
    clip: Clip = None,
    vectors: Vectors = "tls",
    seed: Seed = 0,
    start: Start = None,
    as_json: AsJson = False,
) -> None:
    """Found a network: write its genesis, and a home folder for each member, to be copied to its machine.

    Example:

      p2pnode init lan --f 1 --address a=10.0.0.1:7000 --address b=10.0.0.2:7000 --address c=10.0.0.3:7000 \\
        --address d=10.0.0.4:7000 --address e=10.0.0.5:7000
    """
    if (out / "genesis.json").exists():
        raise ConfigError(f"{out}: holds a genesis already. Remedy: choose another folder")
    choice = _choice(recipe, rule, broadcast, sub_rounds, gather, redundancy, local_steps, placement, wire, staleness)
    proposal = _proposal(task, data_dir, seed, start)
    values = _genesis_values(
        f, choice, task, alpha, steps, local_batch, momentum, lr, lr_decay_every, clip, vectors, seed, proposal
    )
    settings = {"data_dir": _data_dir(task, data_dir), "task": None if proposal is None else proposal.source}
    weights = None if proposal is None else proposal.start
    genesis = found(out, [_place(text, settings) for text in address], values, weights)
    homes = [str(out / member.name) for member in genesis.members]
    if as_json:
        print(json.dumps({"network": genesis.network.hex(), "genesis": str(out / "genesis.json"), "homes": homes}))
    else:
        _out.print(f"network {genesis.network.hex()}\nhomes   {', '.join(homes)}", soft_wrap=True)
        _out.print("next    p2pnode run HOME, on each machine", soft_wrap=True)


@app.command("run")
def run_home(
    home: HomeFolder,
    attack: Annotated[str, typer.Option(help="Lie, for tests: what, as in `testnet`.", show_default=False)] = "",
    task: Source = None,
    liars: Annotated[str, typer.Option(help="Members that lie with it, a list of names.", show_default=False)] = "",
    passphrase_file: PassphraseFile = None,
    log_level: Annotated[str, typer.Option(help=f"The least level to show: {', '.join(LEVELS)}.")] = "info",
    log_format: Annotated[
        str, typer.Option(help="text on standard error, or json on standard output, a line each.")
    ] = "text",
    tensorboard: Written = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --log-format json.")] = False,
) -> None:
    """Run one node from its home, until the last step is taken and no peer needs it. Ctrl-C stops it in good order.

    Its log is log.jsonl in the home; the options only choose what is shown of it.
    """
    level = next((level for level in LEVELS if level == log_level), None)
    if level is None:
        raise ConfigError(f"log-level = {log_level!r}: no such level. Remedy: choose one of {', '.join(LEVELS)}")
    if log_format not in LOG_FORMATS:
        raise ConfigError(
            f"log-format = {log_format!r}: no such format. Remedy: choose one of {', '.join(LOG_FORMATS)}"
        )
    console: Shown = "json" if as_json or log_format == "json" else "people"
    attacks = tuple(name.strip() for name in attack.split(",")) if attack else ()
    check_attacks(attacks)
    from p2pnode.process import run_node

    ask = asking(passphrase_file)
    fellows = tuple(name.strip() for name in liars.split(",") if name.strip())
    code = run_node(
        Home(home), attacks, fellows, console=console, ask=ask, source=task, shown=level, tensorboard=tensorboard
    )
    raise typer.Exit(code)


@app.command()
def doctor(
    home: HomeFolder,
    patience: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a peer.")] = 3.0,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Examine a home before its node runs: files, keys, genesis, ports, disk, device, peers. Exit code 1 if it will not
    run, or not with its peers; what is wrong is told with its remedy.

    Example:

      p2pnode doctor a
    """
    from p2pnode.doctor import examine

    findings = examine(Home(home), patience, asking(passphrase_file))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        _out.print(table.findings(findings))
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def export(
    home: HomeFolder,
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.", show_default=False)],
    task: Source = None,
    as_json: AsJson = False,
) -> None:
    """Write the model of a home's checkpoint to a file: the weights by name, as its class takes them in.

    Example:

      p2pnode export a model.safetensors
    """
    from p2pnode.product import of_home

    told = of_home(Home(home), task).export(out)
    if as_json:
        print(json.dumps(told))
    else:
        _out.print(f"weights  {out}: {told['task']} after {told['step']} steps", soft_wrap=True, highlight=False)


@app.command()
def evaluate(
    what: Annotated[Path, typer.Argument(help="A home, or a safetensors file of weights.", show_default=False)],
    task: Annotated[
        str | None,
        typer.Option(
            help="Of what task; your own as FILE.py:NAME. Default: the home's, or the file's.", show_default=False
        ),
    ] = None,
    data_dir: DataDir = None,
    device: Annotated[str, typer.Option(help="Where: cpu, cuda, cuda:INDEX or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure a model on the whole test data of its task: that of a home's checkpoint, or of exported weights.

    Examples:

      p2pnode evaluate a

      p2pnode evaluate model.safetensors --task train.py:task
    """
    from p2pnode.product import of_file, of_home

    if what.is_dir():
        if data_dir is not None:
            raise ConfigError(f"data-dir: {Home(what).config} names it. Remedy: leave it out, or change it there")
        model = of_home(Home(what), task)
    else:
        model = of_file(what, task, data_dir, device)
    told = model.measured()
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _out.print(table.evaluation(told))


@app.command()
def status(
    home: HomeFolder,
    probe: Annotated[
        str | None, typer.Option(help="Only whether the node is live, or ready: exit code 0 if so, else 1.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the running node of a home what it does, and whom it waits for.

    Examples:

      p2pnode status a

      p2pnode status a --probe ready
    """
    if probe is not None:
        if probe not in PROBES:
            raise ConfigError(f"probe = {probe!r}: no such probe. Remedy: choose one of {', '.join(PROBES)}")
        told = ask_node(Home(home), PROBES[probe])
        print(json.dumps(told))
        raise typer.Exit(0 if told.get("ready", True) else EXIT_FAILED)
    told = ask_node(Home(home), "/status")
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        _out.print(table.status(told))


@app.command()
def top(
    folders: Annotated[
        list[Path], typer.Argument(help="Homes, or folders of them, as a testnet's.", show_default=False)
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = EVERY_S,
    once: Annotated[
        bool, typer.Option("--once", help="Show one picture and end; exit code 1 if no node answers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the nodes of this machine, a row each: step, loss, whom each waits for, who is late. Ctrl-C ends it.

    With --json a line for each look.

    Examples:

      p2pnode top runs/testnet

      p2pnode top a b --once --json
    """
    show_nodes(homes_of(folders), _out, every, once=once, as_json=as_json)


@app.command("verify-evidence")
def verify_evidence(
    file: Annotated[Path, typer.Argument(help="An evidence file.", show_default=False)],
    genesis: Annotated[Path, typer.Option(help="The genesis of its network.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check a proof of equivocation with nothing but the genesis. Exit code 0 if it holds, 1 if it does not."""
    charter = Genesis.load(genesis)
    keys = KeyRing([bytes.fromhex(member.public_key) for member in charter.members])
    try:
        evidence = decode_evidence(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give an evidence file") from error
    except WireError as error:
        raise P2PNodeError(f"{file} proves nothing: {error}") from error
    if not evidence.holds(charter.network, keys):
        raise P2PNodeError(f"{file} proves nothing: it is not two headers, signed for one slot of this network")
    accused, slot = charter.members[evidence.accused].name, evidence.first.header.slot
    if as_json:
        print(json.dumps({"accused": accused, "fault": "equivocated", "step": slot.step, "sub_round": slot.sub_round}))
    else:
        _out.print(f"[bold]{accused}[/] equivocated: it signed two vectors for step {slot.step}", soft_wrap=True)
        for signed in (evidence.first, evidence.second):
            _out.print(f"  {signed.header.digest.hex()}", soft_wrap=True)


def _choice(
    recipe: str,
    rule: str | None,
    broadcast: str | None,
    sub_rounds: int | None,
    gather: str | None,
    redundancy: int | None,
    local_steps: int | None,
    placement: str | None,
    wire: str | None,
    staleness: int | None,
) -> dict[str, Any]:
    """The `recipe` table of a genesis; tells what no guard can check of it."""
    if recipe in RECIPES and (note := RECIPES[recipe].note) is not None:
        _say("[yellow]note[/]", note)
    return {
        "name": recipe,
        "broadcast": broadcast,
        "rule": rule,
        "sub_rounds": sub_rounds,
        "gather": gather,
        "redundancy": redundancy,
        "local_steps": local_steps,
        "placement": placement,
        "wire": wire,
        "staleness": staleness,
    }


def _genesis_values(
    f: int,
    choice: dict[str, Any],
    task: str,
    alpha: float | None,
    steps: int | None,
    local_batch: int | None,
    momentum: float | None,
    lr: float | None,
    lr_decay_every: int | None,
    clip: float | None,
    vectors: str,
    seed: int,
    proposal: "Proposal | None" = None,
) -> dict[str, Any]:
    """The genesis as options give it; what is None comes from the recipe or the task."""
    defaults = catalogue.find(task) if proposal is None else proposal.defaults
    own = RECIPES[choice["name"]].momentum if choice["name"] in RECIPES else None

    def chosen(value: float | None, default: float) -> float:
        return default if value is None else value

    return {
        "seed": seed,
        "f": f,
        "recipe": choice,
        "vectors": vectors,
        "training": {
            "task": defaults.name,
            "alpha": alpha,
            "steps": chosen(steps, defaults.steps),
            "local_batch": chosen(local_batch, defaults.local_batch),
            "momentum": chosen(momentum, defaults.momentum if own is None else own),
            "lr": chosen(lr, defaults.lr),
            "lr_decay_every": chosen(lr_decay_every, defaults.lr_decay_every),
            "clip": clip,
            "model": None if proposal is None else proposal.model,
        },
    }


def _proposal(task: str, data_dir: Path | None, seed: int, start: Path | None) -> "Proposal | None":
    """What is to be said of the model of one's own task, or of given weights; a built-in task is known to all."""
    if not names_code(task):
        _data_dir(task, data_dir)
        if start is None:
            return None
    from p2pnode.assignment import propose

    return propose(task, data_dir, seed, start)


def _data_dir(task: str, data_dir: Path | None) -> str | None:
    if data_dir is None and not names_code(task) and catalogue.find(task).needs_data_dir:
        raise ConfigError(f"data-dir is missing: {task} reads its files from a folder. Remedy: add --data-dir FOLDER")
    return None if data_dir is None else str(data_dir.resolve())


def _place(text: str, settings: dict[str, Any]) -> Place:
    name, separator, address = text.partition("=")
    if not separator:
        raise ConfigError(f"address = {text!r}: no name in it. Remedy: write NAME=HOST:PORT")
    host, _, port = address.rpartition(":")
    local = host == "localhost" or host.startswith("127.")
    # Elsewhere the address may be a name or a router's, that the machine itself does not have.
    return Place(name, address, settings, address if local else f"0.0.0.0:{port}")


def _say(what: str, message: object) -> None:
    """A line for people, on standard error; the message is shown as it is."""
    _people.print(what, end=" ")
    _people.print(str(message), markup=False, highlight=False, soft_wrap=True)
